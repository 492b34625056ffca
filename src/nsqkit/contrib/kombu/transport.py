"""A kombu connection to NSQ.

One producer and, once something is consumed, some consumers. They find and lose nsqds by themselves, so that kombu's
connection always stands; what can't be published within `send_timeout` is an error of the connection, which kombu tries
again.
"""

import dataclasses
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar, Final, cast

from kombu.transport import virtual
from kombu.utils.compat import detect_environment
from kombu.utils.url import parse_url

from nsqkit.client.consumer import Consumer
from nsqkit.client.options import ConnectionOptions, ConsumerOptions, ProducerOptions
from nsqkit.client.sync import SyncProducer
from nsqkit.contrib.kombu.channel import Channel
from nsqkit.contrib.kombu.envelope import Payload
from nsqkit.contrib.kombu.feeds import Feed, Mailbox, QueueConsumer
from nsqkit.contrib.kombu.management import Management
from nsqkit.errors import ConsumerFailed, NotSent, OptionError, OutcomeUnknown
from nsqkit.options.duration import Duration
from nsqkit.version import VERSION

CHANNEL: Final = "celery"
PORT: Final = 4150
MAX_DELAY: Final = "1h"  # as nsqd's --max-req-timeout
_OPTIONS: Final = {"channel", "lookupd", "max_delay", "nsqd_http"}
_OF_KOMBU: Final = {
    "body_encoding",
    "callback",
    "connect_retries_timeout",
    "deadletter_queue",
    "errback",
    "interval_max",
    "interval_start",
    "interval_step",
    "max_retries",
}
_TURNS: Final = {"low_rdy_idle_timeout": "1s", "low_rdy_timeout": "5s", "rdy_redistribute_interval": "250ms"}
"""A queue that may have fewer messages than there are nsqds has them from each in turn, soon enough for a task."""
_TLS: Final = {"ca_certs": "tls_root_ca_file", "certfile": "tls_cert", "keyfile": "tls_key"}

_log = logging.getLogger("nsqkit.kombu")


class Transport(virtual.Transport):  # type: ignore[misc]  # kombu has no types
    """NSQ for kombu. Options are those of docs/celery.md. OptionError for one that makes no sense."""

    Channel = Channel
    driver_type = "nsq"
    driver_name = "nsqkit"
    default_port = PORT
    polling_interval = None
    connection_errors = (NotSent, OutcomeUnknown, ConsumerFailed)
    recoverable_connection_errors = connection_errors
    recoverable_channel_errors: ClassVar[tuple[type[Exception], ...]] = ()
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct", "topic", "fanout"])
    )
    _warned: ClassVar[bool] = False

    def __init__(self, client: Any, **more: Any) -> None:
        super().__init__(client, **more)
        if (environment := detect_environment()) != "default":
            raise OptionError(
                f"the transport of nsqkit needs real threads, so it does not work under {environment}"
            )
        options = client.transport_options
        _check(options)
        self.channel_name: str = options.get("channel", CHANNEL)
        self.max_delay = _seconds("max_delay", options.get("max_delay", MAX_DELAY))
        self.passing: set[str] = set()  # queues that go with who declared them
        self.mailbox = Mailbox()
        self.management = Management(options.get("nsqd_http", ()), self.channel_name)
        self._nsqds = _addresses(client)
        self._lookupds: Any = options.get("lookupd", ())
        tls = _tls(client.ssl)
        self._producer_options = ProducerOptions(**tls | _of(ProducerOptions, options))
        self._consumer_options = ConsumerOptions(
            **_TURNS | tls | _of(ConsumerOptions, options) | {"max_in_flight": 0}
        )
        self._producer: SyncProducer | None = None

    @property
    def producer(self) -> SyncProducer:
        """The one of this connection."""
        if self._producer is None:
            nsqds, lookupds = (self._nsqds, ()) if self._nsqds else ((), self._lookupds)
            self._producer = SyncProducer(*nsqds, lookupd=lookupds, options=self._producer_options)
        return self._producer

    def consumer(self, topic: str, channel: str) -> Consumer:
        """One that takes nothing yet. It works in the client's thread."""
        return QueueConsumer(
            topic, channel, nsqd=self._nsqds, lookupd=self._lookupds, options=self._consumer_options
        )

    def driver_version(self) -> str:
        """That of nsqkit."""
        return VERSION

    def callback(self, queue: str) -> Callable[[Payload], object] | None:
        """Who takes a queue's messages."""
        found: Callable[[Payload], object] | None = self._callbacks.get(queue)
        return found

    def warn_of_priority(self) -> None:
        """Say once for a process that NSQ has none."""
        if not Transport._warned:
            Transport._warned = True
            _log.warning("NSQ has no priorities: those of tasks are ignored")

    # -- taking messages

    def drain_events(self, _: Any, timeout: float | None = None) -> None:
        """Hand one message over; wait for it. TimeoutError after `timeout` seconds, ConsumerFailed."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            delivery = self.mailbox.wait(None if end is None else end - monotonic(), self._may)
            if delivery is None:
                raise TimeoutError
            if delivery.feed.channel.deliver(delivery):
                return

    def register_with_event_loop(self, _: Any, loop: Any) -> None:
        """Watch the mailbox by kombu's event loop."""
        loop.add_reader(self.mailbox.fd, self.on_readable)
        self.mailbox.ring()

    def unregister_from_event_loop(self, _: Any, loop: Any) -> None:
        """Watch it no more."""
        loop.remove_reader(self.mailbox.fd)

    def on_readable(self) -> None:
        """Hand over what there is."""
        self.mailbox.silence()
        try:
            while (delivery := self.mailbox.take(self._may)) is not None:
                delivery.feed.channel.deliver(delivery)
        except BaseException:
            self.mailbox.ring()  # there may be more
            raise

    def _may(self, feed: Feed) -> bool:
        return bool(feed.channel.qos.can_consume())

    # -- the end

    def close_connection(self, connection: Any) -> None:
        """Give back what was not answered, and close."""
        super().close_connection(connection)
        self.mailbox.close()
        if self._producer is not None:
            self._producer.close()


def _addresses(client: Any) -> list[str]:
    """The nsqds of a kombu connection's URL, or URLs."""
    urls = [parse_url(url) for url in client.alt] or [{"hostname": client.hostname, "port": client.port}]
    found = []
    for url in urls:
        host = url["hostname"]
        if host:
            found.append(
                f"[{host}]:{url['port'] or PORT}" if ":" in host else f"{host}:{url['port'] or PORT}"
            )
    if not found and not client.transport_options.get("lookupd"):
        found.append(f"localhost:{PORT}")
    return found


def _check(options: dict[str, Any]) -> None:
    """OptionError for an option that nobody knows, or that is not for the user."""
    known = {field.name for kind in (ProducerOptions, ConsumerOptions) for field in dataclasses.fields(kind)}
    if unknown := sorted(options.keys() - known - _OPTIONS - _OF_KOMBU):
        raise OptionError(f"broker_transport_options has {', '.join(unknown)}, which nsqkit does not know")
    if "max_in_flight" in options:
        raise OptionError("max_in_flight is what Celery prefetches: set worker_prefetch_multiplier instead")


def _of(kind: type[ConnectionOptions], options: dict[str, Any]) -> dict[str, Any]:
    """Those of the transport's options that the client has by these names."""
    known = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in options.items() if name in known}


def _tls(ssl: Any) -> dict[str, Any]:
    """`broker_use_ssl` in the client's words. OptionError."""
    if not ssl:
        return {}
    words = cast("dict[str, Any]", ssl) if isinstance(ssl, dict) else {}
    if unknown := sorted(words.keys() - _TLS.keys()):
        raise OptionError(
            f"broker_use_ssl has {', '.join(unknown)}, and may have {', '.join(_TLS)};"
            " the others are the client's tls_ options, in broker_transport_options"
        )
    return {"tls_v1": True, **{_TLS[word]: value for word, value in words.items()}}


def _seconds(name: str, value: Any) -> float:
    try:
        return Duration.of(value).seconds
    except ValueError as reason:
        raise OptionError(f"{name}: {reason}") from None
