"""Options of the daemons: declared once, read from flags, config file or Python, reported and documented.

The machinery is in `declaration` (what an option is), `kinds` (how values are written), `command_line` (flags, config
file, precedence) and `duration`.
"""

from nsqkit.options.declaration import (
    IgnoredFlag,
    Option,
    Options,
    config_value,
    declared,
    differing,
    find,
    option,
    with_live_value,
)
from nsqkit.options.duration import Duration, DurationOption
from nsqkit.options.kinds import FLOATS, STRINGS, Words

__all__ = [
    "FLOATS",
    "STRINGS",
    "Duration",
    "DurationOption",
    "IgnoredFlag",
    "Option",
    "Options",
    "Words",
    "config_value",
    "declared",
    "differing",
    "find",
    "option",
    "with_live_value",
]
