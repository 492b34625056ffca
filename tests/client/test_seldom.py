"""Complaints that come by the thousand."""

import logging

from nsqkit.client.seldom import Seldom


def test_one_line_a_second_stands_for_all_of_a_kind(caplog):
    """It tells how many it stands for; another kind has lines of its own."""
    now = 0.0
    seldom = Seldom(logging.getLogger("nsqkit.test_seldom"), lambda: now)
    caplog.set_level(logging.WARNING, "nsqkit")

    for number in range(5):
        seldom.warn("late", "message %d was late", number)
    seldom.warn("other", "something else")
    now = 1.0
    seldom.warn("late", "message %d was late", 5)
    now = 2.0
    seldom.warn("late", "message %d was late", 6)

    assert [
        "message 0 was late",
        "something else",
        "message 5 was late (and 4 more like it before)",
        "message 6 was late",
    ] == [record.getMessage() for record in caplog.records if record.name == "nsqkit.test_seldom"]


def test_what_is_not_said_is_there_at_debug(caplog):
    """For who looks for one message."""
    seldom = Seldom(logging.getLogger("nsqkit.test_seldom"), lambda: 0.0)
    caplog.set_level(logging.DEBUG, "nsqkit")

    seldom.warn("late", "one")
    seldom.warn("late", "two")

    assert [("WARNING", "one"), ("DEBUG", "two")] == [
        (r.levelname, r.getMessage()) for r in caplog.records if r.name == "nsqkit.test_seldom"
    ]
