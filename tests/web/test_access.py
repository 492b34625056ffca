"""Access by tokens, through a whole application: who is let in, what the others are told, and what is logged."""

from typing import Any

import pytest

from nsqkit.errors import StartError
from nsqkit.log import Level, Log
from nsqkit.nsqd import http as nsqd
from nsqkit.nsqlookupd import http as nsqlookupd
from nsqkit.options.daemon import DaemonOptions
from nsqkit.tokens import Role
from nsqkit.web.access import Access
from nsqkit.web.answers import Style
from nsqkit.web.app import HttpApp
from nsqkit.web.long_answer import Slices
from nsqkit.web.profiler import Profiler
from nsqkit.web.routes import Body, Routes

READER, PUBLISHER, ADMIN = (f"the-token-to-{word}" for word in ("read", "publish", "rule-them"))

routes: Routes[Any] = Routes("Things", Role.READ)


class StandIn:
    """A daemon in name."""

    def __init__(self, path: str) -> None:
        self.options = DaemonOptions()
        self.lines: list[str] = []
        self.log = Log("", Level.WARNING, write=self.lines.append)
        self.access = Access(path, self.log)
        self.profiler = Profiler()
        self.slices = Slices()


@routes.get("/ping", role=Role.ANYBODY, style=Style.PLAIN)
def ping(_, __):
    """Say OK."""
    return "OK"


@routes.get("/read")
def read(_, __):
    """Say something."""
    return "read"


@routes.any("/old", role=Role.ADMIN, style=Style.ENVELOPE)
@routes.get("/debug", role=Role.ADMIN, style=Style.PLAIN)
def rule(_, __):
    """Say something else."""
    return "ruled"


@routes.post("/pub", role=Role.PUBLISH, body=Body(), hot=True)
async def publish(_, call):
    """Say what came."""
    return call.body.decode()


@pytest.fixture
def path(tmp_path):
    """The file of tokens."""
    path = tmp_path / "tokens"
    path.write_text(f"read {READER}\npublish {PUBLISHER}\nadmin {ADMIN}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def daemon(path):
    """What the client talks to."""
    return StandIn(str(path))


@pytest.fixture
def http(http_client, daemon):
    """A client."""
    return http_client(HttpApp(daemon, routes))


def bearer(token: str) -> dict[str, Any]:
    """The header that carries a token."""
    return {"headers": [(b"authorization", f"Bearer {token}".encode())]}


@pytest.mark.parametrize(
    "method, target, body, allowed",
    [
        ("GET", "/read", b"", {READER, ADMIN}),
        ("POST", "/pub", b"x", {PUBLISHER, ADMIN}),
        ("GET", "/debug", b"", {ADMIN}),
        ("POST", "/old", b"", {ADMIN}),
    ],
)
def test_each_row_takes_its_role(http, method, target, body, allowed):
    """A request is served if its token has the row's role; else it is 403 with the role that is missing."""
    tokens = (READER, PUBLISHER, ADMIN)
    status = {token: http(method, target, body, **bearer(token)).status for token in tokens}

    assert allowed == {token for token in status if status[token] == 200}
    got = http(method, target, body, **bearer(READER if target != "/read" else PUBLISHER))
    role = {"/read": "read", "/pub": "publish"}.get(target, "admin")
    http.is_error(got, 403, f"TOKEN_INSUFFICIENT: this takes the role {role}")
    assert f'Bearer error="insufficient_scope", scope="{role}"' == got.headers["www-authenticate"]


@pytest.mark.parametrize("target", ["/read", "/debug", "/old"])
def test_no_token(http, target):
    """Without a token a request is 401, whatever the style of the endpoint, and told what to send."""
    got = http.get(target)

    http.is_error(got, 401, "TOKEN_MISSING: send the header Authorization: Bearer <token>")
    assert "Bearer" == got.headers["www-authenticate"]


@pytest.mark.parametrize("header", [b"", b"Bearer", b"Bearer ", b"Basic dXNlcjpwdw==", READER.encode()])
def test_header_without_a_token(http, header):
    """Another scheme, or none, counts as no token."""
    assert (
        http.get("/read", headers=[(b"authorization", header)]).json()["message"].startswith("TOKEN_MISSING")
    )


def test_what_is_denied_is_counted(http, daemon):
    """By status; what is served is not."""
    http.get("/read")
    http.get("/read", **bearer(PUBLISHER))
    http.get("/read", **bearer("the-token-to-nothing"))
    http.get("/read", **bearer(READER))

    assert {401: 2, 403: 1} == daemon.access.denied


def test_unknown_token(http):
    """A token that is not in the file is 401."""
    got = http.get("/read", **bearer("the-token-to-nothing"))

    http.is_error(got, 401, "TOKEN_UNKNOWN")
    assert 'Bearer error="invalid_token"' == got.headers["www-authenticate"]


def test_scheme_in_any_case(http):
    """The word Bearer may be written in any case, and with more than one space."""
    assert 200 == http.get("/read", headers=[(b"authorization", b"bEARER  " + READER.encode())]).status


def test_first_header_counts(http):
    """Of several headers the first one counts."""
    headers = [*bearer("the-token-to-nothing")["headers"], *bearer(READER)["headers"]]

    assert 401 == http.get("/read", headers=headers).status


def test_ping_is_open(http):
    """Health probes need no token."""
    assert (200, b"OK") == (http.get("/ping").status, http.get("/ping").body)


def test_body_is_not_read(http):
    """The body of a request that is refused is not looked at."""
    assert 401 == http.post("/pub", chunks=[b"x"] * 5).status
    assert 5 == http.unread


def test_without_tokens_everything_is_open(http_client):
    """Without a file every request is served, whatever it carries."""
    http = http_client(HttpApp(StandIn(""), routes))

    assert [200] * 4 == [
        http.get("/read").status,
        http.get("/debug").status,
        http.post("/pub", b"x").status,
        http.get("/read", **bearer("the-token-to-nothing")).status,
    ]


def test_refusals_are_logged_without_the_token(http, daemon):
    """A refusal is a warning with path and peer, without query and token; many of one kind are said ten times."""
    http.post("/pub?topic=t&secret=s", **bearer("the-token-to-nothing"))
    for _ in range(100):
        http.get("/read")

    assert daemon.lines[0].endswith("WARNING: HTTP: 401 POST /pub (127.0.0.1:50000): TOKEN_UNKNOWN\n")
    assert 11 == len(daemon.lines)
    assert not any("nothing" in line for line in daemon.lines)


def test_reload(http, daemon, path):
    """After a reload new tokens are good and old ones are not."""
    path.write_text(f"read {PUBLISHER}\n")

    assert daemon.access.reload()

    assert [401, 200] == [http.get("/read", **bearer(token)).status for token in (READER, PUBLISHER)]


def test_reload_of_a_bad_file(http, daemon, path):
    """A reload of a bad file is an error in the log, and leaves the tokens as they were."""
    path.write_text("read\n")

    assert daemon.access.reload()

    assert 200 == http.get("/read", **bearer(READER)).status
    assert "ERROR: HTTP: the tokens that were loaded before stay in use: --http-token-file" in daemon.lines[0]
    assert "line 1: write a role and a token" in daemon.lines[0]


def test_nothing_to_reload():
    """Without a file a reload does nothing, and says so."""
    assert not StandIn("").access.reload()


def test_start_with_a_bad_file(path):
    """A daemon does not start with a file that it does not understand."""
    path.write_text("read\n")

    with pytest.raises(StartError, match=f"--http-token-file {path}: line 1: "):
        StandIn(str(path))


OPEN = {"/ping"}
READ = {
    "/info",
    "/stats",
    "/metrics",
    "/dump_inflight",
    "/lookup",
    "/topics",
    "/channels",
    "/nodes",
    "/debug",
}
PUBLISH = {"/pub", "/mpub", "/put", "/mput"}


@pytest.mark.parametrize("table", [nsqd.ENDPOINTS, nsqlookupd.ENDPOINTS], ids=["nsqd", "nsqlookupd"])
def test_roles_of_all_endpoints(table):
    """Nothing but /ping is open, what publishes takes the role for that, what only tells takes read, the rest admin."""
    roles = {row.path: row.role for row in table}

    assert roles.keys() & OPEN == {path for path, role in roles.items() if role is Role.ANYBODY}
    assert roles.keys() & READ == {path for path, role in roles.items() if role is Role.READ}
    assert roles.keys() & PUBLISH == {path for path, role in roles.items() if role is Role.PUBLISH}
