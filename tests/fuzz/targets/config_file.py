"""The config file of nsqd. Input: its content."""

import os
from typing import Final

from nsqkit.errors import OptionError
from nsqkit.gojson import encode_json
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.settings import settings_of
from nsqkit.options import declared
from nsqkit.options.command_line import CommandLine, load
from nsqkit.options.kinds import INT64
from tests.fuzz.source import same
from tests.fuzz.targets.diskqueue import scratch

OPTIONS: Final = declared(NsqdOptions)


def check(data: bytes) -> None:
    """Options come of it, each of which can be written down and read again; or an OptionError that says why not."""
    with scratch() as directory:
        path = os.path.join(directory, "nsqd.cfg")
        with open(path, "wb") as file:
            file.write(data)
        try:
            options = load(NsqdOptions, CommandLine(config=path))
        except OptionError as error:
            same(True, bool(str(error)))
            return
    check_options(options)


def check_options(options: NsqdOptions) -> None:
    """Whatever is valid can be shown, reported, read again, and used."""
    for one in OPTIONS:
        value = getattr(options, one.name)
        shown = one.kind.show(value)
        if shown and not one.kind.repeats:
            assert value == one.kind.parse(shown), f"--{one.flag}={shown}"
        encode_json(one.kind.report(value))
    settings = settings_of(options)
    for owner in (settings, settings.limits):
        for name in dir(owner):
            value = getattr(owner, name)
            assert not isinstance(value, int) or value in INT64, f"{name} = {value}: the broker has 64 bits"
