"""pynsq as it comes from PyPI, publishing and consuming while nsqd is killed and restarted.

The client runs as a program of its own (this file), which prints a line for every thousand messages it has seen,
and a JSON object at the end. NSQKIT_PYNSQ_MESSAGES is the number of messages.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import pytest

MESSAGES = int(os.environ.get("NSQKIT_PYNSQ_MESSAGES", "100000"))
TOPIC: Final = "pynsq"
BATCH: Final = 50  # every second publish is an MPUB of so many, the others are so many PUBs
AHEAD: Final = 40  # publishes that may be unanswered
PAUSE_S: Final = 0.005  # time between two looks at what may be published
MSG_TIMEOUT_S: Final = 1
IN_FRONT: Final = 10_000  # messages that the writer may be ahead of the readers


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_with_pynsq(launch):
    """Requeued, timed out, finished too late, cut off, killed and restarted in between: every message arrives."""
    pytest.importorskip("nsq")
    nsqd = launch("--mem-queue-size=5000")
    arguments = [sys.executable, __file__, f"127.0.0.1:{nsqd.address[1]}", str(MESSAGES)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        try:
            last_line = follow(client.stdout, nsqd)
            assert client.wait() == 0
        finally:
            client.kill()

    counts = json.loads(last_line)
    print(counts)
    assert counts.pop("seen") == MESSAGES
    assert set(counts) == {"requeued", "unanswered", "late", "redelivered", "published again"}
    assert nsqd.consumer(TOPIC, "ch").silent(0.5)


def follow(lines: Iterable[str], nsqd: Any) -> str:
    """Kill nsqd when the client has seen a third, restart it properly at two thirds; the client's last line."""
    events = [(MESSAGES * 2 // 3, nsqd.stop), (MESSAGES // 3, nsqd.kill)]
    for line in lines:
        if events and line.strip().isdigit() and int(line) >= events[-1][0]:
            _, end = events.pop()
            end()
            nsqd.start()
    return line


# -- the client: everything below runs in its own process


class Player:
    """Publishes numbers from 0 on until each got its OK, and consumes until it has seen all of them."""

    def __init__(self, address: str, messages: int) -> None:
        import nsq
        import tornado.ioloop

        self.loop = tornado.ioloop.IOLoop.current()
        self.error = nsq.Error
        self.messages = messages
        self.counts: Counter[str] = Counter()
        self.seen = bytearray(messages)
        self.missing = messages
        self.failed: list[
            list[bytes]
        ] = []  # to be published again, but not in this pass: it may fail at once
        self.waiting: list[list[bytes]] = []  # to be published again
        self.next = 0
        self.open = 0
        self.writer = nsq.Writer([address], reconnect_interval=0.2)
        self.readers = [
            nsq.Reader(
                topic=TOPIC,
                channel="ch",
                message_handler=self.handle,
                nsqd_tcp_addresses=[address],
                max_in_flight=500,
                max_tries=0,
                msg_timeout=MSG_TIMEOUT_S,
            )
            for _ in range(2)
        ]
        self.loop.call_later(PAUSE_S, self.publish)

    # -- publishing

    def publish(self) -> None:
        """Have AHEAD publishes under way, as far as there is a connection and the readers are not too far behind."""
        self.waiting, self.failed = self.waiting + self.failed, []
        while self.open < AHEAD and self.writer.conns and (self.waiting or self.may_go_on()):
            bodies = self.waiting.pop() if self.waiting else self.fresh()
            if len(bodies) > 1 and self.next // BATCH % 2:
                self.send(bodies)
            else:
                for body in bodies:
                    self.send([body])
        if self.missing:
            self.loop.call_later(PAUSE_S, self.publish)

    def may_go_on(self) -> bool:
        """May more be published than before?"""
        return self.next < min(self.messages, self.messages - self.missing + IN_FRONT)

    def send(self, bodies: list[bytes]) -> None:
        """MPUB, or PUB if there is only one."""
        is_open = True
        self.open += 1

        def answered(_: object, data: object) -> None:
            nonlocal is_open
            if not is_open:
                return  # pynsq reports a connection that breaks twice
            is_open = False
            self.open -= 1
            if data != b"OK":
                assert isinstance(data, self.error), data
                self.counts["published again"] += len(bodies)
                self.failed.append(bodies)

        if len(bodies) > 1:
            self.writer.mpub(TOPIC, bodies, callback=answered)
        else:
            self.writer.pub(TOPIC, bodies[0], callback=answered)

    def fresh(self) -> list[bytes]:
        """The next numbers."""
        first, self.next = self.next, min(self.next + BATCH, self.messages)
        return [b"%d" % number for number in range(first, self.next)]

    # -- consuming

    def handle(self, message: Any) -> bool:
        """See a message; some are given back, some left to their timeout, some answered when it is too late."""
        number = int(message.body)
        if message.attempts > 1:
            self.counts["redelivered"] += 1
        elif number % 100 == 7:
            self.counts["requeued"] += 1
            message.enable_async()
            message.requeue(backoff=False, delay=number % 2)
            return False
        elif number % 500 == 11:
            self.counts["unanswered"] += 1
            message.enable_async()
            return False
        elif number % 500 == 13:
            self.counts["late"] += 1
            message.enable_async()
            self.loop.call_later(MSG_TIMEOUT_S * 1.5, message.finish)
            self.see(number)  # now: the late FIN may hit the second delivery, on its way to this connection
            return False
        self.see(number)
        return True

    def see(self, number: int) -> None:
        """Note that a message arrived."""
        if not self.seen[number]:
            self.seen[number] = 1
            self.missing -= 1
            if self.missing % 1000 == 0:
                print(self.messages - self.missing, flush=True)
        if self.missing == 0:
            self.loop.call_later(MSG_TIMEOUT_S * 2, self.loop.stop)


def main(address: str, messages: int) -> None:
    """Play, and print what happened."""
    player = Player(address, messages)
    player.loop.start()
    print(json.dumps({"seen": sum(player.seen), **player.counts}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
