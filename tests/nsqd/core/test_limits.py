"""Topics and channels: as many as there may be, and no more."""


def test_topics_are_limited(node, settings):
    """More topics than there may be are not made: the error says so, and those that are there go on."""
    settings.max_topics = 1
    client = node.client()
    client.send(b"PUB t\n\0\0\0\1x")

    text = b"failed there are 1 topics already: --max-topics"
    assert b"E_PUB_FAILED PUB " + text == node.client().send(b"PUB u\n\0\0\0\1x").error()
    assert b"E_MPUB_FAILED MPUB " + text == node.client().send(b"MPUB u\n").error()
    assert b"E_SUB_FAILED SUB " + text == node.client().send(b"SUB u c\n").error()
    client.send(b"PUB t\n\0\0\0\1x")
    node.broker.delete_topic("t")
    client.send(b"PUB u\n\0\0\0\1x")
    assert ["u"] == list(node.broker.topics)


def test_channels_are_limited(node, settings):
    """More channels than there may be, of all topics together, are not made; deleted ones make room."""
    settings.max_channels = 2
    node.client().send(b"SUB t a\n")
    node.client().send(b"SUB u a\n")

    refused = node.client().send(b"SUB t b\n").error()
    assert b"E_SUB_FAILED SUB failed there are 2 channels already: --max-channels" == refused
    node.broker.topics["t"].delete_channel("a")
    assert 1 == node.broker.channel_count
    node.client().send(b"SUB u b\n")
    node.broker.delete_topic("u")
    assert 0 == node.broker.channel_count
