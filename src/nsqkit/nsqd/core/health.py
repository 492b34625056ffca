"""What is wrong with this nsqd, by cause. Whoever finds that something fails sets its reason, and clears it again.

A cause names what fails ("writing orders", "the journal", "free space"), so that a success elsewhere hides nothing.
While there is a reason the daemon looks again each second: nobody has to publish to an nsqd for it to be well again.
"""

from typing import Final

MOST: Final = 100  # causes kept; more of them would tell nobody more

# Beginnings of the causes that belong to one topic; its name follows.
WRITING: Final = "writing "
READING: Final = "reading "


class Health:
    """The reasons, oldest first."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def set(self, cause: str, reason: str) -> None:
        """Something fails. The same cause keeps its place with a new reason."""
        if cause in self.reasons or len(self.reasons) < MOST:
            self.reasons[cause] = reason

    def clear(self, cause: str) -> None:
        """It works. Does nothing if it always did."""
        if self.reasons:
            self.reasons.pop(cause, None)

    def text(self) -> str:
        """The oldest reason, and how many more there are; "" if all is well."""
        if not self.reasons:
            return ""
        first = next(iter(self.reasons.values()))
        more = len(set(self.reasons.values())) - 1
        return f"{first} (and {more} more)" if more else first

    def topics(self, beginning: str) -> list[str]:
        """The topics that have causes with this beginning."""
        return [cause[len(beginning) :] for cause in self.reasons if cause.startswith(beginning)]
