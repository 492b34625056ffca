"""The fault harness: its checker sees what is wrong, and a real nsqd under each family of faults keeps its promises.

NSQKIT_FAULTS_SECONDS is the time for each family (14), NSQKIT_FAULTS_SEED chooses another plan; `make faults` takes a
new one each time.
"""

import pytest

from faults import facts
from faults.checker import Rules, check
from faults.facts import FIN, KILL, OK, REFUSED, REQ, STOP, TOUCH, Delivery

S = 1_000_000_000
TIMEOUT_MS = 2000
RULES = Rules(ordered=frozenset({"t/c"}), prompt=frozenset({"t/c"}))


class Story:
    """A journal of one topic and one channel, told second by second."""

    def __init__(self):
        self.at = 100.0  # s
        self.facts: list[facts.AnyFact] = []
        self.consumer = ""
        self.life = 0
        self.commands = 0
        self.tokens = 0
        self.start()
        self.join("c-1")

    def note(self, kind, *fields):
        """One fact, now."""
        self.facts.append(kind(int(self.at * S), *fields))

    def wait(self, seconds):
        """Time passes."""
        self.at += seconds

    def start(self):
        """nsqd starts."""
        self.life += 1
        self.note(facts.Started, self.life)

    def end(self, how):
        """nsqd ends."""
        self.note(facts.Ended, self.life, how)

    def checkpoint(self):
        """A checkpoint was written within the last second."""
        self.wait(1)
        self.note(facts.Checkpointed, int((self.at - 1) * S), "t")

    def join(self, name):
        """A consumer comes; what is told from here on happens to it."""
        self.consumer = name
        self.note(facts.Joined, name, "t", "c", self.life, TIMEOUT_MS)

    def publish(self, serial, *, answer=OK, delay_ms=0):
        """One message is published."""
        self.note(facts.Published, "p", "t", self.commands, serial, 1, delay_ms)
        self.note(facts.Answered, "p", self.commands, answer)
        self.commands += 1

    def deliver(self, serial, attempts=1, *, id="", publisher="p"):
        """One message comes."""
        delivery = Delivery(id or f"{serial:016x}", attempts, publisher, serial)
        self.note(facts.Delivered, self.consumer, [delivery])

    def say(self, verb, serial, *, delay_ms=0, fails=False, heard=True):
        """The consumer says something of a message, and hears that it was executed."""
        self.tokens += 1
        self.note(facts.Said, self.consumer, verb, [f"{serial:016x}"], delay_ms, self.tokens)
        if fails:
            self.note(facts.Failed, self.consumer, verb, f"{serial:016x}")
        if heard:
            self.note(facts.Heard, self.consumer, self.tokens)

    def deliver_and_finish(self, serial, attempts=1):
        """One message comes, and is done with."""
        self.deliver(serial, attempts)
        self.say(FIN, serial)


@pytest.fixture
def story():
    """A journal with one message that came and was finished, to be told on."""
    told = Story()
    told.publish(1)
    told.deliver_and_finish(1)
    return told


def verdict(story, rules=RULES):
    """How many findings of each kind there are, after a journey through a file."""
    report = check(story.facts, rules)
    return {kind: len(found) for kind, found in report.findings.items()}


# -- what the checker finds


def test_nothing_is_wrong(story):
    """A message that came once and was finished is no finding."""
    assert verdict(story) == {}


def test_loss(story):
    """A message that was answered OK and never came is lost."""
    story.publish(2)

    assert {"lost": 1} == verdict(story)


def test_loss_after_a_delivery(story):
    """A message that came, was not finished, and never came again is lost."""
    story.publish(2)
    story.deliver(2)

    assert {"lost": 1} == verdict(story)


def test_losses_that_memory_mode_permits(story):
    """In memory mode a kill may take as many messages as memory holds, and no more."""
    for serial in range(2, 6):
        story.publish(serial)
    story.end(KILL)
    story.start()

    assert {} == verdict(story, Rules(kept=False, in_memory=4))
    assert {"lost": 1} == verdict(story, Rules(kept=False, in_memory=3))


def test_memory_mode_loses_nothing_without_a_kill(story):
    """In memory mode, too, a clean restart loses nothing."""
    story.publish(2)
    story.end(STOP)
    story.start()

    assert {"lost": 1} == verdict(story, Rules(kept=False, in_memory=4))


def test_nobody_owes_what_was_not_answered_ok(story):
    """What was refused, or never answered, need not come."""
    story.publish(2, answer=REFUSED)
    story.publish(3, answer=facts.UNKNOWN)

    assert verdict(story) == {}


def test_refused_and_delivered(story):
    """What was refused must not come, unless it was written before a sync failed."""
    story.publish(2, answer=REFUSED)
    story.deliver_and_finish(2)

    assert {"refused, yet it came": 1} == verdict(story)
    assert {} == verdict(story, Rules(refused_may_come=True))


def test_duplicate_without_a_cause(story):
    """A message that was finished must not come again."""
    story.wait(10)
    story.deliver(1, 2)

    assert {"again without a cause": 1} == verdict(story)


def test_duplicate_before_its_timeout(story):
    """A message that is in flight must not come again before its timeout, and may after it."""
    story.publish(2)
    story.deliver(2)
    story.wait(1)
    story.deliver_and_finish(2, 2)
    story.publish(3)
    story.deliver(3)
    story.wait(2)
    story.deliver_and_finish(3, 2)

    assert {"again without a cause": 1} == verdict(story)


def test_touch_moves_the_timeout(story):
    """After a TOUCH the timeout counts from there, unless the TOUCH failed."""
    for serial, fails in ((2, False), (3, True)):
        story.publish(serial)
        story.deliver(serial)
        story.wait(1.5)
        story.say(TOUCH, serial, fails=fails)
        story.wait(1)
        story.deliver_and_finish(serial, 2)

    assert {"again without a cause": 1} == verdict(story)


def test_finish_that_failed(story):
    """A FIN that failed, since the message had timed out, finishes nothing: it comes again."""
    story.publish(2)
    story.deliver(2)
    story.wait(2)
    story.say(FIN, 2, fails=True)
    story.deliver_and_finish(2, 2)

    assert {} == verdict(story)


def test_finish_of_a_later_delivery(story):
    """A FIN that was under way while the message went to somebody else and came back finishes the last delivery."""
    story.publish(2)
    story.deliver(2)
    story.say(FIN, 2, heard=False)
    story.wait(2)
    story.join("c-2")
    story.deliver(2, 2)
    story.wait(2)
    story.consumer = "c-1"
    story.deliver(2, 3)
    story.note(facts.Heard, "c-1", story.tokens)
    story.say(FIN, 2, fails=True)

    assert verdict(story) == {}


def test_requeued_message(story):
    """A requeued message comes again, not before its delay is over, and not much later."""
    for serial, wait in ((2, 0.4), (3, 0.5), (4, 5)):
        story.publish(serial)
        story.deliver(serial)
        story.say(REQ, serial, delay_ms=500)
        story.wait(wait)
        story.deliver_and_finish(serial, 2)

    assert {"again without a cause": 1, "late": 1} == verdict(story)


def test_disturbance_excuses_bad_timing(story):
    """A message may come again early by as much as there was disturbance when it came first."""
    story.publish(2)
    since = int(story.at * S)
    story.wait(1)
    story.note(facts.Disturbed, since, "stopped")
    story.deliver(2)
    story.wait(1)
    story.deliver_and_finish(2, 2)

    assert verdict(story) == {}


def test_given_back_by_a_consumer_that_vanished(story):
    """With --requeue-on-disconnect a message comes again at once when its consumer vanished."""
    story.publish(2)
    story.deliver(2)
    story.note(facts.Left, "c-1")
    story.join("c-2")
    story.deliver_and_finish(2, 2)

    assert {"again without a cause": 1} == verdict(story)
    assert {} == verdict(story, Rules(given_back=True))


def test_finished_just_before_a_kill(story):
    """What was finished just before a kill comes again; what the last checkpoint must know must not."""
    story.wait(1)
    story.checkpoint()
    story.publish(2)
    story.deliver_and_finish(2)
    story.checkpoint()
    story.end(KILL)
    story.start()
    story.join("c-2")
    story.deliver_and_finish(2)
    assert verdict(story) == {}

    story.deliver_and_finish(1, 2)

    assert {"again without a cause": 1} == verdict(story)


def test_one_checkpoint_proves_nothing(story):
    """It may have been begun before the FIN came."""
    story.wait(1)
    story.checkpoint()
    story.end(KILL)
    story.start()
    story.join("c-2")
    story.deliver_and_finish(1, 2)

    assert verdict(story) == {}


def test_clean_restart_brings_nothing_again(story):
    """What was finished before a clean stop must not come again; what was in flight may."""
    story.publish(2)
    story.deliver(2)
    story.end(STOP)
    story.start()
    story.join("c-2")
    story.deliver_and_finish(2, 2)
    assert verdict(story) == {}

    story.deliver_and_finish(1, 2)

    assert {"again without a cause": 1} == verdict(story)


@pytest.mark.parametrize("publisher", [facts.FOREIGN, "someone"])
def test_foreign_body(story, publisher):
    """A body that nobody published is a finding, and so is a damaged one."""
    story.deliver(9, publisher=publisher)

    assert {"never published": 1} == verdict(story)


def test_damaged_body():
    """A body that is not as it was published has no origin."""
    body = facts.body_of("p", 7, 100)

    assert (100, ("p", 7)) == (len(body), facts.origin_of(body))
    assert facts.origin_of(body[:50] + b"?" + body[51:]) == (facts.FOREIGN, 0)
    assert facts.origin_of(body[:-1]) == (facts.FOREIGN, 0)
    assert facts.origin_of(b"") == (facts.FOREIGN, 0)


def test_falling_attempts(story):
    """Attempts rise with each delivery, also over a clean restart."""
    story.publish(2)
    story.deliver(2, 3)
    story.end(STOP)
    story.start()
    story.join("c-2")
    story.deliver_and_finish(2, 3)

    assert {"attempts fall": 1} == verdict(story)


def test_attempts_over_a_kill(story):
    """A kill may take back the attempts that no checkpoint knew, and no others."""
    story.publish(2)
    story.publish(3)
    story.deliver(2, 3)
    story.wait(1)
    story.checkpoint()
    story.deliver(3, 3)
    story.checkpoint()
    story.end(KILL)
    story.start()
    story.join("c-2")
    story.deliver_and_finish(2, 1)
    story.deliver_and_finish(3, 1)

    assert {"attempts fall": 1} == verdict(story)


def test_attempts_over_two_kills(story):
    """What one kill took back, no later checkpoint knows: a second kill may take back the same attempt."""
    story.publish(2)
    story.deliver(2)
    story.end(KILL)
    story.start()
    story.checkpoint()
    story.checkpoint()
    story.join("c-2")
    story.deliver(2)
    story.end(KILL)
    story.start()
    story.join("c-3")
    story.deliver_and_finish(2)

    assert {} == verdict(story)


def test_early_deferred_message(story):
    """A deferred message must not come a millisecond early, nor seconds late."""
    for serial, wait in ((2, 0.999), (3, 1), (4, 5)):
        story.publish(serial, delay_ms=1000)
        story.wait(wait)
        story.deliver_and_finish(serial)

    assert {"early": 1, "late": 1} == verdict(story)


def test_deferred_message_over_a_restart(story):
    """Over a restart a deferred message is due by the calendar, wherever that was set to."""
    story.publish(2, delay_ms=60_000)
    story.publish(3, delay_ms=120_000)
    story.end(STOP)
    story.note(facts.Jumped, 90 * S)
    story.start()
    story.join("c-2")
    story.deliver_and_finish(2)
    story.deliver_and_finish(3)

    assert {"early": 1} == verdict(story)


def test_an_old_delay_follows_the_calendar(story):
    """What was deferred before a restart is due by the calendar also when that is set after the restart."""
    story.publish(2, delay_ms=60_000)
    story.publish(3, delay_ms=120_000)
    story.end(STOP)
    story.start()
    story.join("c-2")
    story.note(facts.Jumped, 90 * S)
    story.deliver_and_finish(2)
    story.deliver_and_finish(3)

    assert {"early": 1} == verdict(story)


def test_order(story):
    """A channel with one consumer that only finishes gets one publisher's messages in their order."""
    for serial in (2, 3, 4):
        story.publish(serial)
    for serial in (2, 4, 3):
        story.deliver_and_finish(serial)

    assert {"out of order": 1} == verdict(story)


def test_ids(story):
    """Ids are unique, rise with a publisher's messages, and stay the same over deliveries."""
    story.publish(2)
    story.deliver(2)
    story.wait(2)
    story.deliver(2, 2, id=f"{5:016x}")
    story.say(FIN, 5)
    story.publish(3)
    story.deliver_and_finish(3)
    story.publish(5)
    story.deliver_and_finish(5)

    found = verdict(story)

    assert {"another id", "ids fall", "an id twice"} == set(found)


def test_ids_over_a_restart(story):
    """Ids rise over a restart too; in memory mode, a kill takes the knowledge of them with it."""
    story.publish(9)
    story.deliver_and_finish(9)
    story.wait(10)
    story.end(KILL)
    story.wait(1)
    story.start()
    story.join("c-2")
    story.note(facts.Published, "p-2", "t", 0, 5, 1, 0)
    story.wait(0.1)
    story.note(facts.Answered, "p-2", 0, OK)
    story.deliver(5, publisher="p-2")
    story.say(FIN, 5)

    assert {"ids fall": 1} == verdict(story)
    assert {} == verdict(story, Rules(kept=False))


def test_journal_of_a_file(story, tmp_path):
    """A journal is read as it was written."""
    story.note(facts.Left, "c-1")
    story.note(facts.Disturbed, 1, "stopped")

    facts.write(tmp_path / "journal", story.facts)

    assert story.facts == list(facts.read(tmp_path / "journal"))
