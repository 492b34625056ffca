"""The HTTP API without a server: requests go straight into the ASGI application, over a broker in memory."""

import pytest

from nsqkit.log import Level, Log
from nsqkit.nsqd.core.batch import FAILED, Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.http import http_app
from nsqkit.nsqd.memory import GcPauses
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.traffic import Traffic
from nsqkit.nsqd.web.daemon import LongestPass
from nsqkit.web.access import Access
from nsqkit.web.long_answer import Slices
from nsqkit.web.profiler import Profiler
from nsqkit.wire.errors import PublishFailed

NOW = 1_700_000_000 * SECOND


class StandIn:
    """A daemon in name: a broker, a clock that stands still, a log in a list."""

    def __init__(self, options: NsqdOptions, data_path: str) -> None:
        self.options = options
        self.data_path = data_path
        self.lines: list[str] = []
        self.log = Log("", Level.DEBUG, write=self.lines.append)
        self.access = Access(options.http_token_file, self.log)
        self.broker = Broker(Settings(), None)
        self.started_at = NOW - 65 * SECOND
        self.tcp_port = 4150
        self.http_port = 4151
        self.profiler = Profiler()
        self.longest = LongestPass(0, 0)
        self.slices = Slices()
        self.gc_pauses = GcPauses()
        self.storage = FileStorage(
            Disk(), data_path, lambda topic: f"{data_path}/{topic}", self.lines.append, 1 << 20, 0
        )
        self.traffic = Traffic()

    def now(self) -> int:
        """Always the same."""
        return NOW

    def turn(self) -> None:
        """A turn of the broker."""
        self.broker.changes.finish(self.broker.changes.count, "")  # a daemon saves it
        self.broker.work(NOW)
        self.broker.flush()

    async def keep(self) -> None:
        """Saved at once."""
        self.broker.changes.finish(self.broker.changes.count, "")
        self.turn()

    async def publish_framed(self, topic: str, data: bytes, count: int, due: int) -> None:
        """Publish at once."""
        batch = self.broker.topic(topic).publish(data, count, due, None, NOW)
        self.turn()
        if batch.state == FAILED:
            raise PublishFailed("PUB", batch.cause)

    def schedule(self) -> None:
        """Turns are taken at once."""

    def longest_pass(self) -> LongestPass:
        """What the test says."""
        return self.longest

    def forget_longest_pass(self) -> None:
        """Begin anew."""
        self.longest = LongestPass(0, 0)

    async def wait_for_channels(self) -> None:
        """No topic waits for anything."""

    def look(self) -> None:
        """There is no disk."""

    def drain(self) -> None:
        """Take nothing in any more."""
        self.broker.draining = True

    def configure(self, options: NsqdOptions) -> None:
        """Nothing but the log goes by them."""
        self.options = options
        self.log.level = options.log_level


@pytest.fixture
def http(http_client, tmp_path):
    """A client of the HTTP API, with small limits."""
    options = NsqdOptions(max_msg_size=100, max_body_size=300, broadcast_address="here")
    nsqd = StandIn(options, str(tmp_path))
    client = http_client(http_app(nsqd))
    client.nsqd = nsqd
    return client


@pytest.fixture
def nsqd(http):
    """What the client talks to."""
    return http.nsqd


@pytest.fixture
def waiting(nsqd):
    """Tells what waits in a topic."""

    def look(topic: str) -> list[bytes]:
        found: list[bytes] = []
        for batch in nsqd.broker.topics[topic].waiting.in_memory():
            assert isinstance(batch, Batch)
            found += [batch.message(i, batch.offset_of(i)).body for i in range(batch.count)]
        return found

    return look
