"""How the client finds nsqds: through real nsqlookupds, this project's and NSQ's own, and when it asks a false one."""

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsqkit import Consumer, Producer
from tests.scenarios.client_servers import CHANNEL, TOPIC
from tests.scenarios.cluster_nodes import HOST, Lookupd, Nsqd, free_port, running
from tests.scenarios.conftest import ORIGINAL, WAIT_S


class OriginalLookupd(Lookupd):
    """NSQ's own."""

    def arguments(self) -> list[str]:
        """The command line: the flags are the same."""
        return [f"{ORIGINAL}/nsqlookupd", *super().arguments()[3:]]


class OriginalNsqd(Nsqd):
    """NSQ's own."""

    def __init__(self, directory: Path, lookupd_ports: list[int]) -> None:
        super().__init__(directory, lookupd_ports)
        self.program = [f"{ORIGINAL}/nsqd"]


@pytest.mark.parametrize("lookupd_kind", [Lookupd, OriginalLookupd])
@pytest.mark.parametrize("nsqd_kind", [Nsqd, OriginalNsqd])
def test_nsqds_are_found(tmp_path, lookupd_kind, nsqd_kind):
    """Two nsqlookupds that know one nsqd each, and one that is down: the consumer and the producer find both nsqds."""
    if not ORIGINAL and {lookupd_kind, nsqd_kind} != {Lookupd, Nsqd}:
        pytest.skip("NSQ_GO_BIN does not say where the programs of NSQ's own are")
    lookupds = [lookupd_kind(tmp_path / f"nsqlookupd-{number}") for number in range(2)]
    nsqds = [nsqd_kind(tmp_path / f"nsqd-{number}", [lookupds[number].tcp_port]) for number in range(2)]
    addresses = [f"{HOST}:{port}" for port in (*(lookupd.http_port for lookupd in lookupds), free_port())]

    async def run():
        options: dict[str, Any] = {"lookupd_poll_interval": "100ms"}
        async with (
            Producer(lookupd=addresses, **options) as producer,
            Consumer(TOPIC, CHANNEL, lookupd=addresses, max_in_flight=10, **options) as consumer,
        ):
            seen: set[str] = set()
            async with asyncio.timeout(WAIT_S):
                while seen != {f"{HOST}:{nsqd.tcp_port}" for nsqd in nsqds}:
                    await producer.publish(TOPIC, b"one")
                    message = await consumer.get()
                    assert message is not None
                    seen.add(message.nsqd)
                    await message.finish()

    with running(lookupds), running(nsqds):  # one after the other: NSQ's nsqd asks again after 15 s only
        asyncio.run(run())


class FakeLookupd(http.server.ThreadingHTTPServer):
    """Answers that nobody has the topic; says when it was asked, and with which Authorization. It may be silent."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.tokens: list[str | None] = []
        self.silent = False
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), LookupdAnswer)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop."""
        self.over.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class LookupdAnswer(http.server.BaseHTTPRequestHandler):
    """One question."""

    server: FakeLookupd

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        self.server.asked.append(time.monotonic())
        self.server.tokens.append(self.headers["Authorization"])
        if self.server.silent:
            self.server.over.wait(WAIT_S)
        body = json.dumps({"message": "TOPIC_NOT_FOUND"}).encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def lookupd() -> Iterator[FakeLookupd]:
    """A running one."""
    one = FakeLookupd()
    yield one
    one.close()


async def asked(lookupd: FakeLookupd, count: int, **options: Any) -> list[float]:
    """When it was asked, so many times."""
    async with Consumer(TOPIC, CHANNEL, lookupd=lookupd.address, **options):
        async with asyncio.timeout(WAIT_S):
            while len(lookupd.asked) < count:  # noqa: ASYNC110 - it is asked in a thread
                await asyncio.sleep(0.01)
    return lookupd.asked[:count]


def test_lookupd_poll_interval(lookupd):
    """It is asked at once, after up to jitter x interval more than the interval, and then at each interval."""
    options = {"lookupd_poll_interval": "300ms", "lookupd_poll_jitter": 0}

    first, *others = asyncio.run(asked(lookupd, 4, **options))

    assert [pytest.approx(0.3 * number, abs=0.25) for number in (1, 2, 3)] == [at - first for at in others]


def test_lookupd_poll_timeout(lookupd, caplog):
    """One that does not answer is given up, and asked again."""
    lookupd.silent = True

    asyncio.run(asked(lookupd, 3, lookupd_poll_interval="100ms", lookupd_poll_timeout="200ms"))

    assert lookupd.address in caplog.text


@pytest.mark.parametrize(("given", "token"), [(True, "Bearer open sesame"), (False, None)])
def test_skip_lookupd_authorization(lookupd, given, token):
    """The secret is shown to nsqlookupds, or not; the name says the contrary, as in go-nsq."""
    asyncio.run(asked(lookupd, 1, auth_secret="open sesame", skip_lookupd_authorization=given))

    assert [token] == lookupd.tokens[:1]
