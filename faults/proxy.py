"""A TCP proxy that misbehaves: for cut, half-open, half-closed and slow connections without any privilege.

Frozen, it takes nothing from either side and closes nothing, so both ends see a peer that is silent; what the kernel
has buffered meanwhile arrives when it thaws. A connection that is *forgotten* stays frozen for ever: half-open.
"""

import asyncio
import contextlib
import socket
import struct
from random import Random

READ_BYTES = 1 << 16


class Proxy:
    """Listens on a port of its own and passes everything on to `host`:`port`."""

    def __init__(self) -> None:
        self.port = 0
        self.delay_s = 0.0  # each chunk takes so much longer, in both directions
        self._target = ("", 0)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[_Link] = set()
        self._server: asyncio.Server

    async def start(self, host: str, port: int) -> None:
        """Listen."""
        self._target = (host, port)
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut everything, listen no more."""
        self._server.close()
        for link in list(self._links):
            link.cut()

    def freeze(self) -> None:
        """Pass nothing on, close nothing."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Go on."""
        self._flowing.set()

    def reset(self, share: float, chance: Random) -> None:
        """Reset some connections, towards both sides."""
        for link in self._some(share, chance):
            link.cut()

    def half_close(self, share: float, chance: Random) -> None:
        """Tell nsqd that nothing more will come from some clients, and go on listening to it."""
        for link in self._some(share, chance):
            link.end()

    def forget(self, share: float, chance: Random) -> None:
        """Cut some clients off, without a word to nsqd."""
        for link in self._some(share, chance):
            link.forgotten = True
            _reset(link.client)

    def let_go(self) -> None:
        """Close what was forgotten, on nsqd's side too."""
        for link in list(self._links):
            if link.forgotten:
                link.cut()

    def _some(self, share: float, chance: Random) -> list["_Link"]:
        links = sorted((one for one in self._links if not one.forgotten), key=lambda one: one.number)
        return [one for one in links if chance.random() < share]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(link, reader, server_writer), self._pump(link, server_reader, writer)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.cut()
            self._links.discard(link)

    async def _pump(self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(READ_BYTES):
            await self._flowing.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if link.forgotten:
                await link.silence
            if writer is not link.server or not link.ended:
                writer.write(chunk)
                await writer.drain()
        await self._flowing.wait()
        if link.forgotten:
            await link.silence
        if writer is link.client:  # nsqd hung up
            link.cut()
        else:
            link.end()


class _Link:
    """A client's connection and the one to nsqd behind it."""

    count = 0

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        _Link.count += 1
        self.number = _Link.count
        self.client = client
        self.server = server
        self.forgotten = False
        self.ended = False  # nsqd was told that nothing more will come
        self.silence = asyncio.get_running_loop().create_future()  # never done

    def end(self) -> None:
        """Half-close the side of nsqd."""
        self.ended = True
        with contextlib.suppress(OSError):
            self.server.write_eof()

    def cut(self) -> None:
        """Reset both."""
        self.silence.cancel()
        _reset(self.client)
        _reset(self.server)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
