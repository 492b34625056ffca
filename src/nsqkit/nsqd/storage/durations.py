"""How long something took each time, counted so that a metric can show it. Kept in the event loop, or in one thread."""

from typing import Final

BOUNDS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)  # seconds


class Durations:
    """A histogram: `counts[i]` took at most `BOUNDS[i]` and more than the bound before; the last one took longer."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.count = 0
        self.seconds = 0.0  # all of them together

    def add(self, seconds: float) -> None:
        """It took so long."""
        index = 0
        while index < len(BOUNDS) and seconds > BOUNDS[index]:
            index += 1
        self.counts[index] += 1
        self.count += 1
        self.seconds += seconds
