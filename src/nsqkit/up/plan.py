"""Which programs run, on which ports, with which flags. Pure: nothing here looks at the machine.

Ports keep the distances they have in NSQ's own numbering, seen from the base port (4150):

    +0  +1    nsqd-1: TCP, HTTP         +10 +11   nsqlookupd
    +2  +3    nsqd-2                    +20 +21   nsqadmin
    ...       and so on, around the ports of others
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

from nsqkit.address import join_address
from nsqkit.errors import FlagError, OptionError
from nsqkit.log import Format
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options.command_line import load, parse
from nsqkit.up.options import UpOptions

NSQLOOKUPD: Final = "nsqlookupd"

_LOOKUPD_OFFSET: Final = 10
_ADMIN_OFFSET: Final = 20
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a wildcard is reached by from here
_OURS: Final = {
    "tcp_address": "it follows from --host and --base-port",
    "http_address": "it follows from --host and --base-port",
    "data_path": "it follows from the --data-path before the --",
    "node_id": "it is the nsqd's number",
    "log_format": "it follows from the --log-format before the --",
}
"""Options of nsqd that differ from one to the next, and where they come from."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The two ports of a program; 0 stands for any free one."""

    tcp: int
    http: int


@dataclass(frozen=True, slots=True)
class Program:
    """One process to be: its name in table and log, the module to run, and what it is told."""

    name: str
    module: str
    host: str  # to connect to
    ports: Ports
    data_path: str  # "" for a program that keeps nothing
    flags: tuple[str, ...]

    def command(self, parent: int) -> list[str]:
        """The command line of the process, as a child of the process `parent`. The same installation runs.

        -P keeps what lies in the current directory from being imported instead.
        """
        return [sys.executable, "-P", "-m", "nsqkit.up.child", str(parent), self.module, *self.flags]


def names(nsqds: int) -> list[str]:
    """The names of all programs, in the order they are started and listed."""
    return [NSQLOOKUPD, *(f"nsqd-{number}" for number in range(1, nsqds + 1))]


def ports(base_port: int, nsqds: int) -> list[Ports]:
    """The ports of all programs, in the order of `names`. OptionError if there are not so many above the base."""
    if base_port == 0:
        return [Ports(0, 0)] * (nsqds + 1)
    taken = (_LOOKUPD_OFFSET, _ADMIN_OFFSET)
    offsets = [_LOOKUPD_OFFSET, *islice((offset for offset in count(0, 2) if offset not in taken), nsqds)]
    highest = base_port + max(offsets) + 1
    if highest > 65535:
        raise OptionError(f"--base-port={base_port} is too high: port {highest} would be needed")
    return [Ports(base_port + offset, base_port + offset + 1) for offset in offsets]


def programs(
    options: UpOptions, ports: Sequence[Ports], host_name: str, nsqd_flags: Sequence[str]
) -> list[Program]:
    """Everything to run, nsqlookupd first. `nsqd_flags` come last on each nsqd's command line, so they win.

    On a wildcard address, nsqds announce `host_name`, for others are to connect.
    """
    host = options.host
    reach = _LOOPBACK.get(host, host)
    announced = host_name if host in _LOOPBACK else host

    def listening(name: str, its: Ports) -> tuple[str, ...]:
        json = options.log_format is Format.JSON
        return (
            f"--tcp-address={join_address(host, its.tcp)}",
            f"--http-address={join_address(host, its.http)}",
            *(("--log-format=json", f"--log-prefix={name}") if json else ("--log-prefix=",)),
            *_given("http-token-file", options.http_token_file),
        )

    # Only nsqds of this machine are told nsqlookupd's address, so it is one that is reached from here.
    flags = (*listening(NSQLOOKUPD, ports[0]), f"--broadcast-address={reach}")
    planned = [Program(NSQLOOKUPD, "nsqkit.nsqlookupd.cli", reach, ports[0], "", flags)]
    for number, (name, its) in enumerate(zip(names(options.nsqd)[1:], ports[1:], strict=True), start=1):
        data_path = os.path.join(options.data_path, name)
        flags = (
            *listening(name, its),
            "--https-address=",  # its default port is the next nsqd's
            f"--data-path={data_path}",
            f"--node-id={number}",
            f"--broadcast-address={announced}",
            f"--lookupd-tcp-address={join_address(reach, ports[0].tcp)}",
            *_given("http-client-token-file", options.http_client_token_file),
            *nsqd_flags,
        )
        planned.append(Program(name, "nsqkit.nsqd.cli", reach, its, data_path, flags))
    return planned


def _given(flag: str, value: str) -> tuple[str, ...]:
    return (f"--{flag}={value}",) if value else ()


def check_nsqd_flags(nsqd_flags: Sequence[str]) -> None:
    """Raise FlagError or OptionError for what no nsqd would start with, or what is not for all of them."""
    line = parse(NsqdOptions, nsqd_flags)
    if line.help or line.version:
        raise FlagError("what follows -- must be flags of nsqd; nsqd --help lists them")
    for option, source in _OURS.items():
        if option in line.values:
            raise FlagError(f"--{option.replace('_', '-')} can't be the same for every nsqd: {source}")
    load(NsqdOptions, line)
