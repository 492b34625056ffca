"""What one nsqd may say to nsqlookupd, in whatever pieces it comes, and what is answered."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.log import Level, Log
from nsqkit.nsqlookupd.registrations import Registrations
from nsqkit.nsqlookupd.session import MAX_BODY, MAX_LINE, SHARE, Refused, Session, decode_identity
from nsqkit.wire.document import MAX_STRING
from nsqkit.wire.registration import MAGIC, ReplyReader, encode_identify
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST, MOST_OF_PEER, NOW, TOMBSTONE_LIFETIME
from tests.nsqlookupd.views import everything

INTRODUCTION = b'{"version":"1.3.0"}'
IDENTITY = {"broadcast_address": "b", "hostname": "h", "tcp_port": 1, "http_port": 2, "version": "v"}
KNOWN = {**IDENTITY, "remote_address": "", "topology_zone": "", "topology_region": ""}
HELLO = MAGIC + encode_identify(json.dumps(IDENTITY).encode())
DECODE = b"E_BAD_BODY IDENTIFY failed to decode JSON body"
MISSING = b"E_BAD_BODY IDENTIFY missing fields"


class Conversation:
    """A session, its replies one by one, and the log's lines."""

    def __init__(self, registrations: Registrations) -> None:
        self.registrations = registrations
        self.lines: list[str] = []
        log = Log("", Level.DEBUG, write=self.lines.append, now=lambda: NOW)
        self.session = Session(registrations, "10.0.0.1:50000", INTRODUCTION, log)
        self._reader = ReplyReader(1 << 20)

    def say(self, *chunks: bytes, now: int = NOW) -> list[bytes]:
        """Send chunks; the replies to all of them."""
        return [reply for chunk in chunks for reply in self._reader.feed(self.session.receive(chunk, now))]

    def end(self) -> list[bytes]:
        """Send no more; what is still answered."""
        return self._reader.feed(self.session.end())

    def snapshot(self) -> dict[str, list[str]]:
        """What is registered, by key."""
        return {key: [peer.id for peer, _ in peers] for key, peers in everything(self.registrations, NOW)}


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


# -- the body of IDENTIFY


@pytest.mark.parametrize(
    "size, text",
    [
        (-1, "E_BAD_BODY IDENTIFY invalid body size -1"),
        (-(2**31), "E_BAD_BODY IDENTIFY invalid body size -2147483648"),
        (MAX_BODY + 1, f"E_BAD_BODY IDENTIFY body too big {MAX_BODY + 1} > {MAX_BODY}"),
        (2**31 - 1, f"E_BAD_BODY IDENTIFY body too big 2147483647 > {MAX_BODY}"),
        (0, DECODE.decode()),
    ],
)
def test_body_sizes(nsqd, chunks, size, text):
    """A size that makes no sense is refused before any of the body has come."""
    assert [text.encode()] == nsqd.say(*chunks(MAGIC + b"IDENTIFY\n" + struct.pack(">i", size)))
    assert {"client::": []} == nsqd.snapshot()


def test_largest_body(nsqd):
    """A body of the limit's length is read."""
    body = json.dumps(IDENTITY).encode().ljust(MAX_BODY)

    assert [INTRODUCTION] == nsqd.say(MAGIC + encode_identify(body))


def test_refused_body(nsqd, chunks):
    """Who did not identify himself is not known, whatever follows."""
    refused = MAGIC + encode_identify(b"{}")

    assert [MISSING] == nsqd.say(*chunks(refused, tail=b"REGISTER t c\n"))
    assert nsqd.session.closed
    assert {"client::": []} == nsqd.snapshot()


def identity(**fields: object) -> bytes:
    """A body with some fields other than usual."""
    return json.dumps({**IDENTITY, **fields}).encode()


@pytest.mark.parametrize(
    "body",
    [
        identity(),
        json.dumps({key.upper(): value for key, value in IDENTITY.items()}).encode(),
        identity(unknown={"a": [1.5, None]}, TOPOLOGY_ZONE=None, remote_address=None),
        b" \t\r\n" + identity() + b" \n",
        b'{"tcp_port":7,"Tcp_Port":1,' + identity()[1:].replace(b'"tcp_port": 1, ', b""),
    ],
)
def test_good_identities(body):
    """Keys match in any case, unknown ones and null are ignored, the last of several counts."""
    assert KNOWN == decode_identity(body)


@pytest.mark.parametrize("name", ["broadcast_address", "tcp_port", "http_port", "version"])
@pytest.mark.parametrize("empty", [True, False])
def test_missing_fields(name, empty):
    """Four fields are needed, and must not be empty or zero."""
    fields = {**IDENTITY, name: type(IDENTITY[name])()} if empty else {**IDENTITY, name: None}

    refuses(json.dumps(fields).encode(), MISSING)


@pytest.mark.parametrize("body", [b"null", b"{}", b' {"a":1}'])
def test_nothing_said(body):
    """An object without fields, and null, miss fields."""
    refuses(body, MISSING)


@pytest.mark.parametrize("name", ["hostname", "topology_zone", "topology_region"])
def test_optional_fields(name):
    """The host name and the topology may be left out."""
    fields = {key: value for key, value in IDENTITY.items() if key != name}

    assert {**KNOWN, name: ""} == decode_identity(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"1",
        b"true",
        identity() + b"{}",
        identity() + b"x",
        b"\xef\xbb\xbf" + identity(),
        identity(tcp_port="1"),
        identity(tcp_port=1.0),
        identity(tcp_port=True),
        identity(tcp_port=[1]),
        identity(tcp_port=2**63),
        identity(http_port=-(2**63) - 1),
        identity(hostname=1),
        identity(HostName={}),
        identity(version=["v"]),
        identity(broadcast_address=False),
        identity(topology_zone=0),
        identity(remote_address=0),
        identity().replace(b"1", b"NaN"),
        identity().replace(b"1", b"1e3"),
        identity().replace(b"1", b"1" * 5000),
        identity().replace(b"1", b"01"),
        identity(unknown=float("inf")),
        identity().replace(b'"h"', b'"\n"'),
        identity().replace(b'"h"', b'"\\ud83d'),
        b'{"a":' * 20_000,
    ],
)
def test_bad_json(body):
    """What Go's decoder refuses is refused: bad JSON, wrong types, fractions, numbers beyond 64 bits."""
    refuses(body, DECODE)


@pytest.mark.parametrize("port", [-1, -(2**63), 2**63 - 1, 70_000])
def test_odd_ports(port):
    """A port is any whole number of 64 bits but zero, as in NSQ."""
    assert port == decode_identity(identity(tcp_port=port))["tcp_port"]


@pytest.mark.parametrize(
    "raw, text",
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"a\\ud83db"', "a\ufffdb"),
        (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
        (b'"a\xffb"', "a\ufffdb"),
        (b'"\\u0000"', "\0"),
        ('"\u00fc"'.encode(), "\u00fc"),
    ],
)
def test_odd_texts(raw, text):
    """Halves of characters and bytes that are not UTF-8 become U+FFFD."""
    body = identity().replace(b'"h"', raw)

    assert text == decode_identity(body)["hostname"]


def test_text_for_browsers(nsqd):
    """What an nsqd says of itself cannot leave its place in a page that shows it."""
    nsqd.say(MAGIC + encode_identify(identity(hostname="</script>&\u2028")))

    assert b'"hostname":"\\u003c/script\\u003e\\u0026\\u2028"' in nsqd.session.peer.document


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KEYS = [*IDENTITY, "Version", "other"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
def test_any_json(document):
    """Any JSON either is an identity with every field in its type, or is refused."""
    got: dict[str, str | int] | str
    try:
        got = decode_identity(json.dumps(document).encode())
    except Refused as error:
        got = str(error)

    if isinstance(got, str):
        assert got.encode() in {DECODE, MISSING}
    else:
        assert {key: type(value) for key, value in KNOWN.items()} == {k: type(v) for k, v in got.items()}


def refuses(body: bytes, text: bytes) -> None:
    """Check an error."""
    with pytest.raises(Refused) as caught:
        decode_identity(body)
    assert text == str(caught.value).encode()


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
