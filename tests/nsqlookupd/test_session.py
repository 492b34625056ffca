"""What one nsqd may say to nsqlookupd, in whatever pieces it comes, and what is answered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqlookupd.registrations import Registrations
from nsqkit.nsqlookupd.session import MAX_LINE, SHARE, Refused, decode_identity
from nsqkit.wire.document import MAX_STRING
from nsqkit.wire.registration import MAGIC, encode_identify
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST, MOST_OF_PEER, NOW, TOMBSTONE_LIFETIME
from tests.nsqlookupd.conversation import HELLO, IDENTITY, INTRODUCTION, Conversation


@pytest.fixture
def nsqd(registrations):
    """A connection on which nothing was said."""
    return Conversation(registrations)


@pytest.fixture
def identified(nsqd):
    """A connection whose nsqd has identified itself."""
    assert [INTRODUCTION] == nsqd.say(HELLO)
    return nsqd


# -- the stream


def test_whole_conversation(nsqd, chunks):
    """Commands are answered one by one, however the bytes are cut; what is not whole yet waits."""
    commands = b"PING\n" + HELLO[4:] + b"REGISTER t\nREGISTER t c\r\nUNREGISTER t c\nPING\n"

    assert [b"OK", INTRODUCTION, *[b"OK"] * 4] == nsqd.say(*chunks(MAGIC + commands, tail=b"REGISTER t d"))
    assert {"client::", "topic:t:", "channel:t:c"} == set(nsqd.snapshot())
    assert not nsqd.session.closed


@given(st.data())
def test_any_cuts(data):
    """The replies do not depend on where the stream is cut."""
    stream = HELLO + b"REGISTER t c\nPING\nUNREGISTER t\nWHAT\nPING\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1))))
    nsqd = Conversation(Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, MOST, MOST_OF_PEER))

    got = nsqd.say(*[stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)])

    assert [INTRODUCTION, b"OK", b"OK", b"OK", b"E_INVALID invalid command WHAT"] == got


@given(st.binary(max_size=300))
def test_garbage(noise):
    """Nothing that comes in raises, and nothing of it is registered by somebody unknown."""
    nsqd = Conversation(Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, MOST, MOST_OF_PEER))

    for reply in nsqd.say(MAGIC + noise) + nsqd.end():
        assert reply == b"OK" or reply.startswith((b"E_INVALID ", b"E_BAD_BODY "))
    assert {"client::": []} == nsqd.snapshot()
    assert nsqd.session.closed


@pytest.mark.parametrize("magic", [b"  V2", b"  V0", b"HTTP", b"\0\0\0\0", b"GET / HTTP/1.1\r\n"])
def test_bad_magic(nsqd, chunks, magic):
    """Another magic is refused once there are four bytes of it, whatever follows."""
    assert [b"E_BAD_PROTOCOL"] == nsqd.say(*chunks(magic))
    assert nsqd.session.closed


def test_magic_that_breaks_off(nsqd):
    """Less than a magic is no error, only the end."""
    assert [] == nsqd.say(b"  V")
    assert [] == nsqd.end()
    assert nsqd.session.closed


@pytest.mark.parametrize("rest", [b"", b"PI", b"REGISTER t c"])
def test_end_between_commands(identified, rest):
    """A connection may end at any time; half a line is not looked at."""
    assert [] == identified.say(rest)
    assert [] == identified.end()
    assert identified.session.closed
    assert {"client::"} == set(identified.snapshot())


@pytest.mark.parametrize(
    "sent, missing",
    [(b"", "body size"), (b"\0\0\0", "body size"), (b"\0\0\0\5", "body"), (b"\0\0\0\5{}  ", "body")],
)
def test_end_within_identify(nsqd, sent, missing):
    """An end before IDENTIFY is whole is answered with what is missing."""
    assert [] == nsqd.say(MAGIC + b"IDENTIFY\n" + sent)

    assert [f"E_BAD_BODY IDENTIFY failed to read {missing}".encode()] == nsqd.end()
    assert nsqd.session.closed
    assert [] == nsqd.end()


def test_longest_line(identified):
    """A line may be of the limit's length, blanks and all."""
    assert [b"OK"] == identified.say(b"PING".ljust(MAX_LINE) + b"\n")


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_line_that_is_too_long(identified, end):
    """A line over the limit is refused as soon as that is clear, whether it ends or not."""
    text = f"E_INVALID line of more than {MAX_LINE} bytes".encode()

    assert [text] == identified.say(b"x" * (MAX_LINE + 1) + end)
    assert identified.session.closed


def test_nothing_is_kept_of_a_closed_session(identified):
    """After an error nothing is looked at, answered or kept."""
    assert [b"E_INVALID invalid command NO"] == identified.say(b"NO\nREGISTER t c\n")

    assert [] == identified.say(b"PING\n" * 1000)
    assert [] == identified.end()
    assert b"" == identified.session._input
    assert {"client::"} == set(identified.snapshot())


# -- the commands


@pytest.mark.parametrize("line", [b"PING", b"PING again and again", b"  PING \t\r", b"\tPING"])
def test_ping(nsqd, line):
    """PING is OK before IDENTIFY too; blanks around a line and words after the command do not matter."""
    assert [b"OK"] == nsqd.say(MAGIC + line + b"\n")


def test_ping_is_a_sign_of_life(identified):
    """PING sets `last_update`, REGISTER does not."""
    identified.say(b"REGISTER t\n", now=NOW + 1)
    assert NOW == identified.session.peer.last_update

    identified.say(b"PING\n", now=NOW + 2)

    assert NOW + 2 == identified.session.peer.last_update


def test_identify(nsqd, chunks):
    """IDENTIFY is answered with the introduction; /lookup's document has every key, in its order, and the address."""
    document = {
        **IDENTITY,
        "topology_region": "r",
        "topology_zone": "z",
        "remote_address": "1.2.3.4:5",
        "more": [1],
    }
    command = encode_identify(json.dumps(document).encode())

    assert [INTRODUCTION] == nsqd.say(*chunks(MAGIC + command, tail=b"P"))

    expected = (
        b'{"remote_address":"10.0.0.1:50000","hostname":"h","broadcast_address":"b","tcp_port":1,"http_port":2,'
        b'"version":"v","topology_zone":"z","topology_region":"r"}'
    )
    peer = nsqd.session.peer
    assert expected == peer.document
    assert ("10.0.0.1:50000", NOW, ("b:2", "b:2")) == (peer.id, peer.last_update, peer.nodes)
    assert {"client::": ["10.0.0.1:50000"]} == nsqd.snapshot()


def test_register_and_unregister(identified):
    """REGISTER adds to channel and topic, UNREGISTER takes away; two blanks are no channel."""
    me = ["10.0.0.1:50000"]

    assert [b"OK"] * 3 == identified.say(b"REGISTER t c more words\nREGISTER u \nREGISTER v  c\n")
    assert {
        "client::": me,
        "topic:t:": me,
        "channel:t:c": me,
        "topic:u:": me,
        "topic:v:": me,
    } == identified.snapshot()
    assert [b"OK"] * 3 == identified.say(b"UNREGISTER t c\nUNREGISTER u\nUNREGISTER v  c\n")
    assert {
        "client::": me, "topic:t:": me, "channel:t:c": [], "topic:u:": [], "topic:v:": [],
    } == identified.snapshot()  # fmt: skip


def test_lost_connection(identified):
    """When the connection is gone, so is everything registered over it; names stay."""
    identified.say(b"REGISTER t c\n")
    identified.session.gone(NOW)
    identified.session.gone(NOW)

    assert {"client::": [], "topic:t:": [], "channel:t:c": []} == identified.snapshot()
    assert [] == identified.say(b"REGISTER t c\n")


@pytest.mark.parametrize("verb", ["REGISTER", "UNREGISTER"])
@pytest.mark.parametrize("words", ["", " t", " t c", " bad$"])
def test_identify_comes_first(nsqd, chunks, verb, words):
    """Nothing is registered by somebody unknown; that is checked before the words."""
    assert [b"E_INVALID client must IDENTIFY"] == nsqd.say(*chunks(MAGIC + f"{verb}{words}\n".encode()))
    assert {"client::": []} == nsqd.snapshot()


def test_second_identify(identified, chunks):
    """IDENTIFY may be said once; the second is refused before its body has come."""
    assert [b"E_INVALID cannot IDENTIFY again"] == identified.say(*chunks(b"IDENTIFY\n", tail=b"\0\0\0\2{}"))


X64, X65 = "x" * 64, "x" * 65


@pytest.mark.parametrize("verb", ["REGISTER", "UNREGISTER"])
@pytest.mark.parametrize(
    "words, text",
    [
        ("", "E_INVALID {} insufficient number of params"),
        (" bad$", "E_BAD_TOPIC {} topic name 'bad$' is not valid"),
        (" bad$ c", "E_BAD_TOPIC {} topic name 'bad$' is not valid"),
        ("  t", "E_BAD_TOPIC {} topic name '' is not valid"),
        (" *", "E_BAD_TOPIC {} topic name '*' is not valid"),
        (f" {X65}", f"E_BAD_TOPIC {{}} topic name '{X65}' is not valid"),
        (" t#other", "E_BAD_TOPIC {} topic name 't#other' is not valid"),
        (" t\tc", "E_BAD_TOPIC {} topic name 't\tc' is not valid"),
        (" t bad$", "E_BAD_CHANNEL {} channel name 'bad$' is not valid"),
        (" t *", "E_BAD_CHANNEL {} channel name '*' is not valid"),
        (f" t {X65}", f"E_BAD_CHANNEL {{}} channel name '{X65}' is not valid"),
    ],
)
def test_refused_names(identified, chunks, verb, words, text):
    """What is wrong with the words is said in NSQ's texts, and nothing is registered."""
    assert [text.format(verb).encode()] == identified.say(*chunks(f"{verb}{words}\n".encode()))
    assert identified.session.closed
    assert {"client::"} == set(identified.snapshot())


def test_longest_names(identified):
    """Names may have 64 characters, the suffix included."""
    ephemeral = "e" * 54 + "#ephemeral"

    assert [b"OK"] == identified.say(f"REGISTER {X64} {ephemeral}\n".encode())
    assert f"channel:{X64}:{ephemeral}" in identified.snapshot()


@pytest.mark.parametrize(
    "line, word",
    [
        (b"HELLO there", b"HELLO"),
        (b"", b""),
        (b" \t\r", b""),
        (b"ping", b"ping"),
        (b"PINGS", b"PINGS"),
        (b"REGISTER\tt", b"REGISTER\tt"),
        (b"SUB a b", b"SUB"),
        (b"\xff\xfe <&>", b"\xff\xfe"),
    ],
)
def test_unknown_commands(nsqd, chunks, line, word):
    """A word that is no command is given back byte by byte, before IDENTIFY too."""
    assert [b"E_INVALID invalid command " + word] == nsqd.say(*chunks(MAGIC + line + b"\n"))


def test_errors_are_logged(nsqd):
    """The log names the peer and the error."""
    nsqd.say(b"HTTP")

    assert nsqd.lines[-1].endswith("ERROR: [10.0.0.1:50000] - E_BAD_PROTOCOL\n")


# -- limits


def test_commands_are_executed_in_shares(identified):
    """Who sends many commands at once has some executed at a time; none is lost, and after the last it is not busy."""
    count = 2 * SHARE + 1

    assert SHARE == len(identified.say(b"PING\n" * count))
    assert identified.session.busy
    assert SHARE == len(identified.say(b""))
    assert [b"OK"] == identified.say(b"")
    assert not identified.session.busy


def test_too_many_registrations():
    """The connection of an nsqd that registers too much ends with an error that names the option."""
    nsqd = Conversation(Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, MOST, 2))
    nsqd.say(HELLO + b"REGISTER t c\n")

    assert [b"E_TOO_MANY REGISTER more than --max-registrations-per-nsqd=2"] == nsqd.say(b"REGISTER u\n")
    assert nsqd.session.closed
    assert "E_TOO_MANY" in nsqd.lines[-1]


def test_long_texts():
    """What an nsqd says of itself may have so many characters, for every answer repeats it."""
    fitting = {**IDENTITY, "hostname": "h" * MAX_STRING}
    assert "h" * MAX_STRING == decode_identity(json.dumps(fitting).encode())["hostname"]

    with pytest.raises(Refused, match="E_BAD_BODY IDENTIFY version too long 257 > 256"):
        decode_identity(json.dumps({**IDENTITY, "version": "v" * 257}).encode())
