"""Time: one heap of alarms for the whole broker, exact, and nothing to tune.

An alarm's owner is asked again when it rings, so an owner with thousands of deadlines keeps one entry here: the
earliest. Setting an alarm that already rings earlier costs one comparison, and idle owners cost nothing.

However much is due at one moment, a turn does SLICE of it: an alarm takes what it does from `left`, and one that
could not do everything asks to ring again at once, which is in the next turn.
"""

from heapq import heappop, heappush
from typing import Final

from mypy_extensions import i64

SLICE: Final = 1000  # alarms, and messages that they move, in one turn


class Alarm:
    """Something that wants to be called at a certain time."""

    def __init__(self) -> None:
        self.rings_at: i64 = 0  # 0: not set
        self.serial = 0  # names its entry in the heap

    def ring(self, now: i64) -> i64:
        """Do what is due at `now`, as far as `left` goes; return the next time to ring, 0 for none."""
        raise NotImplementedError


class Deadlines:
    """The alarms that are set, by time. An entry outlives its alarm, so it names the alarm and does not hold it."""

    def __init__(self) -> None:
        self.left: i64 = SLICE  # what may still be done in this turn
        self.now: i64 = 1  # the time of the last run: an alarm set to it rings in the next one
        self.overdue = False  # the last run left something
        self._heap: list[tuple[int, int]] = []  # time and serial
        self._alarms: dict[int, Alarm] = {}  # by serial
        self._serial = 0  # ties ring in the order they were set

    def set(self, alarm: Alarm, when: i64) -> None:
        """Let it ring at `when`, unless it already rings earlier."""
        if alarm.rings_at != 0:
            if alarm.rings_at <= when:
                return
            del self._alarms[alarm.serial]
        self._serial += 1
        alarm.rings_at = when
        alarm.serial = self._serial
        self._alarms[self._serial] = alarm
        heappush(self._heap, (int(when), self._serial))

    def cancel(self, alarm: Alarm) -> None:
        """Do not let it ring."""
        if alarm.rings_at != 0:
            alarm.rings_at = 0
            del self._alarms[alarm.serial]

    def next(self) -> i64:
        """The time of the next alarm, 0 if none is set; too early only when very many were cancelled."""
        heap = self._heap
        cancelled: i64 = 0
        while heap:
            when, serial = heap[0]
            if serial in self._alarms or cancelled == SLICE:
                return i64(when)
            heappop(heap)
            cancelled += 1
        return 0

    def run(self, now: i64) -> None:
        """Ring what is due, as far as one turn goes."""
        heap = self._heap
        self.left = SLICE
        self.now = now
        while heap and heap[0][0] <= now and self.left > 0:
            _, serial = heappop(heap)
            self.left -= 1
            alarm = self._alarms.pop(serial, None)
            if alarm is None:
                continue
            alarm.rings_at = 0
            again = alarm.ring(now)
            if again != 0:
                self.set(alarm, max(again, now))
        self.overdue = bool(heap) and heap[0][0] <= now
