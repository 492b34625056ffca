"""Who says what clients may do, as the core sees it: `nsqd/auth/` asks the operator's auth servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import i64, mypyc_attr

if TYPE_CHECKING:
    from nsqkit.nsqd.core.session import Session


@mypyc_attr(allow_interpreted_subclasses=True)
class Permissions:
    """What one client may do, until it is to be asked again."""

    def __init__(self, identity: str, identity_url: str, count: int, expires_at: i64) -> None:
        self.identity = identity
        self.identity_url = identity_url
        self.count = count  # of authorizations
        self.expires_at = expires_at

    def allow(self, topic: str, channel: str) -> bool:
        """May the client subscribe to the channel; or publish to the topic, if `channel` is empty?"""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Authority:
    """Is asked with a client's secret. It takes its time, and no log line of it has a secret."""

    def ask(self, session: Session, secret: bytes) -> None:
        """Find out what the client may do, then call `session.answered`, from outside of this call."""
        raise NotImplementedError

    def forget(self, session: Session) -> None:
        """The session is gone: do not answer it any more."""
        raise NotImplementedError
