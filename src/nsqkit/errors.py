"""Errors a user of the package may want to catch.

NsqkitError
├── StartError            a daemon cannot start: lock, address, damaged metadata; exit 1
├── PublishError          messages that a program publishes are not taken
│   ├── BadTopicName      the topic may not be called this
│   ├── EmptyMessage      a body is empty, or there is none
│   ├── MessageTooLarge   a body, or all of them together, exceeds a limit
│   ├── BadDelay          the delay is negative, or exceeds its limit
│   ├── NotKept           the disk failed, or the daemon is stopping
│   ├── NotSent           the messages did not leave this process; sending them again makes no copy
│   ├── OutcomeUnknown    they were sent, and no answer came: they may be there, or not
│   └── Refused           nsqd answered with an error, and keeps none of them
├── ConnectionFailed      no usable connection to an nsqd: the text has address and reason
│   ├── HandshakeFailed   it is no nsqd, or does not offer what an option demands, such as TLS
│   └── AuthFailed        AUTH is needed, or was refused
├── AlreadyAnswered       a message was finished or given back before
├── ConsumerFailed        a consumer has given up; the text says why
├── RequeueMessage        what a handler raises to give a message back
└── OptionError           an option's value makes no sense; exit 2
    ├── ConfigFileError   the config file cannot be read or holds a bad value; exit 2
    ├── NotLive           an option can't be changed while the daemon runs
    └── FlagError         the command line cannot be understood; exit 2
"""

from datetime import timedelta


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


class NotSent(PublishError):
    """The messages did not leave this process, so nobody has them: publishing again is safe."""


class OutcomeUnknown(PublishError):
    """The messages were sent, and the connection was lost before an answer came: publishing again may make a copy."""


class Refused(PublishError):
    """nsqd answered with an error, and keeps none of the messages.

    `code` is its word (`E_BAD_TOPIC`, `E_PUB_FAILED` ...: spec/tcp-protocol.md, section 3), `detail` what it adds.
    """

    def __init__(self, code: str, detail: str, nsqd: str) -> None:
        super().__init__(f"nsqd {nsqd} refused it: {code} {detail}".rstrip())
        self.code = code
        self.detail = detail
        self.nsqd = nsqd


class ConnectionFailed(NsqkitError):
    """There is no usable connection to an nsqd. `nsqd` is its address; `final`: another try would end likewise."""

    def __init__(self, nsqd: str, reason: str, *, final: bool = False) -> None:
        super().__init__(f"nsqd {nsqd}: {reason}")
        self.nsqd = nsqd
        self.reason = reason
        self.final = final


class HandshakeFailed(ConnectionFailed):
    """It is no nsqd, it refuses what was asked for, or it does not offer what an option demands, such as TLS."""


class AuthFailed(ConnectionFailed):
    """It wants AUTH and no secret is set, or it refused the secret."""


class AlreadyAnswered(NsqkitError):
    """A message is finished, or given back, a second time."""


class ConsumerFailed(NsqkitError):
    """A consumer has given up: no nsqd was reached for `give_up_after`, or none will ever have it."""


class OptionError(NsqkitError):
    """An option's value is of the wrong type, out of range, or contradicts another. The text names its flag."""


class ConfigFileError(OptionError):
    """The config file cannot be read, or a value in it cannot be understood."""


class NotLive(OptionError):
    """An option can't be changed while the daemon runs. The text names its flag."""


class FlagError(OptionError):
    """A flag is unknown, malformed, or belongs to a feature that this version does not have."""


class RequeueMessage(NsqkitError):
    """Raised by who handles a message, to give it back: `raise RequeueMessage(delay=30)`.

    `delay` is in seconds, or text like "1m30s"; None is the consumer's default, which grows with the attempts. With
    `backoff=False` the consumer goes on with other messages without a break.
    """

    def __init__(self, delay: float | str | timedelta | None = None, *, backoff: bool = True) -> None:
        super().__init__(delay)
        self.delay = delay
        self.backoff = backoff
