"""The calendar beside the broker's time, which is steady: how far it is ahead, now and when a message was published.

A batch says by the calendar when it is due, for that outlasts the process. Somebody may set the calendar meanwhile, and
a delay that was asked for since the start must not change by it. Ids only grow, so they tell what came before a step.
"""

from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.guid import IdSource

MOST_STEPS: Final = 100  # that are kept; what is older than them counts as published just before the first


class Calendar:
    """`ahead` is ns; negative: the calendar was set back since the start."""

    def __init__(self, ids: IdSource) -> None:
        self.ahead: i64 = 0
        self._ids = ids
        self._steps: list[tuple[int, int]] = []  # the first id after each, and how far it was ahead before

    def set(self, ahead: i64) -> None:
        """Somebody set it."""
        self._steps.append((int(self._ids.next_id()), int(self.ahead)))
        del self._steps[:-MOST_STEPS]
        self.ahead = ahead

    def is_old(self, first_id: i64) -> bool:
        """Was it published before the start? Then its delay goes by the calendar."""
        return self._ids.first_id == 0 or first_id < self._ids.first_id

    def due(self, batch: Batch) -> i64:
        """When a batch is due, by the broker's time; 0: at once."""
        if batch.due == 0:
            return 0
        ahead = self.ahead
        if self._steps and not self.is_old(batch.first_id):
            for first_id, before in reversed(self._steps):
                if batch.first_id >= first_id:
                    break
                ahead = before
        return batch.due - ahead
