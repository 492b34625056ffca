"""Asking several nodes over sockets: what comes together, what failed, and in which order."""

import asyncio

import pytest

import nsqkit.cluster.cluster
from nsqkit.cluster import Answers, Failure

PRODUCER = {
    "broadcast_address": "a",
    "tcp_port": 4150,
    "http_port": 4151,
    "hostname": "h",
    "version": "1.3.0",
}


# -- all and some


def test_names_of_topics_come_together(run, cluster, nodes):
    """Each nsqlookupd is asked for its topics; the answer has each name once."""
    one, other = (
        nodes.serving({"/topics": {"topics": ["b", "a"]}}),
        nodes.serving({"/topics": {"topics": ["c", "b"]}}),
    )

    answers = run(cluster.topics([one.address, other.address]))

    assert Answers(["a", "b", "c"], [one.address, other.address], []) == answers
    assert not answers.all_failed
    assert ["GET /topics"] == one.asked == other.asked


def test_a_failure_is_part_of_the_answer(run, cluster, nodes):
    """The answer has the names of those that answered, and says who did not and why, in the order of asking."""
    good, broken, dead = nodes.answering({"topics": ["a"]}), nodes.answering({"topics": 1}), nodes.refusing()

    answers = run(cluster.topics([dead, good.address, broken.address]))

    assert ["a"] == answers.value
    assert [good.address] == answers.answered
    assert [
        Failure(dead, "cannot connect: Connection refused"),
        Failure(broken.address, "not what NSQ answers: Expected `array | null`, got `int` - at `$.topics`"),
    ] == answers.failures
    assert f"{dead}: cannot connect: Connection refused" == str(answers.failures[0])
    assert not answers.all_failed


def test_a_status_is_told_apart(run, cluster, nodes):
    """A failure that is a status has its number."""
    node = nodes.answering({"message": "NO"}, "500 Internal Server Error")

    (failure,) = run(cluster.topics([node.address])).failures

    assert 500 == failure.status
    assert 'got response 500 Internal Server Error "{\\"message\\": \\"NO\\"}"' == failure.text


def test_all_may_fail(run, cluster, nodes):
    """If nobody answers there is an empty value, and it can be told from one that is empty."""
    answers = run(cluster.topics([nodes.refusing(), "nonsense"]))

    assert ([], []) == (answers.value, answers.answered)
    assert answers.all_failed
    assert "not an address: write host:port, or [host]:port for IPv6" == answers.failures[1].text


@pytest.mark.parametrize("ask", [
    lambda cluster: cluster.topics([]),
    lambda cluster: cluster.channels([], "t"),
    lambda cluster: cluster.lookup([], "t"),
    lambda cluster: cluster.nodes([]),
    lambda cluster: cluster.nsqd_nodes([]),
    lambda cluster: cluster.stats([]),
    lambda cluster: cluster.post([], "/topic/create", {"topic": "t"}),
])  # fmt: skip
def test_nobody_asked_is_nobody_failed(ask, run, cluster):
    """No nodes are no failure."""
    answers = run(ask(cluster))

    assert ([], []) == (answers.answered, answers.failures)
    assert not answers.all_failed


def test_a_node_named_twice_is_asked_once(run, cluster, nodes):
    """So that its figures are not counted twice."""
    node = nodes.answering({"topics": []})

    assert [node.address] == run(cluster.topics([node.address, node.address])).answered
    assert 1 == len(node.asked)


def test_a_cluster_closes_itself(run, make_cluster, nodes):
    """It can be used for the length of a block."""
    node = nodes.answering({"topics": ["a"]})

    async def use():
        async with make_cluster() as cluster:
            return (await cluster.topics([node.address])).value

    assert ["a"] == run(use())


# -- at once, in turn, in time


def meeting(nodes, barrier, seen):
    """A node that answers when as many others are being asked. `seen` gets how many are."""

    async def handler(reader, writer):
        seen.append(seen[-1] + 1)
        async with barrier:
            writer.write(nodes.reply({"topics": []}))
        seen.append(seen[-1] - 1)

    return nodes.handled_by(handler).address


def test_all_are_asked_at_once(run, cluster, nodes):
    """No node waits for another."""
    barrier = asyncio.Barrier(3)
    addresses = [meeting(nodes, barrier, [0]) for _ in range(3)]

    assert addresses == run(cluster.topics(addresses)).answered


def test_requests_at_once_are_limited(run, make_cluster, nodes, monkeypatch):
    """A node gets no more than MAX_REQUESTS at once; the others follow when the first are answered."""
    monkeypatch.setattr(nsqkit.cluster.cluster, "MAX_REQUESTS", 2)
    barrier, seen = asyncio.Barrier(2), [0]
    address = meeting(nodes, barrier, seen)
    cluster = make_cluster()

    async def ask():
        return await asyncio.gather(*[cluster.topics([address]) for _ in range(4)])

    assert [[address]] * 4 == [answers.answered for answers in run(ask())]
    assert 2 == max(seen)


def test_other_timeouts(run, make_cluster, nodes):
    """They are for calls to come."""
    cluster = make_cluster()
    cluster.set_timeouts(0.3, 0.2)
    silent = nodes.silent()

    answers = run(cluster.topics([silent.address]))

    assert [Failure(silent.address, "no answer within 0.2 s")] == answers.failures
    assert 0.3 == cluster._requester.connect_timeout


def test_waiting_for_a_turn_counts(run, make_cluster, nodes, monkeypatch):
    """A request that waits for others that are not answered gives up with them, and no other node is kept waiting."""
    monkeypatch.setattr(nsqkit.cluster.cluster, "MAX_REQUESTS", 1)
    silent, good = nodes.silent(), nodes.answering({"topics": ["a"]})
    cluster = make_cluster(request_timeout=0.2)

    async def ask():
        return await asyncio.gather(*[cluster.topics([silent.address, good.address]) for _ in range(3)])

    answers = run(ask())

    assert [["a"]] * 3 == [one.value for one in answers]
    assert [[Failure(silent.address, "no answer within 0.2 s")]] * 3 == [one.failures for one in answers]


def test_a_silent_node_costs_no_more_than_the_limit(run, make_cluster, nodes):
    """A node that does not answer is a failure when its time is over, and the others' answers are there."""
    silent, good = nodes.silent(), nodes.answering({"topics": ["a"]})

    answers = run(make_cluster(request_timeout=1).topics([silent.address, good.address]))

    assert ["a"] == answers.value
    assert [Failure(silent.address, "no answer within 1 s")] == answers.failures
    run(silent.lost_client.wait())


def test_a_slow_body_has_the_same_limit(run, make_cluster, nodes):
    """The limit is for all of an answer."""

    async def handler(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await reader.read()

    node = nodes.handled_by(handler)

    answers = run(make_cluster(request_timeout=0.05).topics([node.address]))

    assert [Failure(node.address, "no answer within 0.05 s")] == answers.failures


def test_info_and_stats_share_the_limit(run, make_cluster, nodes):
    """A node of which two things are asked has no more time."""
    info = nodes.reply({"version": "1.3.0"})

    async def handler(reader, writer):
        if node.asked == ["GET /info"]:
            writer.write(info)
        else:
            await reader.read()

    node = nodes.handled_by(handler)

    answers = run(make_cluster(request_timeout=0.5).nsqd_nodes([node.address]))

    assert [Failure(node.address, "no answer within 0.5 s")] == answers.failures


def test_connecting_has_its_own_limit(run, make_cluster, nodes):
    """The text says that the node was not even reached."""

    async def handler(reader, writer):
        await reader.read()

    secure = nodes.handled_by(handler, speaks_first=True)
    node = nodes.answering({"https_port": secure.port}, "403 Forbidden")

    answers = run(make_cluster(connect_timeout=0.2).topics([node.address]))

    assert [Failure(node.address, "no connection within 0.2 s")] == answers.failures


def test_cancelling_hangs_up(run, cluster, nodes):
    """Cancellation is no failure of a node: it goes through, and every connection is closed."""
    silent = [nodes.silent() for _ in range(2)]

    async def ask_and_cancel() -> None:
        asking = asyncio.create_task(cluster.topics([node.address for node in silent]))
        for node in silent:
            await node.got_request.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for node in silent:
            await node.lost_client.wait()

    run(ask_and_cancel())


# -- what is asked


def test_channels_of_a_topic_come_together(run, cluster, nodes):
    """Each nsqlookupd is asked for the channels of the topic."""
    one = nodes.serving({"/channels": {"channels": ["y", "x#ephemeral"]}})
    other = nodes.serving({"/channels": {"channels": None}})

    answers = run(cluster.channels([one.address, other.address], "t#ephemeral"))

    assert Answers(["x#ephemeral", "y"], [one.address, other.address], []) == answers
    assert ["GET /channels?topic=t%23ephemeral"] == one.asked


def test_a_lookup_finds_producers(run, cluster, nodes):
    """An nsqlookupd that does not know the topic is no failure; a server that does not know the path is."""
    knowing = nodes.serving({"/lookup": {"channels": ["c"], "producers": [PRODUCER]}})
    unknowing = nodes.answering({"message": "TOPIC_NOT_FOUND"}, "404 Not Found")
    stranger = nodes.serving({})

    answers = run(cluster.lookup([knowing.address, unknowing.address, stranger.address], "t"))

    assert answers.value.known
    assert ["c"] == answers.value.channels
    assert ["a:4151"] == [producer.node for producer in answers.value.producers]
    assert [knowing.address, unknowing.address] == answers.answered
    assert [(stranger.address, 404)] == [(failure.node, failure.status) for failure in answers.failures]
    assert ["GET /lookup?topic=t"] == knowing.asked


def test_nodes_are_what_lookupds_list(run, cluster, nodes):
    """The same nsqd in two lists is one, with a remote address for each."""
    listed = PRODUCER | {"remote_address": "1.2.3.4:5", "topics": ["t"], "tombstones": [True]}
    lookupds = [nodes.serving({"/nodes": {"producers": [listed]}}).address for _ in range(2)]

    (producer,) = run(cluster.nodes(lookupds)).value

    assert [f"{lookupd}/1.2.3.4:5" for lookupd in lookupds] == producer.remote_addresses
    assert [("t", True)] == [(topic.topic, topic.tombstoned) for topic in producer.topics]


def test_nsqds_tell_about_themselves(run, cluster, nodes):
    """Without nsqlookupds, /info and /stats say what a node is; one that has only one of them is a failure."""
    nsqd = nodes.serving({"/info": PRODUCER, "/stats": {"topics": [{"topic_name": "t"}]}})
    half = nodes.serving({"/info": PRODUCER})

    answers = run(cluster.nsqd_nodes([nsqd.address, half.address]))

    (producer,) = answers.value
    assert (nsqd.address, "a", 4150) == (producer.node, producer.broadcast_address, producer.tcp_port)
    assert ["t"] == [topic.topic for topic in producer.topics]
    assert [half.address] == [failure.node for failure in answers.failures]
    assert ["GET /info", "GET /stats?format=json&include_clients=false&include_mem=false"] == nsqd.asked


def test_stats_are_summed_up(run, cluster, nodes):
    """The value has what each node counts, and the sum over those that answered."""
    stats = {"version": "1.3.0", "health": "OK", "start_time": 7, "topics": [
        {"topic_name": "t", "depth": 2, "channels": [
            {"channel_name": "c", "depth": 3, "paused": True, "clients": [{"client_id": "x"}]}
        ]}
    ]}  # fmt: skip
    one, other = nodes.serving({"/stats": stats}), nodes.serving({"/stats": stats})
    dead = nodes.refusing()

    answers = run(cluster.stats([one.address, dead, other.address]))

    assert [dead] == [failure.node for failure in answers.failures]
    assert ("OK", 7) == (answers.value.nodes[one.address].health, answers.value.nodes[one.address].start_time)
    topic = answers.value.topic("t")
    assert topic is not None
    assert (4, [2, 2]) == (topic.depth, [node.depth for node in topic.nodes])
    channel = topic.channel("c")
    assert channel is not None
    assert (6, True) == (channel.depth, channel.paused)
    assert [one.address, other.address] == [client.node for client in channel.clients]
    assert ["GET /stats?format=json&include_clients=true&include_mem=false"] == one.asked


def test_stats_may_be_selected(run, cluster, nodes):
    """Topic, channel and clients are for the node to select."""
    node = nodes.serving({"/stats": {"topics": None}})

    answers = run(cluster.stats([node.address], "t", "c#ephemeral", include_clients=False))

    assert [] == answers.value.topics
    query = "format=json&include_clients=false&include_mem=false&topic=t&channel=c%23ephemeral"
    assert [f"GET /stats?{query}"] == node.asked


# -- commands


def test_commands_go_to_one_node_after_the_other(run, cluster, nodes):
    """Also past one that fails: the answer says who has done it and who has not."""
    order = []

    def node(name, status):
        async def handler(reader, writer):
            order.append(f"{name} begins")
            writer.write(nodes.reply(b"", status))
            await writer.drain()
            order.append(f"{name} ends")

        return nodes.handled_by(handler)

    first, second, third = node("first", "200 OK"), node("second", "404 Not Found"), node("third", "200 OK")

    answers = run(
        cluster.post([first.address, second.address, third.address], "/topic/empty", {"topic": "t"})
    )

    assert [f"{name} {does}" for name in ("first", "second", "third") for does in ("begins", "ends")] == order
    assert [first.address, third.address] == answers.answered
    assert [(second.address, 404)] == [(failure.node, failure.status) for failure in answers.failures]
    assert ["POST /topic/empty?topic=t"] == first.asked == third.asked
