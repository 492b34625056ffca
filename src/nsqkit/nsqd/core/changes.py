"""What changed in the metadata, and who waits until that is saved.

Topics and channels come and go, and are paused. Each such change has a number. The daemon saves them in a thread, many
at a time, and says up to which number; a reply that promises a change waits for that, and nobody else does.
"""

from __future__ import annotations

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import FAILED, KEPT, Batch, Publisher


class Changes:
    """The changes of one broker."""

    def __init__(self) -> None:
        self.count: i64 = 0
        self.saved: i64 = 0  # the first so many of them
        self._altered: dict[tuple[str, str], None] = {}  # what `take` has to tell
        self._waiting: list[tuple[i64, Batch]] = []

    def note(self, topic: str, channel: str) -> i64:
        """Number a change of a channel, or of the topic itself if `channel` is empty."""
        self.count += 1
        self._altered[topic, channel] = None
        return self.count

    def pending(self) -> bool:
        """Is there something to save?"""
        return self.saved != self.count

    def take(self) -> list[tuple[str, str]]:
        """The topics and channels that changed since the last call, a topic before its new channels."""
        altered = list(self._altered)
        self._altered = {}
        return altered

    def settle_when_saved(self, batch: Batch, change: i64) -> None:
        """Tell the publisher of a batch that it is kept, as soon as this change is saved."""
        if change > self.saved:
            self._waiting.append((change, batch))
        else:
            batch.settle(KEPT, "")

    def finish(self, upto: i64, error: str) -> None:
        """The changes up to this number are saved, or could not be; then whoever waits for them hears of it."""
        if not error:
            self.saved = upto
        waiting = self._waiting
        self._waiting = []
        for change, batch in waiting:
            if change > upto:
                self._waiting.append((change, batch))
            else:
                batch.settle(FAILED if error else KEPT, error)


def promise(publisher: Publisher) -> Batch:
    """What somebody waits for who publishes nothing."""
    return Batch(b"", 0, 0, 0, publisher)
