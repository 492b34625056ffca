"""HTTP that asks for tokens: nsqd, nsqlookupd and the bench, as programs."""

import http.client
import json
import signal
from pathlib import Path

import pytest

from nsqkit.bench.cli import main as bench
from tests.scenarios.conftest import WAIT_S
from tests.scenarios.test_nsqlookupd import make_lookupd as make_lookupd  # noqa: PLC0414 - a fixture
from tests.scenarios.test_nsqlookupd import wait_until

READER, PUBLISHER, ADMIN = (f"the-token-to-{word}" for word in ("read", "publish", "rule-them"))


def secret_file(path: Path, text: str) -> Path:
    """A file that only its owner may read."""
    path.touch(0o600)
    path.write_text(text)
    return path


@pytest.fixture
def tokens(tmp_path) -> Path:
    """The file of tokens."""
    return secret_file(tmp_path / "tokens", f"read {READER}\npublish {PUBLISHER}\nadmin {ADMIN}\n")


def ask(daemon, method: str, target: str, token: str = "", body: bytes | None = None) -> int:
    """The status of an answer."""
    host, port = daemon.http_address
    connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
    try:
        connection.request(method, target, body, {"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_nsqd_and_nsqlookupd_ask_for_tokens(make_lookupd, make_daemon, tokens, tmp_path):
    """Both serve who has the role; nsqd's own token finds a new topic's channels; no log has a token."""
    lookupd = make_lookupd(f"--http-token-file={tokens}", "--broadcast-address=127.0.0.1").start()
    host, port = lookupd.address
    own = secret_file(tmp_path / "own", READER)
    nsqd = make_daemon(
        f"--http-token-file={tokens}",
        f"--http-client-token-file={own}",
        f"--lookupd-tcp-address={host}:{port}",
        "--broadcast-address=127.0.0.1",
        http=True,
    ).start()
    wait_until(lambda: "peer info" in nsqd.log())

    assert [401, 403, 200] == [
        ask(lookupd, "POST", "/channel/create?topic=t&channel=elsewhere", token)
        for token in ("", READER, ADMIN)
    ]
    assert [401, 403, 200] == [
        ask(nsqd, "POST", "/pub?topic=t", token, b"x") for token in ("", READER, PUBLISHER)
    ]
    assert [401, 200] == [ask(nsqd, "GET", "/stats", token) for token in ("x" * 16, READER)]
    wait_until(lambda: b'"elsewhere"' in stats(nsqd))

    assert not [token for token in (READER, PUBLISHER, ADMIN) if token in nsqd.log() + lookupd.log()]
    assert "failed to query nsqlookupd" not in nsqd.log()


def stats(nsqd) -> bytes:
    """What nsqd counts."""
    host, port = nsqd.http_address
    connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
    try:
        connection.request("GET", "/stats?format=json", headers={"Authorization": f"Bearer {READER}"})
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("program", ["nsqd", "nsqlookupd"])
def test_tokens_are_read_again(make_lookupd, make_daemon, tokens, program):
    """SIGHUP: the file's new tokens count, and a bad file changes nothing but the log."""
    flag = f"--http-token-file={tokens}"
    daemon = (make_daemon(flag, http=True) if program == "nsqd" else make_lookupd(flag)).start()

    tokens.write_text(f"read {ADMIN}\n")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "are loaded anew" in daemon.log())
    assert [401, 200] == [ask(daemon, "GET", "/info", token) for token in (READER, ADMIN)]

    tokens.write_text("nonsense\n")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "stay in use" in daemon.log())
    assert f"{flag[:17]} {tokens}: line 1: write a role and a token" in daemon.log()
    assert 200 == ask(daemon, "GET", "/info", ADMIN)


def test_bad_file(make_daemon, tokens):
    """nsqd does not start with a file that it does not understand."""
    tokens.write_text(f"{ADMIN} admin\n")
    nsqd = make_daemon(f"--http-token-file={tokens}", http=True)
    nsqd.spawn()

    assert 1 == nsqd.wait()
    assert f"--http-token-file {tokens}: line 1: the first word must be read, publish or admin" in nsqd.log()
    assert ADMIN not in nsqd.log()


def test_bench_sends_a_token(launch, tokens, tmp_path, capsys):
    """The bench publishes over HTTP with its token, and deletes its topics; without one it says what is missing."""
    nsqd = launch(f"--http-token-file={tokens}", http=True)
    addresses = {"tcp": nsqd.address, "http": nsqd.http_address}
    where = [f"--nsqd-{kind}-address={host}:{port}" for kind, (host, port) in addresses.items()]
    token = f"--http-client-token-file={secret_file(tmp_path / 'own', ADMIN)}"

    assert 0 == bench([*where, token, "--messages=50", "http"])
    assert b'"topics":[]' in nsqd_topics(nsqd)
    assert 1 == bench([*where, "--messages=50", "http"])
    assert "401" in capsys.readouterr().err


def nsqd_topics(nsqd) -> bytes:
    """The topics that are left."""
    return json.dumps({"topics": json.loads(stats(nsqd))["topics"]}, separators=(",", ":")).encode()


def test_bench_with_a_bad_token_file(tmp_path, capsys):
    """A token that can't be one is said, and ends the bench."""
    path = secret_file(tmp_path / "own", "short")

    assert 1 == bench([f"--http-client-token-file={path}", "http"])

    assert f"--http-client-token-file {path}: a token has 16 to 256" in capsys.readouterr().err
