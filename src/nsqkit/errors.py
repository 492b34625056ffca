"""Errors a user of the package may want to catch.

NsqkitError
├── StartError            a daemon cannot start: lock, address, damaged metadata
└── OptionError           an option's value makes no sense; exit 1
    ├── ConfigFileError   the config file cannot be read or holds a bad value; exit 1
    └── FlagError         the command line cannot be understood; exit 2
"""


class NsqkitError(Exception):
    """Everything this package raises on purpose."""


class StartError(NsqkitError):
    """A daemon cannot start. The text says why and names the path or address."""


class OptionError(NsqkitError):
    """An option's value is of the wrong type, out of range, or contradicts another. The text names its flag."""


class ConfigFileError(OptionError):
    """The config file cannot be read, or a value in it cannot be understood."""


class FlagError(OptionError):
    """A flag is unknown, malformed, or belongs to a feature that this version does not have."""
