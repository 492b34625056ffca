"""How much a queue has, and emptying it: what only nsqd's HTTP interface can tell and do."""

import http.client
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from nsqkit.client.addresses import addresses_of

TIMEOUT_S: Final = 5.0
_OK: Final = 200
_MISSING: Final = 404


class Management:
    """The nsqds at these HTTP addresses, host:port. Without any, a size is 0 and nothing can be emptied."""

    def __init__(self, addresses: str | Sequence[str], channel: str) -> None:
        self._addresses = addresses_of("nsqd_http", addresses)
        self._channel = channel

    def size(self, topic: str) -> int:
        """Messages that wait in the topic and its channel, in all nsqds. OSError."""
        found = 0
        query = urlencode({"format": "json", "topic": topic, "include_clients": "false"})
        for address in self._addresses:
            for one in json.loads(self._ask(address, "GET", f"/stats?{query}") or b"{}").get("topics") or ():
                channels: list[dict[str, Any]] = [
                    channel for channel in one["channels"] or () if channel["channel_name"] == self._channel
                ]
                found += one["depth"] + sum(
                    channel["depth"] + channel["deferred_count"] for channel in channels
                )
        return found

    def empty(self, topic: str) -> int:
        """Drop them; how many there were. OSError, NotImplementedError if no address is known."""
        if not self._addresses:
            raise NotImplementedError(
                "a queue is purged by HTTP: name nsqd's HTTP addresses, nsqd_http in broker_transport_options"
            )
        found = self.size(topic)
        names = {"topic": topic, "channel": self._channel}
        for address in self._addresses:
            self._ask(address, "POST", f"/topic/empty?{urlencode({'topic': topic})}")
            self._ask(address, "POST", f"/channel/empty?{urlencode(names)}")
        return found

    @staticmethod
    def _ask(address: str, method: str, target: str) -> bytes:
        """The answer's body; nothing if there is no such topic or channel."""
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
        try:
            connection.request(method, target)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status not in (_OK, _MISSING):
            raise OSError(f"nsqd {address} answered {answer.status} to {method} {target}")
        return body if answer.status == _OK else b""
