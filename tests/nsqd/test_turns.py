"""The broker's turn in the event loop."""

import asyncio

from nsqkit.clock import Clock
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.turns import Turns
from nsqkit.wire.frames import OK_FRAME


class Sent(Outlet):
    """What was sent."""

    def __init__(self):
        self.data = b""

    def send(self, data):
        """Keep it."""
        self.data += data


def test_answers_go_out_behind_the_metadata():
    """Who is told that a channel is there finds it after a kill."""
    sent_before = []

    async def turn():
        broker = Broker(Settings(), None)
        outlet = Sent()

        def persist():
            sent_before.append(outlet.data)
            broker.metadata_dirty = False

        turns = Turns(broker, Clock(lambda: 1, lambda: 1), persist, lambda: None)
        session = Session(broker, outlet, "10.0.0.1:4321", 1)
        session.receive(b"  V2SUB t c\n", 1)

        turns.run()
        turns.run()
        turns.stop()
        return outlet.data

    assert OK_FRAME == asyncio.run(turn())
    assert [b""] == sent_before
