"""Endpoints that make, empty, pause and delete topics and channels."""

import pytest

NOW = 1_700_000_000 * 10**9


def is_done(got) -> bool:
    """An empty 200 with NSQ's header, and without a content type."""
    assert "nsq; version=1.0" == got.headers["x-nsq-content-type"]
    assert "content-type" not in got.headers
    return (200, b"") == (got.status, got.body)


@pytest.mark.parametrize(
    "path, query, status, text",
    [
        ("/topic/create", "", 400, "MISSING_ARG_TOPIC"),
        ("/topic/create", "topic=a$", 400, "INVALID_TOPIC"),
        ("/topic/create", "topic=%zz", 400, "INVALID_REQUEST"),
        ("/topic/delete", "", 400, "MISSING_ARG_TOPIC"),
        ("/topic/delete", "topic=none", 404, "TOPIC_NOT_FOUND"),
        ("/topic/delete", "topic=a$", 404, "TOPIC_NOT_FOUND"),
        ("/topic/empty", "", 400, "MISSING_ARG_TOPIC"),
        ("/topic/empty", "topic=a$", 400, "INVALID_TOPIC"),
        ("/topic/empty", "topic=none", 404, "TOPIC_NOT_FOUND"),
        ("/topic/empty", "topic=a;b", 400, "INVALID_REQUEST"),
        ("/topic/pause", "", 400, "MISSING_ARG_TOPIC"),
        ("/topic/pause", "topic=a$", 404, "TOPIC_NOT_FOUND"),
        ("/topic/unpause", "", 400, "MISSING_ARG_TOPIC"),
        ("/topic/unpause", "topic=none", 404, "TOPIC_NOT_FOUND"),
    ],
)
def test_topic_errors(http, path, query, status, text):
    """Each endpoint has its own set of errors, as in NSQ."""
    http.is_error(http.post(f"{path}?{query}"), status, text)


@pytest.mark.parametrize("verb", ["create", "delete", "empty", "pause", "unpause"])
@pytest.mark.parametrize(
    "query, status, text",
    [
        ("", 400, "MISSING_ARG_TOPIC"),
        ("channel=c", 400, "MISSING_ARG_TOPIC"),
        ("topic=a$&channel=c", 400, "INVALID_ARG_TOPIC"),
        ("topic=known", 400, "MISSING_ARG_CHANNEL"),
        ("topic=known&channel=a$", 400, "INVALID_ARG_CHANNEL"),
        ("topic=none&channel=c", 404, "TOPIC_NOT_FOUND"),
        ("topic=%zz&channel=c", 400, "INVALID_REQUEST"),
    ],
)
def test_channel_errors(http, nsqd, verb, query, status, text):
    """All endpoints of channels check alike."""
    nsqd.broker.topic("known")

    http.is_error(http.post(f"/channel/{verb}?{query}"), status, text)


@pytest.mark.parametrize("verb", ["delete", "empty", "pause", "unpause"])
def test_channel_that_is_not_there(http, nsqd, verb):
    """Only `create` makes a channel."""
    nsqd.broker.topic("t")

    http.is_error(http.post(f"/channel/{verb}?topic=t&channel=c"), 404, "CHANNEL_NOT_FOUND")


def test_life_of_a_topic(http, nsqd):
    """A topic is made, paused, unpaused, emptied and deleted; everything but the deletion may be repeated."""
    for _ in range(2):
        assert is_done(http.post("/topic/create?topic=t"))
    topic = nsqd.broker.topics["t"]
    http.post("/mpub?topic=t", b"a\nb")
    for verb, paused in [("pause", True), ("unpause", False)]:
        for _ in range(2):
            assert is_done(http.post(f"/topic/{verb}?topic=t"))
            assert paused == topic.paused
    for _ in range(2):
        assert is_done(http.post("/topic/empty?topic=t"))
        assert (0, 2) == (topic.depth(), topic.message_count)
    assert is_done(http.post("/topic/delete?topic=t"))
    assert {} == nsqd.broker.topics


def test_life_of_a_channel(http, nsqd):
    """A channel is made, paused, unpaused, emptied and deleted; everything but the deletion may be repeated."""
    topic = nsqd.broker.topic("t")
    for _ in range(2):
        assert is_done(http.post("/channel/create?topic=t&channel=c"))
    channel = topic.channels["c"]
    http.post("/mpub?topic=t", b"a\nb")
    for verb, paused in [("pause", True), ("unpause", False)]:
        for _ in range(2):
            assert is_done(http.post(f"/channel/{verb}?topic=t&channel=c"))
            assert paused == channel.paused
    for _ in range(2):
        assert is_done(http.post("/channel/empty?topic=t&channel=c"))
        assert (0, 2) == (channel.queue.depth(), channel.message_count)
    assert is_done(http.post("/channel/delete?topic=t&channel=c"))
    assert {} == topic.channels


def test_ephemeral_topic_goes_with_its_last_channel(http, nsqd):
    """Deleting the last channel of an ephemeral topic deletes the topic."""
    nsqd.broker.topic("t#ephemeral").channel("c", NOW)

    assert is_done(http.post("/channel/delete?topic=t%23ephemeral&channel=c"))

    assert {} == nsqd.broker.topics


def test_body_is_limited(http):
    """A body that nobody wants may be short, but not endless."""
    assert is_done(http.post("/topic/create?topic=t", b"whatever"))
    http.is_error(http.post("/topic/create?topic=t", b"x" * 65_537), 413, "BODY_TOO_BIG")


def test_too_many_topics_and_channels(http, nsqd):
    """What is one too many is 503 with the option that says so, and is not made."""
    settings = nsqd.broker.settings
    settings.max_topics = settings.max_channels = 1
    http.post("/topic/create?topic=t")
    http.post("/channel/create?topic=t&channel=c")

    text = "there are 1 {0} already: --max-{0}"
    http.is_error(http.post("/topic/create?topic=u"), 503, "TOO_MANY_TOPICS: " + text.format("topics"))
    http.is_error(http.post("/pub?topic=u", b"x"), 503, "PUB failed " + text.format("topics"))
    http.is_error(
        http.post("/channel/create?topic=t&channel=d"), 503, "TOO_MANY_CHANNELS: " + text.format("channels")
    )
    assert (["t"], ["c"]) == (list(nsqd.broker.topics), list(nsqd.broker.topics["t"].channels))
