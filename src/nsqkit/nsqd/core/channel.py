"""A channel: its own copy of the topic's messages, shared out among its consumers.

    put -> ready queue -> willing consumers -> in flight -> finished
              ^   ^______________________________|  |  timeout, REQ 0
              |____________ deferred <______________|  REQ > 0, DPUB

Invariant: every message that entered is exactly one of finished, ready, in flight, deferred, emptied, sampled out,
merged (a second copy), dropped (ephemeral only) or lost (a damaged log, reported). `check` asserts it.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, cast

from mypy_extensions import i64

from nsqkit.names import is_ephemeral
from nsqkit.nsqd.core.deadlines import Alarm
from nsqkit.nsqd.core.health import READING
from nsqkit.nsqd.core.histogram import Latencies
from nsqkit.nsqd.core.queue import ReadyQueue
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.core.subscriber import OUTPUT_LIMIT
from nsqkit.wire.errors import FinishFailed, RequeueFailed, SubscribeFailed, TouchFailed
from nsqkit.wire.message import NOWHERE, write_message

if TYPE_CHECKING:
    from nsqkit.nsqd.core.batch import Batch
    from nsqkit.nsqd.core.owed import Owed
    from nsqkit.nsqd.core.quantile import LatencyWindow
    from nsqkit.nsqd.core.subscriber import Subscriber
    from nsqkit.nsqd.core.topic import Topic
    from nsqkit.wire.message import Message

CHUNK: Final = 32  # messages that one consumer is sent before it is the next one's turn
KIB_BITS: Final = 10  # a KiB sent counts for as much as a message
READ_COST: Final = 100  # what a read of the log counts for, in messages sent
LARGE: Final = 512  # bytes above which a body in the log is not kept in memory while it is in flight
FEW: Final = 64  # consumers that are asked one by one whether a message is theirs
RETRY: Final = 1_000_000_000  # ns until a log that could not be read is tried again

_NOT_IN_FLIGHT: Final = "ID not in flight"
_NOT_OWNER: Final = "client does not own message"


class Channel(Alarm):
    """One channel of one topic. As an alarm it rings when the next deferred message is due."""

    def __init__(self, topic: Topic, name: str, latency: LatencyWindow | None) -> None:
        super().__init__()
        self.topic = topic
        self.broker = topic.broker
        self.name = name
        self.ephemeral = is_ephemeral(name)
        self.paused = False
        self.deleted = False
        self.made: i64 = 0  # number of the change that it began with; if it is ephemeral, of its topic's
        self.awaits_dispatch = False  # stands in the broker's list of channels to dispatch
        self.read_error = ""  # why the log could not be read when it was last tried
        keeps = topic.store is not None and not self.ephemeral
        self.queue = ReadyQueue(
            self.broker.settings.mem_queue_size,
            topic.store,
            self.broker.held,
            self.broker.calendar,
            keeps=keeps,
        )
        self.subscribers: list[Subscriber] = []
        self.departed: list[Subscriber] = []  # gone, but with messages in flight
        self._owners: dict[bytes, Subscriber] | None = None  # who was sent what, see `_owner`
        # Consumers with room, whose turn comes in this order; those who are near are in a line of their own.
        lines = 3 if self.broker.settings.prefer_near else 1
        self.willing: list[deque[Subscriber]] = [deque() for _ in range(lines)]
        self.sent_counts: list[i64] = [0, 0, 0]  # by distance
        self.deferred: list[tuple[int, int, Message]] = []  # heap by due time
        self.early: deque[Batch] = deque()  # not due yet, to be taken apart into `deferred`
        self.early_count: i64 = 0  # messages in it
        self._serial = 0  # even; one more for what goes by the calendar
        self.latency = latency
        self.latencies = Latencies()
        self.in_flight_count: i64 = 0
        self.entered_count: i64 = 0  # messages put here, or restored at the start
        self.message_count: i64 = 0  # messages put here since the start
        self.finished_count: i64 = 0
        self.emptied_count: i64 = 0
        self.sampled_count: i64 = 0  # taken from the queue and not sent, as a sample rate wants it
        self.merged_count: i64 = 0  # second copies, after a crash, of messages that are in flight
        self.requeue_count: i64 = 0
        self.timeout_count: i64 = 0

    # -- what comes in

    def has_room(self, batch: Batch, now: i64) -> bool:
        """Would the batch stay in memory? Otherwise it needs its positions in the log before `put`."""
        queue = self.queue
        if not queue.keeps:
            return True
        if self.is_early(batch, now):
            return self.deferred_count() + batch.count <= queue.limit and not self.broker.held.full()
        return queue.has_room(batch.count)

    def put(self, batch: Batch, now: i64) -> None:
        """Take a copy of a publish."""
        self.message_count += batch.count
        self.entered_count += batch.count
        if not self.is_early(batch, now):
            self.queue.put(batch)
            self.want_dispatch()
        elif self.early or batch.count > FEW:
            self.early.append(batch)
            self.early_count += batch.count
            self.broker.held.add(batch)
            self.broker.deadlines.set(self, self.broker.deadlines.now)
        else:
            self.defer_batch(batch)

    def put_extent(self, start: i64, stop: i64, since: i64) -> None:
        """Take over what the log holds at [start, stop), published since then."""
        self.entered_count += stop - start
        self.queue.put_extent(start, stop, since)
        self.want_dispatch()

    def is_early(self, batch: Batch, now: i64) -> bool:
        """Is the batch not due yet?"""
        return self.broker.calendar.due(batch) > now

    def deferred_count(self) -> i64:
        """Messages that wait for their time."""
        count: i64 = len(self.deferred)
        return count + self.early_count

    def defer_batch(self, batch: Batch) -> None:
        """Hold each message of the batch back until it is due."""
        calendar = self.broker.calendar
        due = calendar.due(batch)
        by_calendar = calendar.is_old(batch.first_id)
        offset: i64 = 0
        for index in range(batch.count):
            message = batch.message(index, offset)
            size: i64 = len(message.body)
            offset += 4 + size
            self.defer(message, due, by_calendar=by_calendar)

    def defer(self, message: Message, due: i64, *, by_calendar: bool = False) -> None:
        """Hold a message back until `due`, which follows the calendar if it is from before the start."""
        message.deadline = due
        if message.position != NOWHERE and self.queue.store is not None:  # the log has its body
            message.body = b""
            message.loaded = False
        self.broker.held.add_message(message)
        self._serial += 2
        heappush(self.deferred, (int(due), self._serial + by_calendar, message))
        self.broker.deadlines.set(self, due)

    def follow_calendar(self, step: i64) -> None:
        """The calendar was set by `step`: what was deferred before the restart goes by it, the rest stays."""
        if not any([serial % 2 for _, serial, _ in self.deferred]):
            return
        moved: list[tuple[int, int, Message]] = []
        for due, serial, message in self.deferred:
            message.deadline = due - int(step) if serial % 2 else due
            moved.append((int(message.deadline), serial, message))
        heapify(moved)
        self.deferred = moved
        self.broker.deadlines.set(self, max(moved[0][0], 1))

    def ring(self, now: i64) -> i64:
        """Deferred messages that are due become ready. What came deferred in bulk is taken apart, a batch at a time."""
        heap = self.deferred
        deadlines = self.broker.deadlines
        while self.early and deadlines.left > 0:
            batch = self.early.popleft()
            deadlines.left -= batch.count
            self.early_count -= batch.count
            self.defer_batch(batch)
            self.broker.held.remove(batch)
        while heap and heap[0][0] <= now and deadlines.left > 0:
            deadlines.left -= 1
            message = heappop(heap)[2]
            self.broker.held.remove_message(message)
            self.queue.put_again(message)
        self.topic.note_change()
        self.want_dispatch()
        if self.read_error:
            self._refill(now)
        if self.early:
            return now
        return heap[0][0] if heap else 0

    # -- what goes out

    def want_dispatch(self) -> None:
        """Ask for a dispatch at the end of this turn."""
        if not self.awaits_dispatch:
            self.awaits_dispatch = True
            self.broker.to_dispatch.append(self)

    def dispatch(self, now: i64) -> None:
        """Send what is ready to who is ready, in small chunks, round robin."""
        self.awaits_dispatch = False
        if not self.paused and not self.deleted:
            for line in self.willing:
                if not self._share_out(line, now):
                    break
        self.queue.trim()

    def _share_out(self, willing: deque[Subscriber], now: i64) -> bool:
        """Give each consumer in a line its share, round by round: equal parts of what is ready, CHUNK at most.

        True: none of them is willing any more.
        """
        queue = self.queue
        broker = self.broker
        share: i64 = 0
        left: i64 = 0  # consumers whose turn is still to come in this round
        while willing and queue.memory_count + queue.stored_count > 0:
            if broker.left <= 0:
                self.want_dispatch()  # the next turn goes on; others come in between
                return False
            if left == 0:
                left = len(willing)
                share = (queue.memory_count + queue.stored_count + left - 1) // left
                if share > CHUNK:
                    share = CHUNK
            left -= 1
            broker.left -= 1
            subscriber = willing.popleft()
            subscriber.listed = False
            room = subscriber.room()
            if room > 0:
                readable = self._serve(subscriber, room if room < share else share, now)
                if subscriber.room() > 0:
                    subscriber.listed = True
                    willing.append(subscriber)
                if not readable:
                    return False
        return not willing

    def _serve(self, subscriber: Subscriber, room: i64, now: i64) -> bool:
        """Send up to `room` messages. False: the log can't be read now."""
        queue = self.queue
        broker = self.broker
        session = subscriber.session
        assert session is not None  # it has room
        out = session.out
        owners = self._owners
        in_flight = subscriber.in_flight
        deadline: i64 = now + subscriber.msg_timeout
        flying: i64 = len(in_flight)
        before: i64 = len(out)
        sent: i64 = 0
        readable = True
        crowded = broker.held.full()
        while sent < room and len(out) < OUTPUT_LIMIT:
            message = queue.take()
            if message is None:
                if queue.stored_count == 0:
                    break
                readable = self._refill(now)
                if not readable:
                    break
                continue
            if subscriber.sample_rate and self._sampled_out(subscriber.sample_rate):
                continue
            message.attempts += 1
            message.delivered_at = now
            message.deadline = deadline
            in_flight[message.id] = message
            write_message(out, message)
            if message.position != NOWHERE and (crowded or len(message.body) > LARGE):
                message.body = b""
                message.loaded = False
            if owners is not None:
                owners[message.id] = subscriber
            sent += 1
        if sent:
            flying_now: i64 = len(in_flight)
            self.in_flight_count += flying_now - flying
            self.merged_count += sent - (flying_now - flying)
            subscriber.message_count += sent
            self.sent_counts[subscriber.distance] += sent
            session.has_output()
            self.topic.note_change()
            grown: i64 = len(out) - before
            broker.left -= sent + (grown >> KIB_BITS)
            if owners is not None and len(owners) > 2 * (self.in_flight_count + CHUNK):
                self._owners = None
            if subscriber.rings_at == 0:
                broker.deadlines.set(subscriber, deadline)
        return readable

    def _refill(self, now: i64) -> bool:
        """Bring more into memory. False: the log can't be read now; everything stays there, to be tried again."""
        queue = self.queue
        reads = queue.read_count
        try:
            early = queue.refill(now)
        except StoreError as error:
            self.unreadable(str(error), now)
            return False
        finally:
            self.broker.left -= (queue.read_count - reads) * READ_COST
        if self.read_error:
            self.read_error = ""
            self.topic.reread()
        for batch in early:
            self.defer_batch(batch)
        return True

    def unreadable(self, error: str, now: i64) -> None:
        """The log could not be read: say so, and try again in a while, whether somebody consumes or not."""
        self.read_error = error
        self.broker.health.set(READING + self.topic.name, error)
        self.broker.deadlines.set(self, now + RETRY)

    def _sampled_out(self, rate: i64) -> bool:
        if self.broker.settings.random.randrange(100) <= rate:
            return False
        self.sampled_count += 1
        self.topic.note_change()
        return True

    # -- what consumers say

    def finish(self, subscriber: Subscriber, message_id: bytes, now: i64) -> None:
        """FIN: done with it. FinishFailed if it is not in flight to this consumer."""
        in_flight = subscriber.in_flight
        message = in_flight.get(message_id)
        if message is None:
            raise FinishFailed(f"FIN {self._why_not(message_id)}")
        del in_flight[message_id]
        self.in_flight_count -= 1
        self.finished_count += 1
        subscriber.finish_count += 1
        self.topic.note_change()
        age: i64 = now + self.broker.calendar.ahead - message.timestamp
        if self.latency is not None:
            self.latency.add(age, now)
        self.latencies.add(age, now - message.delivered_at)
        subscriber.wake()

    def requeue(self, subscriber: Subscriber, message_id: bytes, delay: i64, now: i64) -> None:
        """REQ: give it back, at once or after `delay` ns. RequeueFailed if it is not in flight to this consumer."""
        message = subscriber.in_flight.get(message_id)
        if message is None:
            raise RequeueFailed(f"REQ {self._why_not(message_id)}")
        del subscriber.in_flight[message_id]
        self.in_flight_count -= 1
        self.requeue_count += 1
        subscriber.requeue_count += 1
        self.topic.note_change()
        if delay > 0:
            self.defer(message, now + delay)
        else:
            self.queue.put_again(message)
        subscriber.wake()
        self.want_dispatch()

    def touch(self, subscriber: Subscriber, message_id: bytes, now: i64) -> None:
        """TOUCH: the timeout starts anew, up to max-msg-timeout after the delivery."""
        message = subscriber.in_flight.get(message_id)
        if message is None:
            raise TouchFailed(f"TOUCH {self._why_not(message_id)}")
        latest = message.delivered_at + self.broker.settings.limits.max_msg_timeout
        message.deadline = min(now + subscriber.msg_timeout, latest)

    def _why_not(self, message_id: bytes) -> str:
        found = False
        if len(self.subscribers) + len(self.departed) > FEW:
            found = self._owner(message_id) is not None
        else:
            for subscriber in self.subscribers + self.departed:
                found = found or message_id in subscriber.in_flight
        text = message_id.decode("utf-8", "surrogateescape")
        return f"{text} failed {_NOT_OWNER if found else _NOT_IN_FLIGHT}"

    def _owner(self, message_id: bytes) -> Subscriber | None:
        """Whose message it is, where many may have it.

        The first question has an index made, which deliveries keep up to date, and forget once it has grown by as
        much as it was worth. So no question costs more than the deliveries did, and who is not asked pays nothing.
        """
        owners = self._owners
        if owners is None:
            owners = self._owners = {}
            for subscriber in self.subscribers + self.departed:
                for flying_id in subscriber.in_flight:
                    owners[flying_id] = subscriber
        owner = owners.get(message_id)
        return owner if owner is not None and message_id in owner.in_flight else None

    def take_back(self, message: Message) -> None:
        """A message was not finished in time, or its consumer is gone: it becomes ready again."""
        self.in_flight_count -= 1
        self.topic.note_change()
        self.queue.put_again(message)
        self.want_dispatch()

    # -- consumers come and go

    def join(self, subscriber: Subscriber) -> None:
        """SUB. SubscribeFailed if the channel has as many consumers as it may have, or is going away."""
        most = self.broker.settings.max_channel_consumers
        if self.deleted:
            raise SubscribeFailed("SUB failed to deleted topic/channel")
        if most > 0 and len(self.subscribers) >= most:
            raise SubscribeFailed(
                f"SUB failed consumers for {self.topic.name}:{self.name} exceeds limit of {most}"
            )
        self.subscribers.append(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """The consumer is gone. Its messages wait for their timeouts, unless they are to be requeued at once."""
        if subscriber not in self.subscribers:
            return
        self.subscribers.remove(subscriber)
        subscriber.session = None
        subscriber.ready_count = 0
        if subscriber.listed:
            subscriber.listed = False
            subscriber.line.remove(subscriber)  # while nothing is published nobody else would take it out
        if subscriber.in_flight and not self.deleted:
            self.departed.append(subscriber)
            if self.broker.settings.requeue_on_disconnect:
                subscriber.returning = True
                self.broker.deadlines.set(subscriber, self.broker.deadlines.now)
        else:
            self.broker.deadlines.cancel(subscriber)
        if self.ephemeral and not self.subscribers and not self.deleted:
            self.topic.delete_channel(self.name)

    def forget_departed(self, subscriber: Subscriber) -> None:
        """Forget a consumer that is gone once nothing is in flight to it."""
        if not subscriber.in_flight and subscriber in self.departed:
            self.departed.remove(subscriber)
            self._owners = None  # it may name who is gone

    # -- what operators do

    def pause(self, paused: bool) -> None:
        """Stop or resume sending. Everything else goes on."""
        if self.paused != paused:
            self.paused = paused
            self.broker.metadata_changed(self.topic, self.name, self.ephemeral or self.topic.ephemeral)
            self.want_dispatch()

    def empty(self) -> None:
        """Drop everything: ready, in flight and deferred. A later FIN of such a message fails."""
        self.emptied_count += self.queue.depth() + self.in_flight_count + self.deferred_count()
        waste = self.broker.waste
        waste.take(self.queue.clear(), counted=True)
        waste.take(list[object](self.early), counted=True)
        waste.take(cast("list[object]", self.deferred), counted=True)
        self.early = deque()
        self.early_count = 0
        self.deferred = []
        self.in_flight_count = 0
        self._owners = None
        self.topic.note_change()
        for subscriber in self.subscribers + self.departed:
            waste.take(list[object](subscriber.in_flight.values()), counted=False)
            subscriber.in_flight = {}
            subscriber.wake()
        for subscriber in self.departed:
            self.broker.deadlines.cancel(subscriber)
        self.departed = []

    def delete(self) -> None:
        """Drop everything and hang up on the consumers. To be called by the topic, which forgets the channel."""
        self.deleted = True
        self.empty()
        self.broker.deadlines.cancel(self)
        for subscriber in self.subscribers:
            if subscriber.session is not None:
                subscriber.session.hang_up()

    # -- all of it

    def owed(self) -> Owed:
        """Everything that this channel owes now."""
        owed = self.queue.owed()
        for subscriber in self.subscribers + self.departed:
            owed.flying.extend(subscriber.in_flight.values())
        owed.early = list(self.early)
        owed.deferred = list(self.deferred)
        return owed

    def check(self) -> None:
        """Assert the invariant of the file's head, and that no position is in two places."""
        queue = self.queue
        owed = self.owed()
        assert self.in_flight_count == len(owed.flying)
        owed.check(f"{self.topic.name}:{self.name}")
        held = queue.depth() + self.in_flight_count + self.deferred_count()
        gone = self.finished_count + self.emptied_count + self.sampled_count + self.merged_count
        gone += queue.lost_count + queue.dropped_count
        assert self.entered_count == held + gone, f"{self.entered_count} in, {held} held, {gone} gone"
