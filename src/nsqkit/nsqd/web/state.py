"""What the HTTP API itself remembers between requests."""

from nsqkit.nsqd.memory import GcPauses
from nsqkit.nsqd.web.profiler import Profiler


class HttpState:
    """One per server."""

    def __init__(self) -> None:
        self.lookupd_addresses: list[str] = []  # set through /config; nothing looks at them in this version
        self.profiler = Profiler()
        self.gc_pauses = GcPauses()

    def start(self) -> None:
        """Begin to measure."""
        self.gc_pauses.start()

    def stop(self) -> None:
        """Measure no more."""
        self.gc_pauses.stop()
        self.profiler.stop()
