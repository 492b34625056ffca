"""Opening a connection to an nsqd: connect, IDENTIFY, TLS, compression, AUTH, and SUB for a consumer.

What nsqd answers counts, not what was asked for (spec/tcp-protocol.md, section 4). TLS that was asked for and is not
offered is an error; compression that is not offered is a warning.
"""

import asyncio
import json
import logging
import os
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from nsqkit.address import split_address
from nsqkit.client.link import Link
from nsqkit.client.message import Inbox
from nsqkit.client.options import ConnectionOptions, ConsumerOptions, TlsVersion
from nsqkit.client.tls import TlsClient
from nsqkit.errors import AuthFailed, ConnectionFailed, HandshakeFailed, OptionError, Refused
from nsqkit.wire.compression import Deflate, Snappy

MAGIC: Final = b"  V2"
_AUTH_CODES: Final = {"E_AUTH_FAILED", "E_AUTH_FIRST", "E_AUTH_ERROR", "E_UNAUTHORIZED", "E_AUTH_DISABLED"}
_PASSING_CODES: Final = {
    "E_AUTH_FAILED",
    "E_AUTH_ERROR",
    "E_SUB_FAILED",
    "E_IDENTIFY_FAILED",
}  # it may go better later
_SHOWN: Final = 200  # characters of an answer that is not understood


class Agreed(msgspec.Struct):
    """nsqd's answer to IDENTIFY. Times are in milliseconds. A plain `OK` agrees to nothing."""

    max_rdy_count: int = 2500
    version: str = "?"
    max_msg_timeout: int = 900_000
    msg_timeout: int = 60_000
    tls_v1: bool = False
    deflate: bool = False
    deflate_level: int = 6
    snappy: bool = False
    sample_rate: int = 0
    auth_required: bool = False


class Identity(msgspec.Struct):
    """nsqd's answer to AUTH."""

    identity: str = ""
    identity_url: str = ""
    permission_count: int = 0


class Opener:
    """Opens connections as the options of one producer or consumer say. OptionError for files that can't be read."""

    def __init__(self, options: ConnectionOptions, now: Callable[[], float], log: logging.Logger) -> None:
        self.identity: Identity | None = None  # what AUTH said last
        self._options = options
        self._now = now
        self._log = log
        self._context = _tls_context(options) if options.tls_v1 else None
        self._local = _local_address(options.local_addr)

    async def open(self, nsqd: str, inbox: Inbox | None = None) -> Link:
        """A connection on which messages may be published; with an inbox, one that has subscribed. ConnectionFailed."""
        link = await self._connect(nsqd, inbox)
        timeout = self._options.read_timeout.seconds
        try:
            async with asyncio.timeout(timeout):
                await self._shake_hands(link, inbox)
        except TimeoutError:
            link.abort("the handshake took too long")
            raise HandshakeFailed(nsqd, f"no answer within {timeout:g} s (read_timeout)") from None
        except Refused as error:
            kind = AuthFailed if error.code in _AUTH_CODES else HandshakeFailed
            reason = f"it answered {error.code} {error.detail}".rstrip()
            raise kind(nsqd, reason, final=error.code not in _PASSING_CODES) from error
        except ConnectionFailed as error:
            link.abort(error.reason)
            if link.misled:
                raise HandshakeFailed(nsqd, error.reason, final=True) from error
            raise
        except BaseException as error:
            link.abort(str(error) or "the handshake was cancelled")
            raise
        return link

    async def _connect(self, nsqd: str, inbox: Inbox | None) -> Link:
        options = self._options
        host, port = split_address(nsqd)
        timeout = options.dial_timeout.seconds
        link = Link(nsqd, self._now, options.max_msg_size if inbox is not None else 0, inbox)
        link.write_timeout = options.write_timeout.seconds
        protocol: Any = link  # it quacks like one; compiled classes can't inherit it
        try:
            async with asyncio.timeout(timeout):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: protocol, host, port, local_addr=self._local
                )
        except TimeoutError:
            raise ConnectionFailed(nsqd, f"no connection within {timeout:g} s (dial_timeout)") from None
        except OSError as error:
            raise ConnectionFailed(nsqd, f"cannot connect: {_in_words(error)}") from error
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    async def _shake_hands(self, link: Link, inbox: Inbox | None) -> None:
        options = self._options
        link.write(MAGIC + _with_body(b"IDENTIFY\n", json.dumps(self._request()).encode()))
        agreed = _read(link.nsqd, "IDENTIFY", await link.reply(), Agreed)
        await self._upgrade(link, agreed)
        if agreed.auth_required:
            await self._authorize(link)
        link.max_rdy_count = max(agreed.max_rdy_count, 1)
        link.msg_timeout = agreed.msg_timeout / 1000
        link.max_msg_timeout = agreed.max_msg_timeout / 1000
        link.heartbeat = max(options.heartbeat_interval.seconds, 0.0)
        if inbox is not None:
            link.write(f"SUB {inbox.topic} {inbox.channel}\n".encode())
            answer = await link.reply()
            if answer != b"OK":
                raise HandshakeFailed(link.nsqd, f"SUB was answered {answer[:_SHOWN]!r}", final=True)

    def _request(self) -> dict[str, object]:
        """What IDENTIFY asks for. Times are in milliseconds."""
        options = self._options
        request: dict[str, object] = {
            "client_id": options.client_id,
            "hostname": options.hostname,
            "short_id": options.client_id,  # these two for nsqds of the first generations
            "long_id": options.hostname,
            "user_agent": options.user_agent,
            "feature_negotiation": True,
            "tls_v1": options.tls_v1,
            "deflate": options.deflate,
            "deflate_level": options.deflate_level,
            "snappy": options.snappy,
            "heartbeat_interval": _or_off(options.heartbeat_interval.milliseconds),
            "output_buffer_size": options.output_buffer_size,
            "output_buffer_timeout": _or_off(options.output_buffer_timeout.milliseconds),
            "topology_region": options.topology_region,
            "topology_zone": options.topology_zone,
        }
        if isinstance(options, ConsumerOptions):
            request["sample_rate"] = options.sample_rate
            request["msg_timeout"] = options.msg_timeout.milliseconds
        return request

    async def _upgrade(self, link: Link, agreed: Agreed) -> None:
        options = self._options
        if options.tls_v1 and not agreed.tls_v1:
            raise HandshakeFailed(
                link.nsqd, "it does not offer TLS (tls_v1): set its --tls-cert and --tls-key", final=True
            )
        if self._context is not None:
            host, _ = split_address(link.nsqd)
            link.add_layer(TlsClient(self._context, host))
            await self._expect_ok(link, "TLS")
        for name, wanted, offered in (
            ("snappy", options.snappy, agreed.snappy),
            ("deflate", options.deflate, agreed.deflate),
        ):
            if wanted and not offered:
                self._log.warning("nsqd %s does not offer %s: going on without compression", link.nsqd, name)
            elif wanted:
                link.add_layer(
                    Snappy() if name == "snappy" else Deflate(min(max(agreed.deflate_level, 1), 9))
                )
                await self._expect_ok(link, name)

    async def _expect_ok(self, link: Link, what: str) -> None:
        answer = await link.reply()
        if answer != b"OK":
            raise HandshakeFailed(
                link.nsqd, f"{what} began with {answer[:_SHOWN]!r}, not with OK", final=True
            )

    async def _authorize(self, link: Link) -> None:
        secret = self._options.auth_secret
        if not secret:
            raise AuthFailed(link.nsqd, "it wants AUTH: set auth_secret", final=True)
        link.write(_with_body(b"AUTH\n", secret.encode()))
        self.identity = _read(link.nsqd, "AUTH", await link.reply(), Identity)
        self._log.info(
            "nsqd %s: authorized as %r, with %d permissions",
            link.nsqd,
            self.identity.identity[:_SHOWN],
            self.identity.permission_count,
        )


def _with_body(line: bytes, body: bytes) -> bytes:
    return line + struct.pack(">i", len(body)) + body


def _or_off(milliseconds: int) -> int:
    return milliseconds if milliseconds >= 0 else -1


def _read(nsqd: str, what: str, answer: bytes, kind: type[Any]) -> Any:
    if answer == b"OK":
        return kind()
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise HandshakeFailed(
            nsqd, f"{what} was answered {answer[:_SHOWN]!r}: it is no nsqd", final=True
        ) from None


def _in_words(error: OSError) -> str:
    """The reason alone: asyncio's texts repeat the address."""
    if isinstance(error, socket.gaierror):
        return f"the name is not known: {error.strerror}"
    return (
        os.strerror(error.errno).lower() if error.errno else str(error)
    )  # without a number, of several addresses


def _local_address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, _, port = text.rpartition(":") if text.count(":") == 1 or text.startswith("[") else (text, "", "0")
    return host.strip("[]"), int(port or 0)


def _tls_context(options: ConnectionOptions) -> ssl.SSLContext:
    """The context that the options give, or describe. OptionError."""
    if options.tls_context is not None:
        return options.tls_context
    try:
        context = ssl.create_default_context(cafile=options.tls_root_ca_file or None)
        if options.tls_insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        files = [
            name
            for name in (options.tls_root_ca_file, options.tls_cert, options.tls_key)
            if name and not Path(name).is_file()
        ]
        raise OptionError(
            f"TLS: {', '.join(files) or 'tls_root_ca_file, tls_cert or tls_key'}: {error}"
        ) from error
    oldest = ssl.TLSVersion.TLSv1_3 if options.tls_min_version is TlsVersion.TLS13 else ssl.TLSVersion.TLSv1_2
    context.minimum_version = oldest
    return context
