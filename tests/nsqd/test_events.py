"""What a broker's events look like in the log."""

import json

import pytest

from nsqkit.log import Format, Level, Log
from nsqkit.nsqd.core.events import Events
from nsqkit.nsqd.events import LoggedEvents
from nsqkit.nsqd.traffic import CODES, Traffic
from nsqkit.wire.identify import Limits, negotiate


class Told:
    """Events that go to a list of lines, without their time."""

    def __init__(self, level: Level = Level.INFO):
        self.lines: list[str] = []
        self.traffic = Traffic()
        self.events: Events = LoggedEvents(Log(level=level, write=self._take), self.traffic)

    def _take(self, line: str) -> None:
        self.lines.append(line.split(" ", 2)[2].rstrip("\n"))


@pytest.fixture
def told():
    """At NSQ's level."""
    return Told()


def test_life_of_a_client(told):
    """A client comes, identifies itself and leaves, in NSQ's words."""
    identity = negotiate(b'{"client_id":"c","hostname":"h","user_agent":"u/1","sample_rate":5}', Limits())
    told.events.client_came("10.0.0.1:7")
    told.events.client_identified("10.0.0.1:7", identity)
    told.events.client_left("10.0.0.1:7")

    assert [
        "INFO: TCP: new client(10.0.0.1:7)",
        (
            "INFO: [10.0.0.1:7] IDENTIFY: {ClientID:c Hostname:h HeartbeatInterval:30000 OutputBufferSize:16384 "
            "OutputBufferTimeout:250 FeatureNegotiation:false TLSv1:false Deflate:false DeflateLevel:6 Snappy:false "
            "SampleRate:5 UserAgent:u/1 MsgTimeout:60000 TopologyRegion: TopologyZone:}"
        ),
        "INFO: PROTOCOL(V2): [10.0.0.1:7] exiting ioloop",
    ] == told.lines


@pytest.mark.parametrize("level", [Level.INFO, Level.FATAL])
def test_errors_are_counted_by_code(level):
    """Whether they are logged or not; and of more codes than there can be, the first ones are."""
    told = Told(level)
    told.events.client_failed("10.0.0.1:7", b"E_FIN_FAILED FIN 1 failed")
    told.events.client_failed("10.0.0.2:7", b"E_FIN_FAILED FIN 2 failed")
    told.events.client_failed("10.0.0.2:7", b"E_INVALID")
    told.events.client_dropped("10.0.0.2:7", "no heartbeat")

    assert {"E_FIN_FAILED": 2, "E_INVALID": 1} == told.traffic.errors
    assert 1 == told.traffic.dropped

    for number in range(2 * CODES):
        told.traffic.count_error(f"E_{number}")
    assert CODES == len(told.traffic.errors)


def test_topics_and_channels(told):
    """Topics and channels are made and deleted."""
    told.events.topic_made("t")
    told.events.channel_made("t", "c")
    told.events.channel_deleted("t", "c")
    told.events.topic_deleted("t")

    assert [
        "INFO: TOPIC(t): created",
        "INFO: TOPIC(t): new channel(c)",
        "INFO: TOPIC(t): deleting channel c",
        "INFO: TOPIC(t): deleting",
    ] == told.lines


def test_errors_name_client_and_cause(told):
    """An error frame is a line with the client's address; what the client said is cut and escaped."""
    told.events.client_failed("[::1]:7", b"E_INVALID invalid command \xff\n" + b"x" * 300)
    told.events.client_dropped("@", "no answer to two heartbeats")

    assert told.lines[0].startswith("ERROR: [[::1]:7] - E_INVALID invalid command \\xff\\nxxx")
    assert told.lines[0].endswith("... and 131 characters more")
    assert "ERROR: client(@) - no answer to two heartbeats" == told.lines[1]


def test_errors_of_a_host_are_limited(told):
    """A host that makes errors all the time fills no log, and hides no other host's errors."""
    for port in range(100):
        told.events.client_failed(f"10.0.0.1:{port}", b"E_BAD_TOPIC PUB topic name")
    told.events.client_failed("10.0.0.2:1", b"E_BAD_TOPIC PUB topic name")

    assert 11 == len(told.lines)
    assert "ERROR: [10.0.0.2:1] - E_BAD_TOPIC PUB topic name" == told.lines[-1]


def test_commands_at_debug():
    """At debug each command is a line, cut and escaped; at other levels nobody is asked to make one."""
    told = Told(Level.DEBUG)
    told.events.command_came("10.0.0.1:7", b"SUB t c")
    told.events.command_came("10.0.0.1:7", b"PUB \x1b[2J\xff" + b"x" * 300)

    assert "DEBUG: PROTOCOL(V2): [10.0.0.1:7] [SUB t c]" == told.lines[0]
    assert told.lines[1].startswith("DEBUG: PROTOCOL(V2): [10.0.0.1:7] [PUB \\x1b[2J\\xffxxx")
    assert told.lines[1].endswith("... and 112 characters more]")
    assert (True, False) == (told.events.traced, Told().events.traced)


def test_level_is_that_of_nsq():
    """At level warn only errors are left, at level fatal nothing."""
    for level, lines in ((Level.WARNING, 2), (Level.FATAL, 0)):
        told = Told(level)
        events = told.events
        events.client_came("a:1")
        events.client_identified("a:1", negotiate(b"{}", Limits()))
        events.client_failed("a:1", b"E_INVALID x")
        events.client_dropped("a:1", "why")
        events.client_left("a:1")
        events.topic_made("t")
        events.topic_deleted("t")
        events.channel_made("t", "c")
        events.channel_deleted("t", "c")
        assert lines == len(told.lines)


def test_fields():
    """Whoever reads lines by program finds client, topic and channel beside the text."""
    lines: list[str] = []
    log = Log("[nsqd] ", Level.DEBUG, lines.append, format=Format.JSON)
    events: Events = LoggedEvents(log, Traffic())
    client = {"client": "10.0.0.1:7"}
    named = {"topic": "t", "channel": "c"}

    events.client_came("10.0.0.1:7")
    events.client_identified("10.0.0.1:7", negotiate(b'{"user_agent":"u/1"}', Limits()))
    events.command_came("10.0.0.1:7", b"SUB t c")
    events.client_failed("10.0.0.1:7", b"E_INVALID x")
    events.client_dropped("10.0.0.1:7", "silence")
    events.client_left("10.0.0.1:7")
    events.topic_made("t")
    events.channel_made("t", "c")
    events.channel_deleted("t", "c")
    events.topic_deleted("t")

    fields = [json.loads(line) for line in lines]
    for one in fields:
        for key in ("ts", "level", "program", "msg"):
            del one[key]
    assert [
        client,
        client | {"user_agent": "u/1"},
        *[client] * 4,
        {"topic": "t"},
        named,
        named,
        {"topic": "t"},
    ] == fields
