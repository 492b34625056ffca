"""A log that goes to the `logging` module, for programs that embed a daemon and have a log of their own."""

import logging
from collections.abc import Mapping

from nsqkit.json_line import Field
from nsqkit.lines import cut, harmless
from nsqkit.log import LINE, Level, Log


class LoggerLog(Log):
    """Hands each line to a logger: `Nsqd(options, LoggerLog(logging.getLogger("nsqd")))`.

    Lines are cut and escaped, and complaints limited, as in `Log`; whether a handler waits or raises is up to it.

    What a line is about (topic, channel, client ...) is in the record's `fields`, a dict that may be empty.

    A line goes on if its level is at least `level`, which PUT /config/log_level changes, and at least the logger's.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger, level: Level = Level.DEBUG) -> None:
        super().__init__(level=level)
        self._logger = logger

    def enabled(self, level: Level) -> bool:
        """Whether both the log and the logger want lines of this level."""
        return super().enabled(level) and self._logger.isEnabledFor(_number(level))

    def _put(self, level: Level, text: str, fields: Mapping[str, Field]) -> None:
        extra = {"fields": {name: cut(one) if isinstance(one, str) else one for name, one in fields.items()}}
        self._logger.log(_number(level), "%s", harmless(cut(text, LINE)), extra=extra)


def _number(level: Level) -> int:
    """The level as `logging` counts: DEBUG is 10, FATAL is 50."""
    return level * 10
