"""The real daemon without its sockets: it loads, turns, keeps house and stops as always, on the simulated disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsqkit.json_line import Field
from nsqkit.log import Level, Log
from nsqkit.nsqd.connection import Connection
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.durability import Durability
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.turns import Turns
from nsqkit.options.duration import Duration
from tests.simulation.disk import ROOT


class Lines(Log):
    """Log lines, for the trace."""

    def __init__(self) -> None:
        super().__init__("", Level.INFO)
        self.lines: list[str] = []

    def line(self, level: Level, text: str, **_: Field) -> None:
        """Keep what is worth it."""
        if level > Level.INFO or text.startswith("JOURNAL"):
            self.lines.append(f"{level.name}: {text}")

    def _complain(self, level: Level, text: str, kind: str, fields: Mapping[str, Field]) -> None:  # noqa: ARG002
        self.line(level, text)  # nothing is limited here


class Process(Nsqd):
    """One nsqd, from its start to its end."""

    @property
    def turns(self) -> Turns:
        """For connections."""
        return self._turns

    @property
    def connections(self) -> set[Connection]:
        """The open ones."""
        return self._connections

    def carried(self) -> int:
        """How often leftovers were carried forward, since this was asked last."""
        count, self._keeper.carried_count = self._keeper.carried_count, 0
        return count

    def opening(self) -> set[str]:
        """Topics whose logs are not open yet: what is published to them waits."""
        return {name for name, topic in self.broker.topics.items() if not topic.opened}

    def there(self) -> dict[str, dict[str, bool]]:
        """Its topics and channels, and whether these are paused."""
        return {
            topic.name: {channel.name: channel.paused for channel in topic.channels.values()}
            for topic in self.broker.topics.values()
        }

    def check(self) -> None:
        """Assert the invariants of channels and memory, and that no position is in two places."""
        self.broker.check()


def options_of(config: dict[str, Any]) -> NsqdOptions:
    """The daemon's options, from a world's configuration."""
    return NsqdOptions(
        node_id=1,
        data_path=ROOT,
        tcp_address="simulated:1",
        http_address="",
        durability=Durability(config["durability"]),
        mem_queue_size=config["mem_queue_size"],
        max_bytes_per_file=config["max_bytes_per_file"],
        sync_every=config["sync_every"],
        sync_timeout=Duration(config["sync_timeout"]),
        checkpoint_interval=Duration(config["checkpoint_interval"]),
        min_free_space=config["min_free_space"],
        msg_timeout=Duration(config["msg_timeout"]),
        max_msg_timeout=Duration(config["max_msg_timeout"]),
        max_msg_size=4096,
        max_body_size=16384,
        requeue_on_disconnect=bool(config["requeue_on_disconnect"]),
        log_level=Level.WARNING,
    )
