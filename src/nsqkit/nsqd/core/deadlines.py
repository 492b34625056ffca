"""Time: one heap of alarms for the whole broker, exact, and nothing to tune.

An alarm's owner is asked again when it rings, so an owner with thousands of deadlines keeps one entry here: the
earliest. Setting an alarm that already rings earlier costs one comparison, and idle owners cost nothing.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from mypy_extensions import i64

MANY: Final = 64  # stale entries that are left alone


class Alarm:
    """Something that wants to be called at a certain time."""

    def __init__(self) -> None:
        self.rings_at: i64 = 0  # 0: not set

    def ring(self, now: i64) -> i64:
        """Do what is due at `now`; return the next time to ring (later than `now`), 0 for none."""
        raise NotImplementedError


class Deadlines:
    """The alarms that are set, by time."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Alarm]] = []
        self._serial = 0  # ties ring in the order they were set
        self._stale = 0  # entries whose alarm rings at another time, or not at all

    def set(self, alarm: Alarm, when: i64) -> None:
        """Let it ring at `when`, unless it already rings earlier."""
        if alarm.rings_at != 0 and alarm.rings_at <= when:
            return
        if alarm.rings_at != 0:
            self._stale += 1
        alarm.rings_at = when
        self._serial += 1
        heappush(self._heap, (int(when), self._serial, alarm))

    def cancel(self, alarm: Alarm) -> None:
        """Let it ring no more. Its entry must not keep a consumer that is gone in memory until it would be due."""
        if alarm.rings_at == 0:
            return
        alarm.rings_at = 0
        self._stale += 1
        if self._stale > MANY and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].rings_at == i64(entry[0])]
            heapify(self._heap)
            self._stale = 0

    def next(self) -> i64:
        """The time of the next alarm, 0 if none is set."""
        heap = self._heap
        while heap:
            when, _, alarm = heap[0]
            if alarm.rings_at == i64(when):
                return i64(when)
            self._stale -= 1
            heappop(heap)  # it was set to ring earlier meanwhile, or was cleared
        return 0

    def run(self, now: i64) -> None:
        """Ring everything that is due."""
        while self._heap and self._heap[0][0] <= now:
            when, _, alarm = heappop(self._heap)
            if alarm.rings_at != i64(when):
                self._stale -= 1
                continue
            alarm.rings_at = 0
            again = alarm.ring(now)
            if again != 0:
                self.set(alarm, again)
