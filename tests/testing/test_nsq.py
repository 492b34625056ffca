import asyncio
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import uvloop

from nsqkit import ConsumerState, NotSent, OutcomeUnknown, Refused
from nsqkit.errors import OptionError, StartError
from nsqkit.testing import ChannelView, NotDrained, Nsq, TooMuchPublished
from tests.testing.scene import in_nsq, received


@in_nsq()
async def test_what_is_published_is_there_to_be_looked_at(nsq):
    """Whoever published it, and by whatever way: over TCP, one or many, deferred or not, over HTTP, or embedded."""
    async with nsq.producer() as producer:
        await producer.publish("orders", b"one")
        await producer.publish_many("orders", [b"two", b"three"])
        await producer.publish("orders", b"four", delay=60)
    await asyncio.to_thread(
        urllib.request.urlopen, f"http://{nsq.http_address}/pub?topic=orders", b"five", timeout=10
    )
    await nsq.nsqd.publish("orders", b"six")

    assert [b"one", b"two", b"three", b"four", b"five", b"six"] == nsq.topic("orders").published
    assert [] == nsq.topic("others").published


@in_nsq(keep=20)
async def test_only_so_much_is_kept_to_be_looked_at(nsq):
    """What was published is kept up to `keep` bytes, sizes included; beyond it, looking is an error that says so."""
    async with nsq.producer() as producer:
        await producer.publish("orders", b"0123456789012345")
        assert [b"0123456789012345"] == nsq.topic("orders").published

        await producer.publish("orders", b"x")

        with pytest.raises(TooMuchPublished, match=r"25 bytes were published, and only 20 are kept"):
            nsq.topic("orders").published  # noqa: B018 - it is a property


@in_nsq()
async def test_a_topic_and_its_channels(nsq):
    """A look at a channel tells what it holds; one that is not there is an error that names those that are."""
    topic = nsq.topic("orders")
    assert ([], 0) == (topic.channels, topic.depth)
    with pytest.raises(LookupError, match="there is no topic orders, only \\[\\]"):
        topic.channel("billing")

    async with nsq.producer() as producer:
        await producer.publish_many("orders", [b"one", b"two", b"three"])
        await producer.publish("orders", b"later", delay=60)
    await nsq.advance(0)
    assert 4 == topic.depth
    async with nsq.consumer("orders", "billing", max_in_flight=2) as consumer:
        first = await consumer.get()
        await consumer.get()
        first.finish()
        await nsq.advance(0)

        assert ChannelView(0, 2, 1, consumers=1, finished=1, requeued=0, timed_out=0) == topic.channel(
            "billing"
        )
        assert 3 == topic.channel("billing").left
        assert (["billing"], 0) == (topic.channels, topic.depth)
        with pytest.raises(LookupError, match="topic orders has no channel archive, only \\['billing'\\]"):
            topic.channel("archive")


@in_nsq()
async def test_drained_waits_until_everything_is_finished(nsq):
    """It returns when the channel has finished everything, also what was deferred or waited for its first consumer."""
    done = []

    async def handle(message):
        await asyncio.sleep(0.001)
        done.append(message.body)

    async with nsq.producer() as producer:
        await producer.publish_many("orders", [b"%d" % number for number in range(50)])
    waiting = asyncio.ensure_future(nsq.drained("orders", "billing"))
    await nsq.advance(0)
    assert not waiting.done()

    async with nsq.consumer("orders", "billing", handler=handle, concurrency=5):
        await waiting
        assert 50 == len(set(done))
        assert 50 == nsq.topic("orders").channel("billing").finished


@in_nsq()
async def test_not_drained_says_what_is_left(nsq):
    """The error names what is missing, or how much is where."""
    with pytest.raises(NotDrained, match="orders/billing was not drained in 0 s: there is no such topic"):
        await nsq.drained("orders", "billing", timeout=0)
    async with nsq.producer() as producer, nsq.consumer("orders", "archive", max_in_flight=1) as consumer:
        await consumer.wait_for(ConsumerState.CONSUMING)
        with pytest.raises(NotDrained, match=r"no such channel, only \['archive'\]"):
            await nsq.drained("orders", "billing", timeout=0.01)
        await producer.publish_many("orders", [b"one", b"two"])
        await producer.publish("orders", b"later", delay="1h")
        await consumer.get()

        with pytest.raises(
            AssertionError,
            match="1 waiting for one of 1 consumers; 1 in flight; 1 deferred, so `await nsq.adv",
        ):
            await nsq.drained("orders", "archive", timeout=0.01)


@in_nsq()
async def test_all_connections_are_cut(nsq):
    """`disconnect_all` cuts producers and consumers at once; they come back, and what was in flight comes again."""
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one")
        assert 1 == (await consumer.get()).attempts

        nsq.disconnect_all()

        assert ConsumerState.CONNECTING == await consumer.wait_for(ConsumerState.CONNECTING)
        await nsq.advance(70)
        assert ConsumerState.CONSUMING == await consumer.wait_for(ConsumerState.CONSUMING)
        again = await consumer.get()
        assert (b"one", 2) == (again.body, again.attempts)
        await again.finish()
        await producer.publish("orders", b"two")


def _publishing(command):
    async def publish(producer):
        if command == "MPUB":
            await producer.publish_many("orders", [b"one", b"two"])
        else:
            await producer.publish("orders", b"one", delay=60 if command == "DPUB" else 0)

    return publish


@pytest.mark.parametrize("command", ["PUB", "MPUB", "DPUB"])
def test_a_publish_fails_as_often_as_it_is_to(command):
    """The client is answered E_<command>_FAILED, nothing is published, and after that all is well again."""
    publish = _publishing(command)

    @in_nsq()
    async def scene(nsq):
        async with nsq.producer() as producer:
            nsq.fail_next(command, times=2)
            for _ in range(2):
                with pytest.raises(Refused, match="because the test wants it") as refusal:
                    await publish(producer)
                assert f"E_{command}_FAILED" == refusal.value.code
                assert [] == nsq.topic("orders").published
                await nsq.advance(1)  # the connection is made again
            await publish(producer)
            assert nsq.topic("orders").published

    scene()


@in_nsq()
async def test_failing_is_taken_back(nsq):
    """fail_next with 0 times makes a command succeed again."""
    nsq.fail_next("PUB")
    nsq.fail_next("PUB", times=0)

    async with nsq.producer() as producer:
        await producer.publish("orders", b"one")

    assert [b"one"] == nsq.topic("orders").published


@in_nsq()
async def test_a_subscription_or_handshake_fails(nsq):
    """SUB and IDENTIFY are refused once; a consumer that has consumed before tries again, and succeeds."""
    async with nsq.consumer("orders", "billing") as consumer:
        await consumer.wait_for(ConsumerState.CONSUMING)
        for command, code in (("SUB", "E_SUB_FAILED"), ("IDENTIFY", "E_IDENTIFY_FAILED")):
            nsq.fail_next(command)
            nsq.disconnect_all()
            await consumer.wait_for(ConsumerState.CONNECTING)
            while not consumer.stats().failures:
                await nsq.advance(0.1)

            assert [f"it answered {code} {command} failed because the test wants it (fail_next)"] == list(
                consumer.stats().failures.values()
            )
            await nsq.advance(60)
            assert ConsumerState.CONSUMING == consumer.state


@in_nsq()
async def test_auth_fails(nsq):
    """AUTH is refused, whether there is an auth server or not."""
    nsq.fail_next("AUTH")

    assert b"E_AUTH_FAILED AUTH failed because the test wants it (fail_next)" == await _last_words(
        nsq, b"  V2AUTH\n" + struct.pack(">i", 1) + b"x"
    )


async def _last_words(nsq, sent):
    """What a client that sends this is told before nsqd hangs up."""
    reader, writer = await asyncio.open_connection(*nsq.tcp_address.split(":"))
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer[8:]


@in_nsq()
async def test_what_can_not_fail(nsq):
    """Other commands, and a negative number of times, are errors of the test."""
    with pytest.raises(
        ValueError, match="'FIN' can't be made to fail, only PUB, MPUB, DPUB, SUB, IDENTIFY, AUTH"
    ):
        nsq.fail_next("FIN")
    with pytest.raises(ValueError, match="times is -1"):
        nsq.fail_next("PUB", -1)


@in_nsq()
async def test_killed_and_started_again(nsq):
    """After a kill the same addresses serve the same data: nothing is lost, and what was in flight comes again."""
    places = (nsq.tcp_address, nsq.http_address)
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one")
        assert 1 == (await consumer.get()).attempts

        await nsq.kill()
        assert ConsumerState.CONNECTING == await consumer.wait_for(ConsumerState.CONNECTING)
        with pytest.raises((NotSent, OutcomeUnknown)):
            async with nsq.producer(send_timeout=0.05) as another:
                await another.publish("orders", b"lost")
        await nsq.kill()  # does nothing
        await nsq.advance(3600)  # without nsqd
        await nsq.start_again()

        assert places == (nsq.tcp_address, nsq.http_address)
        await nsq.advance(60)
        again = await consumer.get()
        assert (b"one") == again.body
        await again.finish()
        await producer.publish("orders", b"two")
        assert [b"one", b"two"] == nsq.topic("orders").published


@in_nsq()
async def test_a_kill_writes_nothing_down(nsq):
    """What was finished since the last checkpoint comes again after a kill, and does not after a usual restart."""
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one")
        await (await consumer.get()).finish()
        await nsq.drained("orders", "billing")
    await nsq.kill()
    await nsq.start_again()
    assert 1 == nsq.topic("orders").channel("billing").depth

    async with nsq.consumer("orders", "billing") as consumer:
        await (await consumer.get()).finish()
        await nsq.drained("orders", "billing")
    await nsq.start_again()

    assert 0 == nsq.topic("orders").channel("billing").depth


@in_nsq()
async def test_consumers_find_it_by_its_nsqlookupd(nsq):
    """nsqd has announced itself when the start is over, so discovery finds a topic that is there."""
    from nsqkit import Consumer

    async with nsq.producer() as producer:
        await producer.publish("orders", b"one")
    async with Consumer("orders", "billing", lookupd=nsq.lookupd_http_address) as consumer:
        message = await received(consumer)

        assert (b"one", nsq.tcp_address) == (message.body, message.nsqd)
        await message.finish()


@in_nsq()
async def test_clients_elsewhere_can_join(nsq):
    """A client of another thread or process uses the addresses as it would those of any nsqd."""

    def work():
        host, port = nsq.tcp_address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"  V2PUB orders\n" + struct.pack(">i", 13) + b"from a thread")
            assert b"\0\0\0\x06\0\0\0\0OK" == client.recv(100)

    await asyncio.to_thread(work)

    assert [b"from a thread"] == nsq.topic("orders").published


def test_two_of_them_share_the_time_of_their_loop():
    """Two nsqds in one loop are independent, and one clock moves both."""

    async def scene():
        async with Nsq() as one, Nsq() as other, other.consumer("orders", "billing") as consumer:
            await one.nsqd.publish("orders", b"one")
            await other.nsqd.publish("orders", b"other", delay=60)
            await one.advance(60)

            message = await received(consumer)
            assert b"other" == message.body
            await message.finish()
            assert [b"one"] == one.topic("orders").published
            assert [b"other"] == other.topic("orders").published

    asyncio.run(scene())


def test_a_loop_has_its_own_clock_again():
    """When the last one is gone, clients of the loop go by real time."""
    from nsqkit.client.clock import clock_of
    from nsqkit.testing.virtual_time import VirtualTime

    async def scene():
        loop = asyncio.get_running_loop()
        async with Nsq():
            assert isinstance(clock_of(loop), VirtualTime)
        assert not isinstance(clock_of(loop), VirtualTime)

    asyncio.run(scene())


def test_options_are_those_of_nsqd(tmp_path):
    """Keywords are nsqd's options; a data path that is given stays, and can be used again."""

    async def scene():
        async with Nsq(data_path=str(tmp_path), max_msg_size=10) as nsq:
            await nsq.nsqd.publish("orders", b"0123456789")
            assert b"E_BAD_MESSAGE PUB message too big 11 > 10" == await _last_words(
                nsq, b"  V2PUB orders\n" + struct.pack(">i", 11) + b"0123456789X"
            )
        async with Nsq(data_path=str(tmp_path)) as nsq:
            assert 1 == nsq.topic("orders").depth

    asyncio.run(scene())


def test_a_start_that_fails_leaves_nothing(tmp_path):
    """An option that makes no sense, or an address in use, is an error; nothing of it stays."""
    from nsqkit.client.clock import clock_of
    from nsqkit.testing.virtual_time import VirtualTime

    async def scene():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(StartError, match="failed - [Aa]ddress already in use"):
                await Nsq(tcp_address=address).start()
        with pytest.raises((OptionError, TypeError)):
            await Nsq(no_such_option=1).start()
        assert not isinstance(clock_of(asyncio.get_running_loop()), VirtualTime)

    asyncio.run(scene())


def test_what_was_not_started_is_stopped_already():
    """Whoever cleans up need not know."""
    asyncio.run(Nsq().stop())


def test_without_asyncio_it_does_not_start():
    """Elsewhere than in a loop of asyncio the error says so."""
    with pytest.raises(StartError, match="works in an asyncio event loop only"):
        Nsq().start().send(None)


def test_the_first_start_loads_nothing():
    """Whoever imports `Nsq` has loaded all of nsqkit that a start needs, so the first one does not take longer."""
    program = """
import asyncio, sys
from nsqkit.testing import Nsq
Nsq()
before = set(sys.modules)
async def scene():
    async with Nsq():
        pass
asyncio.run(scene())
print(*sorted(name for name in set(sys.modules) - before if name.startswith("nsqkit")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == ""


def test_the_loop_may_be_that_of_uvloop():
    """Time is moved there likewise."""

    async def scene():
        async with asyncio.timeout(30), Nsq() as nsq, nsq.consumer("orders", "billing") as consumer:
            await nsq.nsqd.publish("orders", b"one", delay=3600)
            await nsq.advance(3600)
            await (await received(consumer)).finish()
            await nsq.drained("orders", "billing")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


def test_the_directory_goes_away():
    """What was written is removed at the end; a second stop does nothing."""

    async def scene():
        nsq = Nsq()
        async with nsq:
            await nsq.nsqd.publish("orders", b"one")
            path = nsq.nsqd.data_path
            assert nsq.nsqd.broker.topics
        await nsq.stop()
        return path

    assert not Path(asyncio.run(scene())).exists()
