"""The broker's events as lines of the log, in NSQ's words and at NSQ's levels. What clients say is cut."""

from nsqkit.lines import cut
from nsqkit.log import Level, Log
from nsqkit.nsqd.core.events import Events
from nsqkit.nsqd.traffic import Traffic
from nsqkit.wire.identify import MS, Identity


class LoggedEvents(Events):
    """Writes a line for each event. Errors are counted as well."""

    def __init__(self, log: Log, traffic: Traffic) -> None:
        self._log = log
        self._traffic = traffic
        self.level_changed()

    def level_changed(self) -> None:
        """The log's level was set: commands are traced at debug only."""
        self.traced = self._log.enabled(Level.DEBUG)

    def client_came(self, address: str) -> None:
        """A client connected."""
        if self._log.enabled(Level.INFO):
            self._log.info(f"TCP: new client({address})", client=address)

    def client_identified(self, address: str, identity: Identity) -> None:
        """IDENTIFY was agreed on: with what, under the names that NSQ logs."""
        if not self._log.enabled(Level.INFO):
            return
        fields = {
            "ClientID": cut(identity.client_id),
            "Hostname": cut(identity.hostname),
            "HeartbeatInterval": identity.heartbeat_interval // MS,
            "OutputBufferSize": identity.output_buffer_size,
            "OutputBufferTimeout": identity.output_buffer_timeout // MS,
            "FeatureNegotiation": identity.negotiated,
            "TLSv1": identity.tls,
            "Deflate": identity.deflate,
            "DeflateLevel": identity.deflate_level,
            "Snappy": identity.snappy,
            "SampleRate": identity.sample_rate,
            "UserAgent": cut(identity.user_agent),
            "MsgTimeout": identity.msg_timeout // MS,
            "TopologyRegion": cut(identity.topology_region),
            "TopologyZone": cut(identity.topology_zone),
        }
        agreed = " ".join(
            f"{name}:{str(value).lower() if isinstance(value, bool) else value}"
            for name, value in fields.items()
        )
        self._log.info(f"[{address}] IDENTIFY: {{{agreed}}}", client=address, user_agent=identity.user_agent)

    def command_came(self, address: str, line: bytes) -> None:
        """A command's line."""
        text = cut(line.decode("utf-8", "backslashreplace"))
        self._log.debug(f"PROTOCOL(V2): [{address}] [{text}]", client=address)

    def client_failed(self, address: str, error: bytes) -> None:
        """An error frame. One kind: the same code to the same host."""
        text = error.decode("utf-8", "backslashreplace")
        code = text.partition(" ")[0]
        self._traffic.count_error(code)
        if self._log.enabled(Level.ERROR):
            self._complain(address, f"[{address}] - {cut(text)}", code)

    def client_dropped(self, address: str, reason: str) -> None:
        """A client is hung up on. One kind: the same host."""
        self._traffic.dropped += 1
        if self._log.enabled(Level.ERROR):
            self._complain(address, f"client({address}) - {cut(reason)}", "hung up on")

    def _complain(self, address: str, text: str, what: str) -> None:
        self._log.error(text, kind=f"client({address.rpartition(':')[0]}) - {what}", client=address)

    def client_left(self, address: str) -> None:
        """A connection is over."""
        if self._log.enabled(Level.INFO):
            self._log.info(f"PROTOCOL(V2): [{address}] exiting ioloop", client=address)

    def topic_made(self, topic: str) -> None:
        """A new topic, or one from before a restart."""
        if self._log.enabled(Level.INFO):
            self._log.info(f"TOPIC({topic}): created", topic=topic)

    def topic_deleted(self, topic: str) -> None:
        """A topic is gone."""
        if self._log.enabled(Level.INFO):
            self._log.info(f"TOPIC({topic}): deleting", topic=topic)

    def channel_made(self, topic: str, channel: str) -> None:
        """A new channel, or one from before a restart."""
        if self._log.enabled(Level.INFO):
            self._log.info(f"TOPIC({topic}): new channel({channel})", topic=topic, channel=channel)

    def channel_deleted(self, topic: str, channel: str) -> None:
        """A channel is gone."""
        if self._log.enabled(Level.INFO):
            self._log.info(f"TOPIC({topic}): deleting channel {channel}", topic=topic, channel=channel)
