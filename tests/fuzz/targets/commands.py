"""`CommandReader`: lines, bodies and batches out of a stream in any pieces, against a plain reading of the whole.

Input: a byte that decides how the rest is cut, then the stream. A line that begins with `M` is followed by a batch, one
with `D` by a document, as a session would read it.
"""

import re
from typing import Final

from nsqkit.wire.commands import MAX_LINE, CommandReader, parse_number
from nsqkit.wire.errors import ClientError, LineTooLong
from tests.fuzz.source import Source, ways

MAX_MESSAGE: Final = 64
MAX_BODY: Final = 256

Event = tuple[str, object]


def check(data: bytes) -> None:
    """Every way to cut the stream gives what a plain reading of the whole gives, within bounded memory."""
    source = Source(data)
    seed = source.byte()
    stream = source.rest()
    expected = _reference(stream)
    for chunks in ways(stream, seed):
        assert expected == _read(chunks)
    digits = stream[:40]
    number = parse_number(digits)
    if re.fullmatch(rb"[0-9]*", digits):
        assert min(int(digits or b"0"), 2**63 - 1) == number or number > 9 * 10**17
    else:
        assert number == -1


def _read(chunks: list[bytes]) -> list[Event]:
    """What the reader makes of it."""
    reader = CommandReader()
    events: list[Event] = []
    state = ""
    for chunk in chunks:
        before = reader.pending()
        if not reader.feed(chunk):
            assert reader.pending() == before + len(chunk)
            continue
        while True:
            try:
                event = _step(reader, state)
            except (ClientError, LineTooLong) as error:
                events.append((type(error).__name__, str(error)))
                return events
            if event is None:
                break
            events.append(event)
            state = _following(event)
        held = reader.pending() + sum(len(part) for part in reader._batch_parts)
        assert held <= max(MAX_LINE, MAX_BODY + 8) + len(chunk), "holds more than one incomplete command"
    events.append(("rest", state))
    return events


def _following(event: Event) -> str:
    """What has to come after it: a batch (M), a document (D), or nothing in particular."""
    kind, line = event
    first = line[:1].decode("latin-1") if kind == "line" and isinstance(line, bytes) else ""
    return first if first in {"M", "D"} else ""


def _step(reader: CommandReader, state: str) -> Event | None:
    """Something whole, or None."""
    if state == "M":
        batch = reader.batch(MAX_MESSAGE, MAX_BODY)
        return None if batch is None else ("batch", (int(reader.batch_count), batch))
    if state == "D":
        if not reader.has(4):
            return None
        size = int(reader.peek_size())
        if not 0 < size <= MAX_BODY:
            raise LineTooLong(f"size {size}")
        document = reader.take(4 + size)
        return None if document is None else ("document", document)
    message_id = reader.finish_id()
    if message_id is not None:
        return "id", message_id
    line = reader.line()
    return None if line is None else ("line", line)


def _reference(stream: bytes) -> list[Event]:
    """The same, read from the whole stream without any cleverness."""
    events: list[Event] = []
    at = 0
    while True:
        finish = re.compile(rb"FIN ([0-9A-Za-z]{16})\n").match(stream, at)
        if finish:
            events.append(("id", finish[1]))
            at = finish.end()
            continue
        end = stream.find(b"\n", at)
        if end - at >= MAX_LINE or (end < 0 and len(stream) - at >= MAX_LINE):
            return [*events, ("LineTooLong", "")]
        if end < 0:
            return [*events, ("rest", "")]
        line = stream[at:end].removesuffix(b"\r")
        at = end + 1
        events.append(("line", line))
        if line[:1] == b"D":
            if len(stream) < at + 4:
                return [*events, ("rest", "D")]
            size = int.from_bytes(stream[at : at + 4], "big", signed=True)
            if not 0 < size <= MAX_BODY:
                return [*events, ("LineTooLong", f"size {size}")]
            if len(stream) < at + 4 + size:
                return [*events, ("rest", "D")]
            events.append(("document", stream[at : at + 4 + size]))
            at += 4 + size
        elif line[:1] == b"M":
            event, at = batch_of(stream, at, MAX_MESSAGE, MAX_BODY)
            events.append(event)
            if event[0] != "batch":
                return events


def batch_of(  # noqa: C901, PLR0911 - the rules in their order
    stream: bytes, at: int, max_message: int, max_body: int
) -> tuple[Event, int]:
    """The batch at a position, and where it ends; or the error, or a `rest` if it is incomplete."""
    start = at

    def number() -> int | None:
        nonlocal at
        if len(stream) < at + 4:
            return None
        at += 4
        return int.from_bytes(stream[at - 4 : at], "big", signed=True)

    size = number()
    if size is None:
        return ("rest", "M"), at
    if size <= 0:
        return ("BadBody", f"MPUB invalid body size {size}"), at
    if size > max_body:
        return ("BadBody", f"MPUB body too big {size} > {max_body}"), at
    count = number()
    if count is None:
        return ("rest", "M"), at
    if not 0 < count <= (max_body - 4) // 5:
        return ("BadBody", f"MPUB invalid message count {count}"), at
    for index in range(count):
        length = number()
        if length is None:
            return ("rest", "M"), at
        if length <= 0:
            return ("BadMessage", f"MPUB invalid message({index}) body size {length}"), at
        if length > max_message:
            return ("BadMessage", f"MPUB message too big {length} > {max_message}"), at
        if at + length - start - 4 > max_body:
            return ("BadBody", f"MPUB body too big {at + length - start - 4} > {max_body}"), at
        if len(stream) < at + length:
            return ("rest", "M"), at
        at += length
    return ("batch", (count, stream[start + 8 : at])), at
