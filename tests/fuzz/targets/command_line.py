"""Flags of nsqd. Input: the words of the command line, NUL between them."""

import os
from typing import Final

from nsqkit.errors import OptionError
from nsqkit.gojson import encode_json
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options import config_value, declared, with_live_value
from nsqkit.options.command_line import load, parse
from tests.fuzz.source import same, text
from tests.fuzz.targets.config_file import check_options

LIVE: Final = tuple(one.key for one in declared(NsqdOptions) if one.live)


def check(data: bytes) -> None:
    """Options come of it, each of which can be written down and read again; or an OptionError that says why not."""
    words = [text(word) for word in data.split(b"\0")]
    try:
        line = parse(NsqdOptions, words)
        if line.config and os.path.exists(line.config):
            return  # there is no telling what is in it
        options = load(NsqdOptions, line)
    except OptionError as error:
        same(True, bool(str(error)))
        return
    check_options(options)
    _check_live(options, words[-1])


def _check_live(options: NsqdOptions, value: str) -> None:
    """What `PUT /config/<key>` does."""
    for key in LIVE:
        try:
            changed = with_live_value(options, key, value)
        except OptionError as error:
            same(True, bool(str(error)))
        else:
            encode_json(config_value(changed, key))
