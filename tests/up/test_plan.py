"""Ports and command lines."""

import sys

import pytest

from nsqkit.errors import FlagError, OptionError
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.options.command_line import parse
from nsqkit.up import plan
from nsqkit.up.options import UpOptions
from nsqkit.up.plan import Ports, Program


def planned(nsqd_flags=(), **options) -> list[Program]:
    """The programs for these options, on a machine called `box`."""
    chosen = UpOptions(**options)
    return plan.programs(chosen, plan.ports(chosen.base_port, chosen.nsqd), "box", nsqd_flags)


def test_ports_are_those_of_nsq():
    """One nsqd and its nsqlookupd listen where NSQ's do."""
    assert [Ports(4160, 4161), Ports(4150, 4151)] == plan.ports(4150, 1)


def test_ports_of_others_are_left_out():
    """Many nsqds take consecutive ports, except those of nsqlookupd and nsqadmin."""
    nsqds = [ports.tcp for ports in plan.ports(4150, 12)[1:]]

    assert [4150, 4152, 4154, 4156, 4158, 4162, 4164, 4166, 4168, 4172, 4174, 4176] == nsqds


def test_ports_keep_their_distance():
    """Another base port moves everything by the same distance."""
    assert [Ports(5160, 5161), Ports(5150, 5151), Ports(5152, 5153)] == plan.ports(5150, 2)


def test_no_two_programs_share_a_port():
    """However many nsqds there are, every port is given once."""
    every = [port for ports in plan.ports(4150, 64) for port in (ports.tcp, ports.http)]

    assert len(every) == len(set(every)) == 130


def test_base_port_0_leaves_the_choice_to_the_system():
    """With base port 0 every port is 0, which stands for a free one."""
    assert [Ports(0, 0)] * 3 == plan.ports(0, 2)


def test_ports_must_exist():
    """A base port that leaves no room above it is refused, and the text names the port that does not exist."""
    assert plan.ports(65000, 64)

    with pytest.raises(OptionError, match="--base-port=65530 is too high: port 65541 would be needed"):
        plan.ports(65530, 1)


def test_each_nsqd_is_told_apart():
    """Each nsqd has an id, a data path and addresses of its own, and they share the nsqlookupd."""
    lookupd, first, second = planned(nsqd=2, data_path="here/")

    assert ["nsqlookupd", "nsqd-1", "nsqd-2"] == [lookupd.name, first.name, second.name]
    assert "" == lookupd.data_path
    assert "here/nsqd-2" == second.data_path
    assert (
        "--tcp-address=127.0.0.1:4152",
        "--http-address=127.0.0.1:4153",
        "--log-prefix=",
        "--https-address=",
        "--data-path=here/nsqd-2",
        "--node-id=2",
        "--broadcast-address=127.0.0.1",
        "--lookupd-tcp-address=127.0.0.1:4160",
    ) == second.flags


def test_command_lines_are_understood():
    """Every flag that is passed on is one of the program that gets it."""
    lookupd, *nsqds = planned(nsqd=3)

    assert "127.0.0.1:4160" == parse(NsqlookupdOptions, lookupd.flags).values["tcp_address"]
    assert [1, 2, 3] == [parse(NsqdOptions, nsqd.flags).values["node_id"] for nsqd in nsqds]


def test_tokens_are_passed_on():
    """The file of tokens goes to all programs, the one token to nsqds, which ask nsqlookupd."""
    lookupd, nsqd = planned(http_token_file="all", http_client_token_file="one")

    assert "all" == parse(NsqlookupdOptions, lookupd.flags).values["http_token_file"]
    values = parse(NsqdOptions, nsqd.flags).values
    assert ("all", "one") == (values["http_token_file"], values["http_client_token_file"])


def test_same_installation_runs():
    """A program is started with this interpreter, through the module that ends it together with us."""
    command = planned()[0].command(parent=77)

    assert [sys.executable, "-P", "-m", "nsqkit.up.child", "77", "nsqkit.nsqlookupd.cli"] == command[:6]


def test_flags_for_every_nsqd_come_last():
    """What is after -- reaches each nsqd and beats our own choice; nsqlookupd does not get it."""
    lookupd, *nsqds = planned(["--broadcast-address=me", "--mem-queue-size=0"], nsqd=2)

    assert "--mem-queue-size=0" not in lookupd.flags
    for nsqd in nsqds:
        values = parse(NsqdOptions, nsqd.flags).values
        assert ("me", 0) == (values["broadcast_address"], values["mem_queue_size"])


def test_open_to_other_machines():
    """With a wildcard, nsqds announce the host name; we ourselves reach everything over the loopback address."""
    lookupd, nsqd = planned(host="0.0.0.0")

    assert "--tcp-address=0.0.0.0:4150" in nsqd.flags
    assert "--broadcast-address=box" in nsqd.flags
    assert "--lookupd-tcp-address=127.0.0.1:4160" in nsqd.flags
    assert "--broadcast-address=127.0.0.1" in lookupd.flags
    assert "127.0.0.1" == nsqd.host


def test_one_address_of_many():
    """An address other than the loopback one is listened on, announced, and connected to."""
    _, nsqd = planned(host="10.0.0.7")

    assert {"--broadcast-address=10.0.0.7", "--lookupd-tcp-address=10.0.0.7:4160"} <= set(nsqd.flags)


def test_ipv6_address_gets_brackets():
    """An IPv6 address stands in brackets before its port."""
    _, nsqd = planned(host="::1")

    assert {"--tcp-address=[::1]:4150", "--broadcast-address=::1"} <= set(nsqd.flags)


@pytest.mark.parametrize("flag", ["tcp-address=:1", "http-address=:1", "data-path=1", "node-id=1"])
def test_flags_that_differ_are_not_taken(flag):
    """What must differ from nsqd to nsqd can't be given for all of them."""
    with pytest.raises(FlagError, match=f"--{flag.partition('=')[0]} can't be the same for every nsqd: it "):
        plan.check_nsqd_flags([f"--{flag}"])


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_questions_are_not_taken(flag):
    """--help and --version are nothing to run an nsqd with: it would end at once, again and again."""
    with pytest.raises(FlagError, match="nsqd --help"):
        plan.check_nsqd_flags([flag])


def test_flags_are_checked_before_anything_starts():
    """A flag that nsqd does not have, or a value out of its range, is found at once."""
    plan.check_nsqd_flags(["--mem-queue-size=0", "--msg-timeout", "5s"])

    with pytest.raises(FlagError, match="flag provided but not defined: -mem-queue"):
        plan.check_nsqd_flags(["--mem-queue=0"])
    with pytest.raises(OptionError, match="--mem-queue-size must be"):
        plan.check_nsqd_flags(["--mem-queue-size=-1"])


def test_json_logs():
    """Every program writes objects, and says which one it is; it can't be another format for some of them."""
    for program in planned(nsqd=2, log_format="json"):
        assert "--log-format=json" in program.flags
        assert f"--log-prefix={program.name}" in program.flags

    with pytest.raises(FlagError, match="--log-format can't be the same for every nsqd: it follows from"):
        plan.check_nsqd_flags(["--log-format=json"])
