"""An auth server on the loopback that behaves as a test wants."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import pytest


class AuthServer:
    """Takes one request per connection, and sends `reply`, or nothing if it is None."""

    def __init__(self) -> None:
        self.reply: bytes | None = reply(grant())
        self.address = ""
        self.asked: list[tuple[str, str, dict[str, list[str]], str]] = []  # method, path, query, head
        self.lost = asyncio.Event()
        self.got = asyncio.Event()

    async def serve(self, reader, writer):
        """One connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            length = [line for line in head.split("\r\n") if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(length[0].partition(":")[2])) if length else b""
            url = urlsplit(target)
            query = json.loads(body) if body else parse_qs(url.query, keep_blank_values=True)
            self.asked.append((method, url.path, query, head))
            self.got.set()
            if self.reply is None:
                await reader.read()
            else:
                writer.write(self.reply)
                await writer.drain()
        self.lost.set()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def reply(body: object, status: str = "200 OK") -> bytes:
    """A whole answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def grant(**more: object) -> dict[str, object]:
    """An answer that permits everything."""
    rule = {"topic": ".*", "channels": [".*"], "permissions": ["subscribe", "publish"]}
    return {"ttl": 60, "identity": "me", "identity_url": "", "authorizations": [rule], **more}


@asynccontextmanager
async def auth_server():
    """A running one."""
    one = AuthServer()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=10) if others else None


@pytest.fixture
def play(runner):
    """Runs a test's coroutine function with an auth server."""

    def run(test):
        async def act():
            async with auth_server() as server:
                await test(server)

        runner.run(act())

    return run
