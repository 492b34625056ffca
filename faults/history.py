"""A journal put together: what each publisher, consumer and message went through. `checker` judges it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from faults import facts
from faults.facts import FOREIGN, TOUCH

Key = tuple[str, int]
"""A message: its publisher and its serial."""


@dataclass
class Message:
    """One message as its publisher knows it."""

    sent_at: int
    topic: str
    due_at: int  # 0: at once
    life: int
    answer: str = ""
    answered_at: int = 0
    id: str = ""


@dataclass
class Consumer:
    """One connection of a consumer."""

    name: str
    where: str  # topic/channel
    life: int
    timeout_ns: int
    left_at: int = 0
    orders: list["Order"] = field(default_factory=list)  # what waits to be heard
    visits: dict[str, "Visit"] = field(default_factory=dict)  # the latest, by message id
    received: list[tuple[Key, "Visit"]] = field(default_factory=list)


@dataclass
class Visit:
    """One delivery to one consumer, and what became of it."""

    at: int
    consumer: Consumer
    attempts: int
    orders: list["Order"] = field(default_factory=list)  # FIN and REQ
    touched_at: int = 0  # last TOUCH that was executed

    @property
    def last(self) -> "Order | None":
        """What was said of it, unless that failed."""
        return next((order for order in reversed(self.orders) if not order.failed), None)


@dataclass
class Order:
    """What a consumer said of one message."""

    at: int
    verb: str
    id: str
    visit: Visit
    delay_ns: int
    token: int
    heard_at: int = 0
    failed: bool = False


class History:
    """Takes facts in order. `strange` is what can't be put together: kind and text."""

    def __init__(self, journal: Iterable[facts.AnyFact]) -> None:
        self.strange: list[tuple[str, str]] = []
        self.delivered = 0
        self.messages: dict[Key, Message] = {}  # in the order of publishing
        self.consumers: dict[str, Consumer] = {}
        self.visits: dict[str, defaultdict[Key, list[Visit]]] = {}  # by topic/channel
        self.ends: dict[int, tuple[str, int]] = {}  # by life: how, when
        self.lowest: dict[int, int] = {}  # by life: the least shift of the calendar while it lasted
        self.highest: dict[int, int] = {}  # and the greatest
        self.disturbances: list[facts.Disturbed] = []
        self.checkpoints: defaultdict[str, list[facts.Checkpointed]] = defaultdict(list)  # by topic
        self._commands: dict[Key, list[Message]] = {}
        self._life = 0
        self._shift_ns = 0
        for fact in journal:
            self._take(fact)

    def _take(self, fact: facts.AnyFact) -> None:
        match fact:
            case facts.Delivered():
                consumer = self.consumers[fact.consumer]
                for delivery in fact.messages:
                    self._deliver(fact.at, consumer, delivery)
            case facts.Said():
                self._say(fact)
            case facts.Heard():
                self._hear(fact)
            case facts.Failed():
                self._fail(fact)
            case facts.Published():
                self._publish(fact)
            case facts.Answered():
                for message in self._commands.pop((fact.publisher, fact.command)):
                    message.answer = fact.answer
                    message.answered_at = fact.at
            case facts.Joined():
                self._join(fact)
            case facts.Left():
                self.consumers[fact.consumer].left_at = fact.at
            case _:
                self._take_fault(fact)

    def _take_fault(self, fact: facts.AnyFact) -> None:
        match fact:
            case facts.Started():
                self._life = fact.life
                self.lowest[fact.life] = self.highest[fact.life] = self._shift_ns
            case facts.Ended():
                self.ends[fact.life] = (fact.how, fact.at)
            case facts.Jumped():
                self._shift_ns += fact.by_ns
                if self._life not in self.ends:
                    self.lowest[self._life] = min(self.lowest[self._life], self._shift_ns)
                    self.highest[self._life] = max(self.highest[self._life], self._shift_ns)
            case facts.Disturbed():
                self.disturbances.append(fact)
            case facts.Checkpointed():
                self.checkpoints[fact.topic].append(fact)

    def _publish(self, fact: facts.Published) -> None:
        due = fact.at + fact.delay_ms * 1_000_000 if fact.delay_ms else 0
        sent = [Message(fact.at, fact.topic, due, self._life) for _ in range(fact.count)]
        for number, message in enumerate(sent):
            self.messages[fact.publisher, fact.serial + number] = message
        self._commands[fact.publisher, fact.command] = sent

    def _join(self, fact: facts.Joined) -> None:
        where = f"{fact.topic}/{fact.channel}"
        self.consumers[fact.consumer] = Consumer(fact.consumer, where, fact.life, fact.timeout_ms * 1_000_000)
        self.visits.setdefault(where, defaultdict(list))

    def _deliver(self, at: int, consumer: Consumer, delivery: facts.Delivery) -> None:
        self.delivered += 1
        key = (delivery.publisher, delivery.serial)
        message = self.messages.get(key)
        what = f"{delivery.publisher}.{delivery.serial} (id {delivery.id}) to {consumer.name}"
        visit = Visit(at, consumer, delivery.attempts)
        consumer.visits[delivery.id] = visit
        if message is None or delivery.publisher == FOREIGN:
            self.strange.append(("never published", f"{what}: nobody wrote this body"))
            return
        if message.topic != consumer.where.partition("/")[0]:
            self.strange.append(("never published", f"{what}: it was published to {message.topic}"))
        if message.id and message.id != delivery.id:
            self.strange.append(("another id", f"{what}: its id was {message.id} before"))
        message.id = delivery.id
        consumer.received.append((key, visit))
        self.visits[consumer.where][key].append(visit)

    def _say(self, fact: facts.Said) -> None:
        consumer = self.consumers[fact.consumer]
        for one in fact.ids:
            visit = consumer.visits[one]
            order = Order(fact.at, fact.verb, one, visit, fact.delay_ms * 1_000_000, fact.token)
            if fact.verb != TOUCH:
                visit.orders.append(order)
            consumer.orders.append(order)

    def _fail(self, fact: facts.Failed) -> None:
        """It concerns the first such order that has not failed: they are executed, and refused, in order."""
        orders = self.consumers[fact.consumer].orders
        wanted = (fact.verb, fact.id, False)
        next(one for one in orders if (one.verb, one.id, one.failed) == wanted).failed = True

    def _hear(self, fact: facts.Heard) -> None:
        consumer = self.consumers[fact.consumer]
        waiting = []
        for order in consumer.orders:
            if order.token > fact.token:
                waiting.append(order)
                continue
            order.heard_at = fact.at
            if order.failed:
                continue
            latest = consumer.visits[order.id]  # it may have come again meanwhile, before this was executed
            if order.verb == TOUCH:
                latest.touched_at = order.at
            elif latest is not order.visit:
                order.visit.orders.remove(order)
                latest.orders.append(order)
                order.visit = latest
        consumer.orders = waiting
