"""The table of addresses."""

import io

import pytest
from rich.console import Console

from nsqkit.up import plan
from nsqkit.up.banner import banner
from nsqkit.up.options import UpOptions


@pytest.fixture
def show():
    """The banner for some options, on a console so wide."""

    def make(width: int = 200, **options) -> str:
        chosen = UpOptions(**options)
        programs = plan.programs(chosen, plan.ports(chosen.base_port, chosen.nsqd), "box", [])
        return banner(programs, Console(file=io.StringIO(), width=width))

    return make


def test_everything_has_a_row(show):
    """The table tells where each program listens and keeps its data."""
    lines = [line.split() for line in show(nsqd=2).splitlines()]

    assert ["nsqlookupd", "127.0.0.1:4160", "http://127.0.0.1:4161"] in lines
    assert ["nsqd-1", "127.0.0.1:4150", "http://127.0.0.1:4151", "nsq-data/nsqd-1"] in lines
    assert ["nsqd-2", "127.0.0.1:4152", "http://127.0.0.1:4153", "nsq-data/nsqd-2"] in lines


@pytest.mark.parametrize("width", [20, 200])
def test_command_can_be_copied(show, width):
    """The line that publishes is one line, however narrow the terminal is."""
    text = show(width, host="::1")

    assert "curl -d 'hello' 'http://[::1]:4151/pub?topic=greetings'\n" in text


def test_way_out_is_shown(show):
    """It says how to stop."""
    assert "Ctrl-C" in show()
