"""What the HTTP machinery needs of the daemon that it serves."""

from typing import Protocol

from nsqkit.log import Log
from nsqkit.options.daemon import DaemonOptions
from nsqkit.web.access import Access
from nsqkit.web.long_answer import Slices
from nsqkit.web.profiler import Profiler


class Host(Protocol):
    """A daemon."""

    @property
    def log(self) -> Log:
        """Where requests and failures are noted."""

    @property
    def options(self) -> DaemonOptions:
        """Limits are options."""

    @property
    def access(self) -> Access:
        """Who may ask for what."""

    @property
    def profiler(self) -> Profiler:
        """What takes CPU profiles."""

    @property
    def slices(self) -> Slices:
        """What shares out the event loop among long pieces of work."""
