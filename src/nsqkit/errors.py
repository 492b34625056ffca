"""Errors a user of the package may want to catch.

NsqkitError
├── StartError            a daemon cannot start: lock, address, damaged metadata; exit 1
├── PublishError          messages that a program publishes are not taken
│   ├── BadTopicName      the topic may not be called this
│   ├── EmptyMessage      a body is empty, or there is none
│   ├── MessageTooLarge   a body, or all of them together, exceeds a limit
│   ├── BadDelay          the delay is negative, or exceeds its limit
│   └── NotKept           the disk failed, or the daemon is stopping
└── OptionError           an option's value makes no sense; exit 2
    ├── ConfigFileError   the config file cannot be read or holds a bad value; exit 2
    ├── NotLive           an option can't be changed while the daemon runs
    └── FlagError         the command line cannot be understood; exit 2
"""


class NsqkitError(Exception):
    """Everything this package raises on purpose."""


class StartError(NsqkitError):
    """A daemon cannot start. The text says why and names the path or address."""


class PublishError(NsqkitError):
    """Messages that a program publishes are not taken. The text says why, and which message it is."""


class BadTopicName(PublishError):
    """The topic may not be called this."""


class EmptyMessage(PublishError):
    """A body is empty, or there is none at all."""


class MessageTooLarge(PublishError):
    """A body, or all of them together, has more bytes than an option allows. The text names its flag."""


class BadDelay(PublishError):
    """The delay is negative, or longer than --max-req-timeout."""


class NotKept(PublishError):
    """The messages could not be kept as the durability mode demands: the disk failed, or the daemon is stopping."""


class OptionError(NsqkitError):
    """An option's value is of the wrong type, out of range, or contradicts another. The text names its flag."""


class ConfigFileError(OptionError):
    """The config file cannot be read, or a value in it cannot be understood."""


class NotLive(OptionError):
    """An option can't be changed while the daemon runs. The text names its flag."""


class FlagError(OptionError):
    """A flag is unknown, malformed, or belongs to a feature that this version does not have."""
