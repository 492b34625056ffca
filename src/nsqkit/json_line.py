"""A log line as one JSON object, for programs that collect logs.

    {"ts":"2026-01-02T15:04:05.000000Z","level":"info","program":"nsqd","msg":"TOPIC(t): created","topic":"t"}

It is ASCII, whatever is in it, so nothing in a line can end it, hide in it or drive a terminal; a reader gets back the
very text. A line is at most MOST bytes long, which collectors take whole: Docker cuts lines at 16 KiB.
"""

import json
import time
from collections.abc import Mapping
from typing import Final

from nsqkit.lines import CLIENT_TEXT, cut

MOST: Final = 8000  # bytes of a line, with its end

Field = str | int | float | bool
"""What a field holds. Texts are cut to CLIENT_TEXT characters, or shorter if the line would be too long."""

_NS: Final = 1_000_000_000


def json_line(now: int, level: str, program: str, text: str, fields: Mapping[str, Field]) -> str:
    """The line of an event at `now`, ns since the epoch, with its end. A program without a name is left out."""
    seconds, nanoseconds = divmod(now, _NS)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    head: dict[str, Field] = {"ts": f"{stamp}.{nanoseconds // 1000:06d}Z", "level": level}
    if program:
        head["program"] = _shown(program, CLIENT_TEXT)
    limit = MOST // 2
    while True:
        shown = {name: _shown(value, min(limit, CLIENT_TEXT)) for name, value in fields.items()}
        line = json.dumps(head | {"msg": _shown(text, limit)} | shown, separators=(",", ":")) + "\n"
        if len(line) <= MOST or not limit:
            return line
        limit //= 2


def _shown(value: Field, limit: int) -> Field:
    """A value that JSON can hold: a text is cut, and halves of characters in it are spelled out."""
    if not isinstance(value, str):
        return value
    return cut(value, limit).encode("utf-8", "backslashreplace").decode()
