"""Judges a journal: is what nsqd did what docs/guarantees.md promises?

The history of each channel is looked at message by message; each delivery after the first needs a cause. Times are
what the harness saw, so a delivery may have been sent earlier than it came: by SLACK_NS, and by as much as there was
disturbance in the seconds before. What is judged by the order of things needs no slack.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from faults import facts
from faults.facts import FIN, KILL, OK, REFUSED, REQ, STOP
from faults.history import Consumer, History, Message, Order, Visit

FOREVER = 1 << 62
SLACK_NS = 300_000_000  # a machine that others use too
LATE_NS = 3_000_000_000  # how much later than due a prompt channel may deliver
CLOCKS_NS = 10_000_000  # what two clocks of a machine may drift apart within a run
LOOK_BACK_NS = 15_000_000_000  # a disturbance may have delayed what came so much later
SHOWN = 8  # findings of a kind that are listed


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the nsqd was told, as far as its promises depend on it."""

    kept: bool = True  # a kill loses nothing: every mode but `memory`
    in_memory: int = 0  # messages that a kill may take from each channel, if it is not
    ordered: frozenset[str] = frozenset()  # topic/channel with one consumer at a time, which only finishes
    prompt: frozenset[str] = frozenset()  # topic/channel whose consumers keep up: nothing is late there
    given_back: bool = False  # --requeue-on-disconnect
    refused_may_come: bool = False  # `fsync`: it was written when the sync failed


@dataclass
class Report:
    """Counts, and what is wrong."""

    ok: int = 0  # messages answered OK
    delivered: int = 0  # deliveries
    explained: int = 0  # deliveries after the first that had a cause
    unexplained: int = 0
    permitted: int = 0  # lost, as the mode allows
    lost: int = 0
    findings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def find(self, kind: str, text: str) -> None:
        """Note that a promise was broken."""
        self.findings[kind].append(text)

    def lines(self) -> list[str]:
        """The findings, some of each kind."""
        text = []
        for kind, found in sorted(self.findings.items()):
            text.append(f"{kind}: {len(found)}")
            text += [f"    {one}" for one in found[:SHOWN]]
        return text


class Checker:
    """Judges one history."""

    def __init__(self, history: History, rules: Rules) -> None:
        self.history = history
        self.rules = rules
        self.report = Report(delivered=history.delivered)

    def judge(self) -> Report:
        """The history must be complete: every channel was drained."""
        for kind, text in self.history.strange:
            self.report.find(kind, text)
        for where, channel in self.history.visits.items():
            for key, visits in channel.items():
                what = f"{key[0]}.{key[1]}"
                self._check_due(what, self.history.messages[key], visits[0])
                self._check_attempts(what, visits)
                self._check_again(what, visits)
            self._check_losses(where)
        for consumer in self.history.consumers.values():
            if consumer.where in self.rules.ordered:
                self._check_order(consumer)
        self._check_ids()
        self._check_refused()
        return self.report

    # -- what came

    def _check_due(self, what: str, message: Message, first: Visit) -> None:
        if not message.due_at:
            return
        life, what = first.consumer.life, f"{what} to {first.consumer.name}"
        early = message.due_at - first.at
        if (
            life != message.life
        ):  # the time of day is all that a restart leaves; old delays follow when it is set
            ahead = self.history.highest[life] - self.history.lowest[message.life]
            early -= CLOCKS_NS + max(0, ahead)
        if early > 0:
            self.report.find("early", f"{what}: {early / 1e6:.1f} ms before it was due")
        elif life == message.life and first.attempts == 1:
            self._check_prompt(what, first, message.due_at)

    def _check_prompt(self, what: str, visit: Visit, due_at: int) -> None:
        late = visit.at - due_at - LATE_NS
        if visit.consumer.where in self.rules.prompt and late > 0 and late > self._disturbance(visit.at):
            text = f"{what} at {visit.consumer.where}, {(visit.at - due_at) / 1e9:.1f} s late"
            self.report.find("late", text)

    def _check_attempts(self, what: str, visits: list[Visit]) -> None:
        """They never fall; after a kill, not below what a checkpoint knew before."""
        visits = sorted(visits, key=lambda one: one.consumer.life)
        known: list[Visit] = []  # those that no kill made nsqd forget
        for before, after in pairwise(visits):
            known.append(before)
            if self._killed_between(before, after):
                fell = after.attempts <= self._covered(known, before, after)
                known = [one for one in known if one.attempts < after.attempts]
            elif before.consumer.life == after.consumer.life and before.consumer is not after.consumer:
                fell = False  # two sockets may tell in another order
            else:
                fell = after.attempts <= before.attempts
            if fell:
                self.report.find(
                    "attempts fall", self._tell(what, before, after) + f"{before.attempts} before"
                )

    def _covered(self, known: list[Visit], before: Visit, after: Visit) -> int:
        """The attempts that a checkpoint knew before nsqd was killed."""
        horizon = self._settled_before(before, after)
        return max((one.attempts for one in known if one.at <= horizon), default=0)

    def _check_order(self, consumer: Consumer) -> None:
        latest: dict[str, int] = {}
        for (publisher, serial), visit in consumer.received:
            if visit.attempts > 1 or self.history.messages[publisher, serial].due_at:
                continue
            before = latest.get(publisher, -1)
            if serial < before:
                text = f"{publisher}.{serial} to {consumer.name}, after {before}"
                self.report.find("out of order", text)
            latest[publisher] = max(before, serial)

    # -- what came again

    def _check_again(self, what: str, visits: list[Visit]) -> None:
        # The order in which they were sent: two consumers' sockets may tell them in another.
        visits = sorted(visits, key=lambda one: (one.consumer.life, one.attempts))
        for before, after in pairwise(visits):
            if before.consumer.life != after.consumer.life:
                wrong = self._wrong_over_restart(before, after)
            else:
                wrong = self._wrong_in_life(what, before, after)
            if wrong:
                self.report.unexplained += 1
                self.report.find("again without a cause", self._tell(what, before, after) + wrong)
            else:
                self.report.explained += 1

    def _wrong_over_restart(self, before: Visit, after: Visit) -> str:
        order = before.last
        if order is None or order.verb != FIN or not order.heard_at:
            return ""
        settled = self._settled_before(before, after)
        if self._killed_between(before, after) and order.heard_at > settled:
            return ""
        return f"it was finished, at {order.heard_at / 1e9:.3f}, before nsqd ended"

    def _wrong_in_life(self, what: str, before: Visit, after: Visit) -> str:
        order = before.last
        if order is not None and order.heard_at:
            if order.verb == FIN:
                return "it was finished"
            if order.verb == REQ:
                return self._wrong_after_requeue(what, order, after)
        if order is not None and order.verb == REQ and order.at + order.delay_ns <= after.at:
            return ""
        if self.rules.given_back and before.consumer.left_at:
            return ""
        since = max(before.at, before.touched_at)
        timeout = before.consumer.timeout_ns
        missing = timeout - SLACK_NS - (after.at - since)
        if missing > 0 and missing > self._disturbance(before.at):
            return f"only {(after.at - since) / 1e6:.0f} ms later, neither finished nor given back"
        if after.attempts == before.attempts + 1:
            self._check_prompt(what, after, since + timeout)
        return ""

    def _wrong_after_requeue(self, what: str, order: Order, after: Visit) -> str:
        early = order.at + order.delay_ns - after.at
        if early > 0:
            return f"requeued, but {early / 1e6:.0f} ms early"
        if after.attempts == order.visit.attempts + 1:
            self._check_prompt(what, after, order.heard_at + order.delay_ns)
        return ""

    # -- what did not come

    def _check_losses(self, where: str) -> None:
        report, rules, visits = self.report, self.rules, self.history.visits[where]
        kills = sorted(at for how, at in self.history.ends.values() if how == KILL)
        excused = 0
        for key, message in self.history.messages.items():
            if message.answer != OK or message.topic != where.partition("/")[0]:
                continue
            came = visits.get(key, [])
            if any(one.last and one.last.verb == FIN for one in came):
                continue
            if not rules.kept and kills and message.sent_at <= kills[-1]:
                excused += 1
                continue
            report.lost += 1
            at = f"answered OK at {message.answered_at / 1e9:.3f}"
            how = (
                f"came {len(came)} times to {where}, but was never finished"
                if came
                else f"never came to {where}"
            )
            report.find("lost", f"{key[0]}.{key[1]}, {at}, {how}")
        report.permitted += excused
        if excused > rules.in_memory * len(kills):
            most = f"{rules.in_memory} messages in memory, {len(kills)} kills"
            report.find("lost", f"{where}: {excused}, more than a kill may take ({most})")

    # -- everything published

    def _check_ids(self) -> None:
        """Unique; those of one connection rise; and none is below one that was answered OK before it was published."""
        seen: dict[str, str] = {}
        latest: dict[str, tuple[str, str]] = {}
        moments: list[tuple[int, str, str]] = []
        for (publisher, serial), message in self.history.messages.items():
            if message.answer == OK:
                self.report.ok += 1
            if not message.id:
                continue
            what = f"{publisher}.{serial}"
            if message.id in seen:
                self.report.find("an id twice", f"{message.id} is {what} and {seen[message.id]}")
            seen[message.id] = what
            before, other = latest.get(publisher, ("", ""))
            if message.id < before:
                self.report.find("ids fall", f"{what} has {message.id}, {other} before it had {before}")
            latest[publisher] = (message.id, what)
            if message.answer == OK:
                moments += [(message.sent_at, "", message.id), (message.answered_at, what, message.id)]
        if not self.rules.kept:  # then nobody knows any more which ids were used
            moments += [(at, KILL, "") for how, at in self.history.ends.values() if how == KILL]
        self._check_ids_rise(sorted(moments))

    def _check_ids_rise(self, moments: list[tuple[int, str, str]]) -> None:
        highest, holder = "", ""
        for _, answered, one in moments:
            if answered == KILL:
                highest = ""
            elif answered and one > highest:
                highest, holder = one, answered
            elif not answered and one < highest:
                text = f"{one} was given out after {highest} of {holder}, which was answered before"
                self.report.find("ids fall", text)

    def _check_refused(self) -> None:
        """A publish that was refused is nowhere, unless nsqd was killed after it: its bytes may be in the log."""
        for key, message in self.history.messages.items():
            if message.answer != REFUSED or not message.id or self.rules.refused_may_come:
                continue
            ended, _ = self.history.ends.get(message.life, (STOP, 0))
            if ended != KILL:
                self.report.find("refused, yet it came", f"{key[0]}.{key[1]}")

    # -- time

    def _settled_before(self, before: Visit, after: Visit) -> int:
        """What was done before that time is remembered over the ends of the lives between two visits.

        A checkpoint is begun when the previous one is in its place, so the last one before a kill knows all that
        was done by then, however slow the disk is.
        """
        lives = range(before.consumer.life, after.consumer.life)
        killed_at = min(
            (at for life, (how, at) in self.history.ends.items() if life in lives and how == KILL), default=0
        )
        if not killed_at:
            return FOREVER
        topic = before.consumer.where.partition("/")[0]
        written = [one.since for one in self.history.checkpoints[topic] if one.at <= killed_at]
        return written[-2] if len(written) > 1 else 0

    def _killed_between(self, before: Visit, after: Visit) -> bool:
        lives = range(before.consumer.life, after.consumer.life)
        return any(self.history.ends[life][0] == KILL for life in lives)

    def _disturbance(self, at: int) -> int:
        """For how long nothing could be expected on time, not long before `at`."""
        since = at - LOOK_BACK_NS
        return sum(max(0, min(one.at, at) - max(one.since, since)) for one in self.history.disturbances)

    def _tell(self, what: str, before: Visit, after: Visit) -> str:
        said = f", {before.last.verb}" if before.last else ""
        return (
            f"{what} at {after.consumer.where}, attempt {before.attempts} to {before.consumer.name} at "
            f"{before.at / 1e9:.3f} (life {before.consumer.life}{said}), "
            f"attempt {after.attempts} to {after.consumer.name} at {after.at / 1e9:.3f}: "
        )


def check(journal: Iterable[facts.AnyFact], rules: Rules) -> Report:
    """What is to be said of a journal."""
    return Checker(History(journal), rules).judge()
