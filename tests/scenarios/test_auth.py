"""AUTH with a real nsqd and an auth server that is slow, silent or gone."""

import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.scenarios.conftest import Closed, command

SECRET = "s3cret-one"
SLOW = "s3cret-slow"
RULES = [{"topic": "^t$", "channels": [".*"], "permissions": ["publish", "subscribe"]}]


class AuthServer:
    """Answers every secret at once, but SLOW only when `let_go` is called."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)  # released for each question about SLOW
        self._gate = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One question."""

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                """Answer."""
                if parse_qs(urlsplit(self.path).query)["secret"] == [SLOW]:
                    outer.asked.release()
                    outer._gate.wait(60)
                body = json.dumps({"ttl": 60, "identity": "me", "authorizations": RULES}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def let_go(self) -> None:
        """Answer who waits."""
        self._gate.set()

    def close(self) -> None:
        """Stop."""
        self._gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def auth_server() -> Iterator[AuthServer]:
    """A running one."""
    one = AuthServer()
    yield one
    one.close()


def auth(secret: str) -> bytes:
    """AUTH."""
    return command("AUTH", secret.encode())


def test_a_slow_auth_server_keeps_only_who_asks_waiting(launch, auth_server):
    """While it is silent about one client, others are admitted, publish and consume; then that one goes on."""
    nsqd = launch(f"--auth-http-address={auth_server.address}", "--http-client-request-timeout=1m")
    waiting = nsqd.connect()
    waiting.send(auth(SLOW) + command("PUB t", b"late"))
    assert auth_server.asked.acquire(timeout=20)

    other = nsqd.connect()
    other.send(auth(SECRET))
    assert b"me" in other.reply()
    other.subscribe("t", "c")
    other.publish("t", b"early")
    assert b"early" == other.message().body

    auth_server.let_go()
    assert b"me" in waiting.reply()
    waiting.ok()
    assert b"late" == other.message().body


def test_a_stop_does_not_wait_for_an_auth_server(launch, auth_server):
    """nsqd ends while a question is open, and the client is hung up on."""
    nsqd = launch(f"--auth-http-address={auth_server.address}", "--http-client-request-timeout=1m")
    client = nsqd.connect()
    client.send(auth(SLOW))
    assert auth_server.asked.acquire(timeout=20)

    assert 0 == nsqd.stop()

    with pytest.raises(Closed):
        client.reply()


def test_no_secret_in_the_log(launch, auth_server):
    """Even at debug no secret is logged: not of who is admitted, nor of who is not, nor where nobody answers."""
    nsqd = launch(
        f"--auth-http-address={auth_server.address}",
        "--log-level=debug",
        "--http-client-request-timeout=50ms",
    )
    good, late = nsqd.connect(), nsqd.connect()
    good.send(auth(SECRET))
    good.reply()
    late.send(auth(SLOW))
    assert "E_AUTH_FAILED AUTH failed" == late.error()
    wrong = nsqd.connect()
    wrong.send(f"AUTH {SECRET}\n".encode())
    assert "E_INVALID AUTH invalid number of parameters" == wrong.error()
    nsqd.stop()

    log = nsqd.log()
    assert f"AUTH({auth_server.address}): [127.0.0.1:" in log
    assert "it did not answer in time" in log
    assert "s3cret" not in log
