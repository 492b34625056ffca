"""nsqds and nsqlookupds together: killed at random under load, and with partners that misbehave.

NSQKIT_CLUSTER_SECONDS is how long daemons are killed (20), NSQKIT_CLUSTER_SEED makes the same choices again.
"""

import asyncio
import json
import os
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scenarios.cluster_clients import (
    CHANNEL,
    Consumer,
    Record,
    make_topics,
    publish,
    publish_over_http,
)
from tests.scenarios.cluster_fakes import Fake, FakeLookupd, garbage, silence, until
from tests.scenarios.cluster_nodes import (
    HOST,
    Faults,
    Lookupd,
    Node,
    Nsqd,
    free_port,
    picture_is_right,
    request,
    running,
)
from tests.scenarios.conftest import command

SECONDS = float(os.environ.get("NSQKIT_CLUSTER_SECONDS", "20"))
SEED = int(os.environ.get("NSQKIT_CLUSTER_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

PING_INTERVAL_S = 15.0
GIVE_UP_S = 60.0  # for the picture to be right, and for everything to have come
PUBLISHERS = 3
DEFECT = re.compile(
    r"(?:.*\n){0,5}.*(?:a defect of ours|Traceback|FATAL)(?:.*\n){0,40}"
)  # in a log, with what is around it


@pytest.mark.slow
@pytest.mark.timeout(90 + 2 * GIVE_UP_S + SECONDS)
def test_nothing_is_lost_while_daemons_die(tmp_path: Path):
    """Whatever is killed: what was answered OK is delivered, and the nsqlookupds soon know again what there is."""
    print(f"NSQKIT_CLUSTER_SEED={SEED}")
    lookupds = [Lookupd(tmp_path / f"nsqlookupd-{number}") for number in range(2)]
    ports = [lookupd.tcp_port for lookupd in lookupds]
    nsqds = [
        Nsqd(tmp_path / f"nsqd-{number}", ports, f"--node-id={number}", "--msg-timeout=3s")
        for number in range(5)
    ]
    record = Record()

    with running([*lookupds, *nsqds]):
        wrong, took_s = asyncio.run(play(nsqds, lookupds, record))
        died = [node for node in [*nsqds, *lookupds] if node.has_died()]

    missing = record.missing()
    assert record.owed
    examples = "\n".join(missing[:20])
    assert not missing, f"{len(missing)} of {len(record.owed)} OK'd messages did not come:\n{examples}"
    assert [] == record.surprises
    assert [] == died
    assert "" == wrong
    assert took_s <= PING_INTERVAL_S
    defects = {
        node.name: found[0][-3000:]
        for node in [*nsqds, *lookupds]
        if (found := DEFECT.findall(node.whole_log()))
    }
    assert {} == defects


async def play(nsqds: Sequence[Node], lookupds: Sequence[Node], record: Record) -> tuple[str, float]:
    """Load and faults; then what is wrong in the nsqlookupds, and how long it took until nothing was."""
    for nsqd in nsqds:
        for topic in record.topics:
            await request(nsqd, "POST", f"/topic/create?topic={topic}")
            await request(nsqd, "POST", f"/channel/create?topic={topic}&channel={CHANNEL}")
    faults = Faults(nsqds, lookupds, random.Random(f"{SEED} faults"))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        consuming = group.create_task(Consumer(lookupds, record, random.Random(f"{SEED} consumer")).run())
        group.create_task(make_topics(lookupds, record, stop))
        for number in range(PUBLISHERS):
            chance = random.Random(f"{SEED} publisher {number}")
            group.create_task(publish(nsqds, record, chance, stop))
        group.create_task(publish_over_http(nsqds, record, random.Random(f"{SEED} HTTP"), stop))
        await faults.strike(SECONDS)
        stop.set()
        repaired_at = faults.last_repair_at
        wrong = await picture_is_right(nsqds, lookupds, repaired_at + GIVE_UP_S)
        took_s = time.monotonic() - repaired_at
        give_up_at = time.monotonic() + GIVE_UP_S
        await record.all_came(give_up_at)
        consuming.cancel()
    print(f"{sum(faults.counts.values())} faults: {dict(faults.counts)}; {len(record.topics)} topics")
    print(
        f"{len(record.sent)} sent, {len(record.owed)} OK'd, {len(record.seen)} came, {record.again} came again"
    )
    print(f"slowest answer {record.slowest_s:.1f} s; picture right {took_s:.1f} s after the last restart")
    print(wrong)
    return wrong, took_s


# -- partners that misbehave

STANDS = "knows every topic and channel"  # what nsqd logs when a connection to an nsqlookupd stands


def test_a_publish_waits_for_no_nsqlookupd(tmp_path):
    """Nsqlookupds that say nothing, that answer nonsense, or that are down: a new topic is usable at once."""
    with Fake(silence) as silent, Fake(garbage) as babbling:
        nsqd = Nsqd(tmp_path / "nsqd", [silent.port, babbling.port, free_port()])
        with running([nsqd]):
            until(lambda: silent.accepted and babbling.accepted, "both were called")

            nsqd.connect().publish("new", b"one")

            assert [b"one"] == [message.body for message in nsqd.consumer("new").messages(1)]
            nobody = "no available nsqlookupd to query for channels to pre-create for topic new"
            until(lambda: nobody in nsqd.log(), "that nobody answered is said")


def test_messages_wait_for_channels_and_publishers_do_not(tmp_path):
    """While an nsqlookupd takes its time to name channels, publishes are answered; then each channel gets them all."""
    answer = threading.Event()

    def think(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        answer.wait()
        body = b'{"channels":["audit"]}'
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with Fake(think) as http, FakeLookupd(http.port) as lookupd:
        nsqd = Nsqd(tmp_path / "nsqd", [lookupd.port], "--http-client-request-timeout=60s")
        with running([nsqd]):
            until(lambda: STANDS in nsqd.log(), "connected")
            consumer = nsqd.consumer("new", "mine")
            until(lambda: http.accepted, "asked for channels")

            nsqd.connect().publish("new", b"one")
            nsqd.connect().publish_many("new", [b"two", b"three"])

            assert consumer.silent(0.2)
            answer.set()
            expected = [b"one", b"two", b"three"]
            assert expected == [message.body for message in consumer.messages(3)]
            assert expected == [message.body for message in nsqd.consumer("new", "audit").messages(3)]


def test_channels_come_from_those_that_answer(tmp_path):
    """One nsqlookupd is silent, one answers nonsense, one is down: a new topic has the channels the fourth knows."""
    lookupd = Lookupd(tmp_path / "nsqlookupd")
    with (
        Fake(silence) as mute,
        Fake(garbage) as babbling,
        FakeLookupd(mute.port) as first,
        FakeLookupd(babbling.port) as second,
        FakeLookupd(free_port()) as third,
    ):
        ports = [first.port, second.port, lookupd.tcp_port, third.port]
        nsqd = Nsqd(tmp_path / "nsqd", ports, "--http-client-request-timeout=1s")
        with running([lookupd, nsqd]):
            lookupd.request("POST", "/channel/create?topic=new&channel=audit")
            until(lambda: nsqd.log().count(STANDS) == len(ports), "connected")

            nsqd.connect().publish("new", b"one")

            until(lambda: "failed to query nsqlookupd for channels" in nsqd.log(), "it gave up waiting")
            stats = json.loads(nsqd.request("GET", "/stats?format=json")[1])
            assert [("audit", 1)] == [(c["channel_name"], c["depth"]) for c in stats["topics"][0]["channels"]]
            assert [b"one"] == [message.body for message in nsqd.consumer("new", "audit").messages(1)]


def test_a_new_topic_is_held_for_one_request_timeout_at_most(tmp_path):
    """When nobody who knows the channels answers, what was published goes to the channels there are."""
    with Fake(silence) as http, FakeLookupd(http.port) as lookupd:
        nsqd = Nsqd(tmp_path / "nsqd", [lookupd.port], "--http-client-request-timeout=500ms")
        with running([nsqd]):
            until(lambda: STANDS in nsqd.log(), "connected")
            nsqd.connect().publish("new", b"one")
            consumer = nsqd.consumer("new")

            assert [b"one"] == [message.body for message in consumer.messages(1)]

            assert len(http.accepted) == 1
            until(lambda: nsqd.log().count("failed to query nsqlookupd for channels") == 1, "said")


# -- changes at run time


def test_an_nsqd_moves_to_another_nsqlookupd(tmp_path):
    """PUT /config/nsqlookupd_tcp_addresses: the old nsqlookupd has nothing of the nsqd any more, the new one all."""
    old, new = Lookupd(tmp_path / "old"), Lookupd(tmp_path / "new")
    nsqd = Nsqd(tmp_path / "nsqd", [old.tcp_port])

    def listed(lookupd: Lookupd) -> list[tuple[int, list[str]]]:
        nodes = json.loads(lookupd.request("GET", "/nodes")[1])["producers"]
        return [(node["tcp_port"], node["topics"]) for node in nodes]

    with running([old, new, nsqd]):
        nsqd.consumer("orders", "billing")
        until(lambda: listed(old) == [(nsqd.tcp_port, ["orders"])], "known to the old one")
        assert [] == listed(new)

        addresses = json.dumps([f"{HOST}:{new.tcp_port}"]).encode()
        status, _ = nsqd.request("PUT", "/config/nsqlookupd_tcp_addresses", addresses)

        assert 200 == status
        until(lambda: listed(new) == [(nsqd.tcp_port, ["orders"])], "known to the new one")
        until(lambda: listed(old) == [], "gone from the old one")
        assert {"channels": ["billing"]} == json.loads(new.request("GET", "/channels?topic=orders")[1])
        nsqd.connect().publish("later", b"one")
        until(lambda: listed(new) == [(nsqd.tcp_port, ["later", "orders"])], "the new topic is known")
        assert [] == listed(old)


def test_an_nsqd_that_was_killed_is_found_again(tmp_path):
    """After nsqd was killed it is gone from nsqlookupd at once; when it is back, it is found once, with all it has."""
    lookupd = Lookupd(tmp_path / "nsqlookupd")
    nsqd = Nsqd(tmp_path / "nsqd", [lookupd.tcp_port])

    def found() -> list[int]:
        status, body = lookupd.request("GET", "/lookup?topic=orders")
        return [one["tcp_port"] for one in json.loads(body)["producers"]] if status == 200 else []

    with running([lookupd, nsqd]):
        nsqd.connect().publish("orders", b"one")
        until(lambda: found() == [nsqd.tcp_port], "known")

        nsqd.kill()
        until(lambda: found() == [], "gone")
        nsqd.start()
        until(lambda: found() == [nsqd.tcp_port], "known again")

        assert b"one" == nsqd.consumer("orders", "billing").message().body


def test_an_outage_is_two_lines(tmp_path):
    """However often nsqd tries in vain to reach an nsqlookupd: one line says that it is lost, one that it is back."""
    lookupd = Lookupd(tmp_path / "nsqlookupd")
    nsqd = Nsqd(tmp_path / "nsqd", [lookupd.tcp_port])
    with running([lookupd, nsqd]):
        until(lambda: STANDS in nsqd.log(), "connected")

        lookupd.kill()
        with Fake(lambda _: None, lookupd.tcp_port) as hanging_up:
            until(lambda: len(hanging_up.accepted) >= 2, "two tries in vain")
        lookupd.start()
        until(lambda: nsqd.log().count(STANDS) == 2, "connected again")

        lines = re.findall(r"([A-Z]+): LOOKUPD\((\S+)\): (.*)", nsqd.log())
        # Who is there is said with each connection.
        levels = [level for level, _, text in lines if not text.startswith(("adding peer", "peer info"))]
        assert ["INFO", "ERROR", "INFO"] == levels[-3:], lines
        assert levels[:-3] in ([], ["ERROR"]), lines  # nsqd may have been there before nsqlookupd was
        assert {f"{HOST}:{lookupd.tcp_port}"} == {address for _, address, _ in lines}


# -- mixed pairs


def test_our_nsqd_with_the_originals_nsqlookupd(tmp_path):
    """Everything is announced in V1's words as it changes, and anew after an error, which ends the connection."""
    with FakeLookupd() as lookupd:
        nsqd = Nsqd(tmp_path / "nsqd", [lookupd.port])
        with running([nsqd]):
            nsqd.consumer("orders", "billing")
            nsqd.request("POST", "/topic/create?topic=empty")
            expected = {("orders", ""), ("orders", "billing"), ("empty", "")}
            until(lambda: lookupd.registered == expected, "everything is registered")
            assert ["  V1", "IDENTIFY"] == lookupd.heard[:2]
            identity = lookupd.identities[0]
            ports = (identity["broadcast_address"], identity["tcp_port"], identity["http_port"])
            assert (HOST, nsqd.tcp_port, nsqd.http_port) == ports
            assert {"hostname", "version"} <= identity.keys()

            nsqd.request("POST", "/topic/delete?topic=empty")
            nsqd.request("POST", "/channel/delete?topic=orders&channel=billing")
            until(lambda: lookupd.registered == {("orders", "")}, "the deleted is gone")
            assert {"UNREGISTER empty", "UNREGISTER orders billing"} <= set(lookupd.heard)

            lookupd.error = "E_BAD_TOPIC REGISTER topic name 'more' is not valid"
            nsqd.request("POST", "/topic/create?topic=more")
            until(lambda: lookupd.registered == {("orders", ""), ("more", "")}, "it came back and told all")
            assert 2 == len(lookupd.identities)
            until(lambda: "E_BAD_TOPIC REGISTER topic name" in nsqd.log(), "the error is said")


def test_the_originals_nsqd_with_our_nsqlookupd(tmp_path):
    """An nsqd that waits for each reply before its next command is listed with its topics, until it hangs up."""
    lookupd = Lookupd(tmp_path / "nsqlookupd")
    identity = (
        b'{"broadcast_address":"node","hostname":"node","http_port":4151,"tcp_port":4150,"version":"1.3.0"}'
    )

    def nodes() -> list[tuple[str, list[str]]]:
        listed = json.loads(lookupd.request("GET", "/nodes")[1])["producers"]
        return [(node["broadcast_address"], node["topics"]) for node in listed]

    with running([lookupd]), socket.create_connection((HOST, lookupd.tcp_port), 20) as nsqd:

        def ask(data: bytes) -> bytes:
            nsqd.sendall(data)
            (size,) = struct.unpack(">i", nsqd.recv(4, socket.MSG_WAITALL))
            return nsqd.recv(size, socket.MSG_WAITALL)

        introduction = json.loads(ask(b"  V1" + command("IDENTIFY", identity)))
        assert (HOST, lookupd.http_port) == (introduction["broadcast_address"], introduction["http_port"])
        for line in (b"REGISTER t c\n", b"REGISTER u\n", b"PING\n", b"UNREGISTER u\n", b"UNREGISTER u\n"):
            assert b"OK" == ask(line)
        assert [("node", ["t"])] == nodes()
        assert b"E_BAD_TOPIC REGISTER topic name '$' is not valid" == ask(b"REGISTER $ c\n")
        assert b"" == nsqd.recv(1)
        until(lambda: nodes() == [], "it is gone")
