"""Flow: who may have how many messages under way."""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nsqkit.client.backoff import BackoffState
from nsqkit.client.flow import Flow

NORMAL, PAUSED, TESTING = BackoffState


def made(max_in_flight, count, most=2500):
    """Flow with this many connections, numbered."""
    flow: Flow[int] = Flow(max_in_flight, Random(1), 10.0, 30.0)
    for number in range(count):
        flow.add(number, most, 0.0)
    return flow


def ready(flow, count):
    """Everybody's RDY."""
    return [flow.rdy(number) for number in range(count)]


def test_everybody_gets_a_share():
    """What a division leaves over is spread."""
    assert [10] == ready(made(10, 1), 1)
    assert [3, 3, 4] == sorted(ready(made(10, 3), 3))


def test_who_can_take_less_leaves_more_for_the_others():
    """nsqd's --max-rdy-count is a limit of the connection."""
    flow = made(100, 2)
    flow.add(2, 10, 0.0)

    assert [45, 45, 10] == ready(flow, 3)


def test_what_is_lowered_is_sent_before_what_is_raised():
    """So the sum is within the limit at any moment."""
    flow = made(10, 1)

    assert [(0, 5), (1, 5)] == flow.add(1, 2500, 1.0)
    assert [(1, 10)] == flow.remove(0, 2.0)
    assert [] == flow.remove(0, 3.0)


def test_a_new_limit_is_shared():
    """0 pauses all."""
    flow = made(4, 2)

    assert [(0, 0), (1, 0)] == flow.set_max_in_flight(0, 1.0)
    assert [(0, 3), (1, 4)] == flow.set_max_in_flight(7, 2.0)
    assert [] == flow.set_max_in_flight(7, 3.0)


def test_in_back_off_one_connection_gets_one_message_at_most():
    """Nobody, then one, then all."""
    flow = made(6, 3)

    assert [(0, 0), (1, 0), (2, 0)] == flow.backoff_changed(PAUSED, 1.0)
    ((_, one),) = flow.backoff_changed(TESTING, 2.0)
    assert 1 == one == flow.total
    assert [] == flow.add(3, 2500, 3.0)
    flow.remove(3, 3.0)
    flow.backoff_changed(NORMAL, 4.0)
    assert [2, 2, 2] == ready(flow, 3)


def test_who_is_tried_in_back_off_is_left_to_chance():
    """Another one each time, so that a bad nsqd does not keep all in back-off."""
    tried = set()
    flow = made(6, 3)
    for turn in range(10):
        flow.backoff_changed(PAUSED, turn * 10.0)
        flow.backoff_changed(TESTING, turn * 10.0 + 5)
        tried |= {number for number in range(3) if flow.rdy(number)}

    assert {0, 1, 2} == tried


def test_the_tried_one_may_be_lost():
    """Then another one is tried."""
    flow = made(6, 2)
    flow.backoff_changed(TESTING, 1.0)
    tried = 0 if flow.rdy(0) else 1

    assert [(1 - tried, 1)] == flow.remove(tried, 2.0)


def test_few_slots_go_round():
    """Each of 20 connections is served within the longest time that one may keep a slot, for each that is before it."""
    flow = made(1, 20)
    served = {number for number in range(20) if flow.rdy(number)}
    for second in range(5, 30 * 20 + 1, 5):
        for number in range(20):
            if flow.rdy(number):
                flow.received(number, float(second))  # always busy
        flow.redistribute(float(second))
        assert 1 == flow.total
        served |= {number for number in range(20) if flow.rdy(number)}

    assert set(range(20)) == served


def test_who_has_nothing_loses_its_slot_sooner():
    """After the idle time, not after the longest one."""
    flow = made(1, 2)
    holder = 0 if flow.rdy(0) else 1

    assert [] == flow.redistribute(9.0)
    assert [(holder, 0), (1 - holder, 1)] == flow.redistribute(10.0)


def test_enough_slots_are_not_moved():
    """Redistribution is for those who have too few."""
    flow = made(4, 2)

    assert [] == flow.redistribute(1000.0)


class Anything(RuleBasedStateMachine):
    """Whatever happens, in any order."""

    def __init__(self):
        super().__init__()
        self.limit = 5
        self.state = NORMAL
        self.flow: Flow[int] = Flow(self.limit, Random(1), 10.0, 30.0)
        self.most = {}
        self.now = 0.0
        self.ready = {}

    def send(self, changes):
        """Each RDY is sent, and after each of them the promise holds."""
        allowed = {NORMAL: self.limit, PAUSED: 0, TESTING: min(1, self.limit)}[self.state]
        lowering = True
        for key, count in changes:
            assert 0 <= count <= self.most[key]
            assert count != self.ready[key]
            lowering = lowering and count < self.ready[key]
            self.ready[key] = count
            assert lowering or sum(self.ready.values()) <= allowed

    @rule(most=st.integers(1, 12))
    def add(self, most):
        """A connection stands."""
        key = len(self.most)
        self.most[key] = most
        self.ready[key] = 0
        self.send(self.flow.add(key, most, self.now))

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def remove(self, data):
        """One is gone."""
        key = data.draw(st.sampled_from(sorted(self.ready)))
        del self.ready[key]
        self.send(self.flow.remove(key, self.now))

    @rule(limit=st.integers(0, 30))
    def set_limit(self, limit):
        """Another limit."""
        self.limit = limit
        self.send(self.flow.set_max_in_flight(limit, self.now))

    @rule(state=st.sampled_from(BackoffState))
    def back_off(self, state):
        """Handlers fail, or do not."""
        self.state = state
        self.send(self.flow.backoff_changed(state, self.now))

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds):
        """Time passes."""
        self.now += seconds
        self.send(self.flow.redistribute(self.now))

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def receive(self, data):
        """Messages come."""
        self.flow.received(data.draw(st.sampled_from(sorted(self.ready))), self.now)

    @invariant()
    def all_that_may_be_is_given_out(self):
        """Nothing that may be under way is kept back."""
        allowed = {NORMAL: self.limit, PAUSED: 0, TESTING: min(1, self.limit)}[self.state]
        assert self.flow.total == sum(self.ready.values())
        assert self.flow.total == min(allowed, sum(self.most[key] for key in self.ready))

    @invariant()
    def nobody_has_much_more_than_another(self):
        """But for who can take no more."""
        shares = [count for key, count in self.ready.items() if count < self.most[key]]
        assert not shares or max(self.ready.values()) - min(shares) <= 1


Anything.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestAnything = Anything.TestCase
