"""What test_cluster.py puts in an nsqlookupd's place: one that speaks V1 as the original does, and bad ones."""

import json
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.scenarios.cluster_nodes import HOST
from tests.scenarios.conftest import WAIT_S


class Fake(socketserver.ThreadingTCPServer):
    """A TCP server that plays the same game with each connection, and hangs up when the game is over."""

    allow_reuse_address = True

    def __init__(self, play: Callable[[socket.socket], None], port: int = 0):
        self.accepted: list[socket.socket] = []
        self._play = play
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        super().__init__((HOST, port), socketserver.BaseRequestHandler)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server_address[1]
        return port

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's interface
        """Play, in a thread of its own."""
        self.accepted.append(request)
        with suppress(OSError):
            self._play(request)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        for connection in self.accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()


class FakeLookupd(Fake):
    """Speaks V1 as the original does: takes one command after the other, and hangs up after an error."""

    def __init__(self, http_port: int = 4161):
        self.heard: list[str] = []  # the magic and the commands, of all connections
        self.identities: list[dict[str, Any]] = []
        self.registered: set[tuple[str, str]] = set()  # topic and channel, of this connection
        self.error = ""  # what the next command is answered, if anything
        self._introduction = {
            "broadcast_address": HOST,
            "hostname": "lookup",
            "http_port": http_port,
            "tcp_port": 4160,
            "version": "1.3.0",
        }
        super().__init__(self._converse)

    def _converse(self, connection: socket.socket) -> None:
        self.registered.clear()
        with connection.makefile("rb") as file:
            self.heard.append(file.read(4).decode())
            while line := file.readline():
                command = line.decode().strip()
                self.heard.append(command)
                error, self.error = self.error, ""
                reply = error or self._execute(command.split(" "), file)
                connection.sendall(struct.pack(">i", len(reply)) + reply.encode())
                if error:
                    return

    def _execute(self, words: list[str], file: Any) -> str:
        name, topic, channel = (*words, "", "")[:3]
        if name == "IDENTIFY":
            (size,) = struct.unpack(">i", file.read(4))
            self.identities.append(json.loads(file.read(size)))
            return json.dumps(self._introduction, separators=(",", ":"))
        if name == "REGISTER":
            self.registered |= {(topic, channel), (topic, "")}
        elif name == "UNREGISTER" and channel:
            self.registered.discard((topic, channel))
        elif name == "UNREGISTER":
            self.registered = {one for one in self.registered if one[0] != topic}
        return "OK"


def silence(connection: socket.socket) -> None:
    """Listen, and say nothing."""
    while connection.recv(1 << 16):
        pass


def garbage(connection: socket.socket) -> None:
    """Answer with something that is neither V1 nor HTTP."""
    connection.recv(1 << 16)
    connection.sendall(b"\xff\x00\r\nwhat?\r\n\r\n" * 10)
    silence(connection)


def until(condition: Callable[[], object], what: str) -> None:
    """Return when it holds."""
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at, f"still not: {what}"
        time.sleep(0.01)
