"""The figures of a whole nsqd."""

from types import SimpleNamespace
from typing import Any

import pytest

from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.daemon_metrics import daemon_families
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.traffic import Traffic
from nsqkit.nsqd.web.daemon import LongestPass
from nsqkit.web.exposition import text
from tests.scrapes import Samples, read


class SteadyDisk(Disk):
    """One whose clock is set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 100.0

    def clock(self) -> float:
        """What it was set to."""
        return self.time


@pytest.fixture
def nsqd(tmp_path) -> Any:
    """A daemon in name, on a real disk."""
    storage = FileStorage(SteadyDisk(), str(tmp_path), lambda topic: f"{tmp_path}/{topic}", print, 1 << 20, 7)
    return SimpleNamespace(
        broker=Broker(Settings(), storage),
        storage=storage,
        data_path=str(tmp_path),
        traffic=Traffic(),
        access=SimpleNamespace(denied={401: 1, 403: 2}),
        log=SimpleNamespace(dropped_count=0),
        longest_pass=lambda: LongestPass(2_500, 40),
    )


def scrape(nsqd) -> Samples:
    """All of them."""
    return read(text(daemon_families(nsqd)).decode())


def test_a_new_one(nsqd):
    """Every family is there, and nothing is wrong."""
    found = scrape(nsqd)

    assert {(): 1} == found["nsqd_healthy"]
    assert {("401",): 1, ("403",): 2} == found["nsqd_http_denied_total"]
    assert {(): 0} == found["nsqd_draining"]
    assert {(): 0} == found["nsqd_failing"] == found["nsqd_topics"] == found["nsqd_clients"]
    assert {(): 0.0025} == found["nsqd_longest_pass_seconds"]
    assert {(): 0.00004} == found["nsqd_longest_turn_seconds"]
    assert {("E_AUTH_FAILED",): 0, ("E_PUB_FAILED",): 0, ("E_UNAUTHORIZED",): 0} == found[
        "nsqd_client_errors_total"
    ]
    assert {("http_max_connections",): 0} == found["nsqd_connections_refused_total"]
    assert {(): 0} == found["nsqd_checkpoint_age_seconds"] == found["nsqd_journal_bytes"]
    assert "nsqd_lookupd_connected" not in found


def test_what_went_wrong_is_counted(nsqd):
    """Each at its place."""
    nsqd.broker.health.set("writing t", "disk full")
    nsqd.broker.health.set("writing u", "disk full")
    nsqd.broker.draining = True
    nsqd.log.dropped_count = 3
    traffic = nsqd.traffic
    traffic.door = SimpleNamespace(refused={"max_connections": 4, "max_handshakes": 2})
    traffic.dropped, traffic.handshake_failures = 5, 6
    traffic.count_error("E_FIN_FAILED")
    shared = nsqd.storage.shared
    shared.damage("damaged")
    shared.torn_count, shared.sync_failures = 7, 8

    found = scrape(nsqd)

    assert ({(): 0}, {(): 2}) == (found["nsqd_healthy"], found["nsqd_failing"])
    assert {(): 1} == found["nsqd_draining"]
    assert {(): 3} == found["nsqd_log_lines_dropped_total"]
    expected = {("max_connections",): 4, ("max_handshakes",): 2, ("http_max_connections",): 0}
    assert expected == found["nsqd_connections_refused_total"]
    assert {(): 5} == found["nsqd_clients_dropped_total"]
    assert {(): 6} == found["nsqd_tls_handshake_failures_total"]
    assert 1 == found["nsqd_client_errors_total"]["E_FIN_FAILED",]
    assert {(): 1} == found["nsqd_log_damage_total"]
    assert {(): 7} == found["nsqd_log_torn_total"]
    assert {(): 8} == found["nsqd_sync_failures_total"]


def test_http_servers_and_nsqlookupds(nsqd):
    """Servers are counted together, nsqlookupds are told apart."""
    nsqd.traffic.servers = [
        SimpleNamespace(connection_count=1, request_count=10, refused_count=0),
        SimpleNamespace(connection_count=2, request_count=20, refused_count=3),
    ]
    nsqd.traffic.nsqlookupds = lambda: {"b:4160": False, "a:4160": True}

    found = scrape(nsqd)

    assert {(): 3} == found["nsqd_http_connections"]
    assert {(): 30} == found["nsqd_http_requests_total"]
    assert 3 == found["nsqd_connections_refused_total"]["http_max_connections",]
    assert {("a:4160",): 1, ("b:4160",): 0} == found["nsqd_lookupd_connected"]


def test_disk_and_logs(nsqd):
    """Space, syncs of both kinds of files, the journal and checkpoints."""
    shared, journal = nsqd.storage.shared, nsqd.storage.journal
    shared.sync_durations.add(0.002)
    shared.sync_durations.add(0.5)
    journal.sync_durations.add(100.0)
    journal.size_bytes = 11
    shared.checkpoint_count, shared.checkpointed_at = 12, 90.0
    nsqd.broker.topic("t").channel("c", 0)

    found = scrape(nsqd)

    assert {(): 7} == found["nsqd_disk_reserve_bytes"]
    assert 0 < found["nsqd_disk_free_bytes"][()] <= found["nsqd_disk_bytes"][()]
    buckets = found["nsqd_sync_seconds_bucket"]
    assert [0, 1, 2, 2] == [buckets[bound, "log"] for bound in ("0.001", "0.0025", "0.5", "+Inf")]
    assert [0, 1] == [buckets[bound, "journal"] for bound in ("10", "+Inf")]
    assert {("log",): 0.502, ("journal",): 100} == found["nsqd_sync_seconds_sum"]
    assert {(): 11} == found["nsqd_journal_bytes"]
    assert {(): 12} == found["nsqd_checkpoints_total"]
    assert {(): 10} == found["nsqd_checkpoint_age_seconds"]
    assert {(): 1} == found["nsqd_checkpoints_due"]


def test_a_disk_that_does_not_answer(nsqd):
    """Its space is missing, and everything else is there."""
    nsqd.data_path = "/no/such/place"

    found = scrape(nsqd)

    assert not [name for name in found if name.startswith("nsqd_disk")]
    assert "nsqd_sync_seconds_count" in found
