"""Flow: how many messages each connection may have under way, so that together there are never too many.

RDY is what nsqd may have under way on a connection (spec/client.md, section 4.2); it is not used up by deliveries, so
it is sent when it changes and not otherwise. Everything that changes something here returns the RDYs to send, in order:
what is lowered comes before what is raised, so that their sum is within the limit after each of them.

With fewer slots than connections some have 1 and others none, and `redistribute` lets them change places.
"""

from collections.abc import Hashable
from random import Random
from typing import Generic, TypeVar

from nsqkit.client.backoff import BackoffState

Key = TypeVar("Key", bound=Hashable)


class _Member:
    """One connection."""

    def __init__(self, most: int, now: float) -> None:
        self.most = most  # nsqd takes no higher RDY
        self.ready = 0  # the last RDY
        self.heard_at = now  # when a message came last
        self.ready_since = now  # since when it has had its last RDY other than 0
        self.served_at = -1.0  # when it last had some


class Flow(Generic[Key]):
    """Shares `max_in_flight` among connections. Times are in seconds."""

    def __init__(self, max_in_flight: int, random: Random, idle: float, longest: float) -> None:
        """With fewer slots than connections, one loses its slot when nothing came for `idle`, or after `longest`."""
        self._max = max_in_flight
        self._random = random
        self._idle = idle
        self._longest = longest
        self._members: dict[Key, _Member] = {}
        self._state = BackoffState.NORMAL

    @property
    def total(self) -> int:
        """The sum of all RDYs."""
        return sum(member.ready for member in self._members.values())

    @property
    def limit(self) -> int:
        """What the sum may be now."""
        if self._state is BackoffState.PAUSED:
            return 0
        return min(self._max, 1) if self._state is BackoffState.TESTING else self._max

    def rdy(self, key: Key) -> int:
        """The last RDY of a connection."""
        member = self._members.get(key)
        return member.ready if member is not None else 0

    def add(self, key: Key, most: int, now: float) -> list[tuple[Key, int]]:
        """A connection stands, whose RDY can't be above `most`."""
        self._members[key] = _Member(most, now)
        return self._share(now)

    def remove(self, key: Key, now: float) -> list[tuple[Key, int]]:
        """A connection is gone, and its share is free."""
        if self._members.pop(key, None) is None:
            return []
        return self._share(now)

    def set_max_in_flight(self, count: int, now: float) -> list[tuple[Key, int]]:
        """Another limit."""
        self._max = count
        return self._share(now)

    def backoff_changed(self, state: BackoffState, now: float) -> list[tuple[Key, int]]:
        """The consumer may have everything, nothing, or one message."""
        self._state = state
        return self._share(now)

    def received(self, key: Key, now: float) -> None:
        """Messages came by a connection, which changes nothing at once."""
        member = self._members.get(key)
        if member is not None:
            member.heard_at = now

    def redistribute(self, now: float) -> list[tuple[Key, int]]:
        """With fewer slots than connections: take some from those who do not use them, or have had them for long."""
        if self.limit >= len(self._members):
            return []
        for member in self._members.values():
            idle = now - max(member.heard_at, member.ready_since) >= self._idle
            if member.ready and (idle or now - member.ready_since >= self._longest):
                member.served_at = now
        return self._share(now)

    def _share(self, now: float) -> list[tuple[Key, int]]:
        """Everybody's share, as what is to be sent."""
        shares = self._shares()
        changes: list[tuple[Key, int]] = []
        for raising in (False, True):
            for key, member in self._members.items():
                share = shares.get(key, 0)
                if share == member.ready or (share > member.ready) is not raising:
                    continue
                if not share:
                    member.served_at = now
                elif not member.ready:
                    member.ready_since = now
                member.ready = share
                changes.append((key, share))
        return changes

    def _shares(self) -> dict[Key, int]:
        limit = self.limit
        members = self._members
        if not members or limit == 0:
            return {}
        if limit < len(members):
            return dict.fromkeys(self._chosen(limit), 1)
        shares: dict[Key, int] = {}
        left = limit
        for key in sorted(
            members, key=lambda key: members[key].most
        ):  # who takes less leaves more for the others
            shares[key] = min(left // (len(members) - len(shares)), members[key].most)
            left -= shares[key]
        return shares

    def _chosen(self, count: int) -> list[Key]:
        """Who gets one of a few slots: who has one and may keep it, then those who were served longest ago."""
        members = self._members

        def order(key: Key) -> tuple[bool, float, float]:
            member = members[key]
            keeps = member.ready > 0 and member.served_at < member.ready_since
            return not keeps, member.served_at, self._random.random()

        return sorted(members, key=order)[:count]
