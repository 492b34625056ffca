"""An nsqd in a thread of its own, so that who blocks can use it, and what it has counted."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from nsqkit import Log, Nsqd, NsqdOptions


class Broker:
    """An nsqd that runs. `address` is that of its TCP port, `http_address` of the other."""

    def __init__(self, path: Path) -> None:
        self._options = NsqdOptions(data_path=path, tcp_address="127.0.0.1:0", http_address="127.0.0.1:0")
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._up.wait(20)

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with Nsqd(self._options, Log("", write=lambda _: None)) as nsqd:
            self.address = f"127.0.0.1:{nsqd.tcp_port}"
            self.http_address = f"127.0.0.1:{nsqd.http_port}"
            self._up.set()
            await self._end.wait()
        await asyncio.sleep(0)  # transports are closed in the next pass

    def stop(self) -> None:
        """It ends, and its connections with it."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def topic(self, topic: str) -> dict[str, Any]:
        """What /stats says of a topic; nothing if there is none."""
        with urllib.request.urlopen(
            f"http://{self.http_address}/stats?format=json&topic={quote(topic)}"
        ) as answer:
            topics: list[dict[str, Any]] = json.load(answer)["topics"]
        return topics[0] if topics else {}

    def channel(self, topic: str, channel: str) -> dict[str, Any]:
        """What /stats says of a channel; nothing if there is none."""
        channels: list[dict[str, Any]] = self.topic(topic).get("channels", [])
        return next((one for one in channels if one["channel_name"] == channel), {})


@pytest.fixture
def nsqd(tmp_path: Path) -> Iterator[Broker]:
    """One that ends with the test."""
    broker = Broker(tmp_path)
    yield broker
    broker.stop()
