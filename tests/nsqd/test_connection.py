"""A connection: between the transport and the session, with layers and the backlog."""

import gc

from nsqkit.nsqd.connection import Connection
from nsqkit.wire.frames import OK_FRAME
from tests.nsqd.fake_transport import PUB, World, passes, play, until


def test_what_is_left_waits_for_its_turn():
    """A large chunk is executed in several passes; nothing is read meanwhile, and then everything is answered."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 10_000)
        assert not world.transport.reading

        assert await until(lambda: world.transport.reading) > 5

        assert 10_000 == world.count()
        await passes()
        assert OK_FRAME * 10_000 == world.transport.sent

    play(scene, 1_000_000)


def test_a_small_chunk_is_executed_at_once():
    """Before the turn, and without a pause."""

    async def scene(world):
        (session,) = world.broker.sessions.values()
        world.connection.data_received(b"  V2" + b"NOP\n" * 5 + b"FROB\n")

        assert session.closed
        assert world.transport.reading

    play(scene)


def test_the_end_comes_after_what_was_sent_before():
    """A client that ends while its commands wait has them executed, and is then let go."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 1000 + b"PUB")
        assert world.connection.eof_received()
        assert world.count() < 1000

        await until(lambda: world.transport.ended)

        assert 1000 == world.count()

    play(scene, 1_000_000)


def test_a_client_that_is_gone_when_it_is_let_go_stops_nothing_else():
    """asyncio's own transport raises then; the rest of the turn is others'."""

    async def scene(world):
        def write_eof():
            raise OSError(107, "Transport endpoint is not connected")

        world.transport.write_eof = write_eof
        world.connection.data_received(b"  V2FROB\n")

        await until(lambda: world.transport.aborted)

    play(scene)


def test_what_comes_while_something_waits():
    """Bytes that arrive although nothing should be read are executed in order."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 1000 + PUB[:3])
        world.connection.data_received(PUB[3:] + b"FROB\n")

        await until(lambda: world.transport.ended)

        assert 1001 == world.count()
        assert world.transport.sent.endswith(b"E_INVALID invalid command FROB")

    play(scene, 1_000_000)


def test_a_transport_that_is_full_stops_execution():
    """While it holds too much nothing is executed; when it drained the rest is."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 10_000)
        world.connection.pause_writing()
        world.transport.size = 5_000_000
        await passes(50)
        assert world.count() < 10_000

        world.transport.size = 0
        world.connection.resume_writing()
        await until(lambda: world.transport.reading)

        assert 10_000 == world.count()

    play(scene, 1_000_000)


def test_a_connection_that_is_lost():
    """What waited is not executed any more."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 10_000)
        world.connection.connection_lost(None)
        await passes(10)

        assert 1 == world.count()
        assert world.turns.backlog.empty()

    play(scene, 1_000_000)


def test_a_connection_that_is_gone_is_freed_at_once():
    """Nothing of a connection is left in a cycle, so it does not wait for the garbage collector."""

    async def scene(world: World) -> None:
        world.connection.data_received(b"  V2SUB t ch\nRDY 1\n")
        await passes(3)
        world.connection.connection_lost(None)
        await passes(3)
        del world.transport
        gc.collect()
        others = sum(isinstance(one, Connection) for one in gc.get_objects()) - 1  # of other tests
        gc.disable()
        del world.connection
        left = sum(isinstance(one, Connection) for one in gc.get_objects())
        gc.enable()
        assert others == left

    play(scene)
