"""The alarms of a session: what is due to its client at some time, and what is due from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import i64

from nsqkit.nsqd.core.deadlines import Alarm
from nsqkit.wire.frames import HEARTBEAT_FRAME

if TYPE_CHECKING:
    from nsqkit.nsqd.core.session import Session


class Patience(Alarm):
    """Hangs up on a client that does not say the magic, or does not finish a handshake, in time."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session: Session | None = session

    def forget(self) -> None:
        """It did. The alarm stands in the heap until it is due, and must not keep the session alive."""
        self._session = None

    def ring(self, now: i64) -> i64:  # noqa: ARG002 - an alarm's interface
        """It did not."""
        if self._session is not None:
            self._session.drop("handshake not finished in time")
        return 0


class Heartbeat(Alarm):
    """A session's ticks and deadlines (spec/tcp-protocol.md, section 5)."""

    def __init__(self, session: Session, interval: i64, now: i64) -> None:
        super().__init__()
        self._session = session
        self._interval = interval
        self._tick = now + interval
        self._blocked_at: i64 = 0
        self.sent_at: i64 = 0  # the last heartbeat

    def drained(self) -> None:
        """The client does read, however slowly."""
        self._blocked_at = 0

    def ring(self, now: i64) -> i64:
        """Send a heartbeat when it is time; hang up on who is silent for two intervals or does not read for one."""
        session = self._session
        if session.closed:
            return 0
        if not session.blocked:
            self._blocked_at = 0
        elif self._blocked_at == 0:
            self._blocked_at = now
        elif now - self._blocked_at >= self._interval:
            session.abort("it does not read what it is sent")
            return 0
        silence: i64 = (
            0 if session.waiting else 2 * session.identity.heartbeat_interval
        )  # it is not read then
        if silence > 0 and now - session.heard_at >= silence:
            session.drop("no answer to two heartbeats")
            return 0
        if now >= self._tick:
            self._tick = max(self._tick + self._interval, now + 1)
            if not session.blocked:
                self.sent_at = now
                session.out.write(HEARTBEAT_FRAME)
                session.has_output()
        return min(self._tick, session.heard_at + silence) if silence > 0 else self._tick
