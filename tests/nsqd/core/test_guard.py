"""AUTH and permissions, with an authority that answers when it is told to."""

import json

import pytest

from nsqkit.nsqd.core.authority import Authority, Permissions
from nsqkit.nsqd.core.session import Session
from nsqkit.nsqd.core.settings import SECOND
from nsqkit.wire.frames import RESPONSE
from tests.nsqd.core.node import NOW
from tests.nsqd.core.sent import sized

OK = (RESPONSE, b"OK")
AUTH = b"AUTH\n" + sized(b"secret")
MPUB = b"MPUB t\n" + (13).to_bytes(4, "big") + (1).to_bytes(4, "big") + sized(b"x")
COMMANDS = {
    "PUB": b"PUB t\n" + sized(b"x"),
    "DPUB": b"DPUB t 1\n" + sized(b"x"),
    "MPUB": MPUB,
    "SUB": b"SUB t c\n",
}


class Allowed(Permissions):
    """Permissions for topics and channels by name; `looked` counts how often they were looked at."""

    def __init__(self, *names: str, ttl: int = 60, now: int = NOW, count: int = 1) -> None:
        super().__init__("tester", "http://id", count, now + ttl * SECOND)
        self.names = names
        self.looked = 0

    def allow(self, topic: str, channel: str) -> bool:
        """Whether `topic` or `topic/channel` was given."""
        self.looked += 1
        return (f"{topic}/{channel}" if channel else topic) in self.names


class FakeAuthority(Authority):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Session, bytes]] = []
        self.forgotten: list[Session] = []

    def ask(self, session, secret) -> None:
        """Note it."""
        self.asked.append((session, secret))

    def forget(self, session) -> None:
        """Note it."""
        self.forgotten.append(session)


@pytest.fixture
def authority(broker):
    """What the broker asks."""
    broker.authority = FakeAuthority()
    return broker.authority


@pytest.fixture
def guarded(authority, node):
    """A client of a broker with an authority."""
    return node.client()


@pytest.fixture
def answer(node):
    """The authority answers a client; then it is read on."""

    def say(client, permissions):
        client.session.answered(permissions, node.clock.now)
        if not client.ended:
            client.receive(b"")
        node.turn()

    return say


@pytest.fixture
def admitted(guarded, answer):
    """A client that may publish to `t` and subscribe to `t/c` for a minute."""
    guarded.send(AUTH)
    answer(guarded, Allowed("t", "t/c"))
    guarded.replies()
    return guarded


@pytest.mark.parametrize("command", COMMANDS)
def test_auth_comes_first(guarded, broker, command):
    """Without AUTH nothing can be done with a topic, and none is made."""
    guarded.send(COMMANDS[command])

    assert b"E_AUTH_FIRST AUTH required before " + command.encode() == guarded.error()
    assert guarded.ended == "closed"
    assert {} == broker.topics


def test_what_needs_no_topic_needs_no_auth(guarded):
    """IDENTIFY and NOP are for everybody."""
    guarded.identify(client_id="x").send(b"NOP\n")

    assert not guarded.ended


def test_a_good_answer(guarded, authority, answer):
    """The client is told who it is, and how many authorizations it has."""
    guarded.send(AUTH)
    assert [] == guarded.replies()
    assert [(guarded.session, b"secret")] == authority.asked

    answer(guarded, Allowed(count=2))

    ((kind, payload),) = guarded.replies()
    assert RESPONSE == kind
    assert {"identity": "tester", "identity_url": "http://id", "permission_count": 2} == json.loads(payload)


@pytest.mark.parametrize(
    "permissions, error",
    [
        (None, b"E_AUTH_FAILED AUTH failed"),
        (Allowed(count=0), b"E_UNAUTHORIZED AUTH no authorizations found"),
    ],
)
def test_a_bad_answer(guarded, answer, permissions, error):
    """Without a good answer, or with nothing in it, the client is sent away."""
    guarded.send(AUTH)

    answer(guarded, permissions)

    assert error == guarded.error()
    assert guarded.ended == "closed"
    assert not guarded.outlet.held


def test_auth_twice(admitted):
    """The second AUTH is an error."""
    assert b"E_INVALID AUTH already set" == admitted.send(AUTH).error()


@pytest.mark.parametrize("command", COMMANDS)
def test_permitted(admitted, command):
    """What is permitted is done."""
    assert [OK] == admitted.send(COMMANDS[command]).replies()


@pytest.mark.parametrize(
    "command, error",
    [
        (b"PUB u\n" + sized(b"x"), b'PUB on "u" ""'),
        (b"DPUB u 1\n" + sized(b"x"), b'DPUB on "u" ""'),
        (b"MPUB u\n", b'MPUB on "u" ""'),
        (b"SUB t d\n", b'SUB on "t" "d"'),
        (b"SUB u c\n", b'SUB on "u" "c"'),
    ],
)
def test_not_permitted(admitted, broker, command, error):
    """What is not permitted is an error, for MPUB before its body; no topic is made."""
    assert b"E_UNAUTHORIZED AUTH failed for " + error == admitted.send(command).error()
    assert "u" not in broker.topics


def test_names_come_before_permissions(guarded):
    """A name that can't be is said to be wrong, whoever says it."""
    assert b'E_BAD_CHANNEL SUB channel name "?" is not valid' == guarded.send(b"SUB t ?\n").error()


def test_the_client_is_not_read_while_it_waits(guarded, answer):
    """What it sends behind AUTH is kept, and executed when the answer is there, in order."""
    guarded.send(AUTH + COMMANDS["PUB"] + COMMANDS["MPUB"][:9])
    assert guarded.outlet.held
    guarded.session.keep(COMMANDS["MPUB"][9:])
    guarded.node.turn()
    assert [] == guarded.replies()

    answer(guarded, Allowed("t"))

    assert not guarded.outlet.held
    assert [b"tester", OK, OK] == [
        b"tester" if b"tester" in payload else (kind, payload) for kind, payload in guarded.replies()
    ]


def test_a_client_that_says_all_at_once_is_answered(guarded, answer):
    """Its end does not overtake the answer."""
    guarded.send(AUTH)
    guarded.session.end()
    guarded.node.turn()
    assert not guarded.ended

    answer(guarded, Allowed("t"))

    assert 1 == len(guarded.replies())
    assert guarded.ended == "closed"


def test_who_waits_is_not_silent(guarded, clock, answer):
    """A client that is not read can't be blamed for its silence; it still gets heartbeats."""
    guarded.lively = False
    guarded.send(AUTH)
    clock.advance(100)
    assert not guarded.ended
    assert guarded.outlet.heartbeats == 3

    answer(guarded, Allowed("t", now=clock.now))
    clock.advance(59)
    assert not guarded.ended
    clock.advance(2)
    assert guarded.ended


def test_permissions_are_looked_at_once_for_a_topic(guarded, answer):
    """A publisher that stays with its topic costs no pattern per message."""
    permissions = Allowed("t")
    guarded.send(AUTH)
    answer(guarded, permissions)

    guarded.send(COMMANDS["PUB"] * 3 + MPUB)

    assert 1 == permissions.looked


@pytest.mark.parametrize("command", COMMANDS)
def test_expired_permissions_are_asked_for_again(admitted, authority, clock, answer, command):
    """The next command that needs them waits for new ones, with the same secret, and is done then."""
    clock.advance(59)
    admitted.send(b"NOP\n")
    assert 1 == len(authority.asked)
    clock.advance(1)

    admitted.send(COMMANDS[command])
    assert (admitted.session, b"secret") == authority.asked[1]
    assert [] == admitted.replies()
    answer(admitted, Allowed("t", "t/c", now=clock.now))

    assert [OK] == admitted.replies()
    assert 2 == len(authority.asked)


@pytest.mark.parametrize(
    "permissions, error",
    [
        (None, b"E_AUTH_FAILED AUTH failed"),
        (Allowed("u", now=NOW + 60 * SECOND), b'E_UNAUTHORIZED AUTH failed for PUB on "t" ""'),
        (Allowed(now=NOW + 60 * SECOND, count=0), b'E_UNAUTHORIZED AUTH failed for PUB on "t" ""'),
    ],
)
def test_permissions_may_be_taken_back(admitted, clock, answer, permissions, error):
    """What is allowed no more after the second answer, or for want of one, ends the connection."""
    admitted.send(COMMANDS["PUB"]).replies()
    clock.advance(60)
    admitted.send(COMMANDS["PUB"])

    answer(admitted, permissions)

    assert error == admitted.error()


def test_a_subscription_stays(admitted, authority, clock, publish):
    """Messages come whether or not the permissions have expired."""
    admitted.send(COMMANDS["SUB"] + b"RDY 1\n").replies()
    clock.advance(100)

    publish("t", b"late")

    assert [b"late"] == admitted.bodies()
    assert 1 == len(authority.asked)


def test_who_is_gone_is_forgotten(guarded, authority, answer):
    """The authority need not go on, and an answer that comes all the same changes nothing."""
    guarded.send(AUTH)

    guarded.leave()
    answer(guarded, Allowed("t"))

    assert [guarded.session] == authority.forgotten
    assert guarded.session.guard.permissions is None
