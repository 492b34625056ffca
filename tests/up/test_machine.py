"""Ports and directories, on the machine that runs the tests."""

import errno
import os
import socket
import sys
import tempfile

import pytest

from nsqkit.errors import StartError
from nsqkit.nsqd.datapath import DataPathLock
from nsqkit.up import machine
from nsqkit.up.plan import Ports, Program


def listening(port: int = 0) -> socket.socket:
    """A socket that listens on the loopback address, as nsqd's do."""
    return socket.create_server(("127.0.0.1", port))


def program(path) -> Program:
    """One that keeps its data there."""
    return Program("nsqd-1", "nsqkit.nsqd.cli", "127.0.0.1", Ports(1, 2), str(path), ())


def test_free_ports_are_chosen():
    """Where port 0 is wanted, real and different ports are given."""
    with machine.reserved("127.0.0.1", ["a", "b"], [Ports(0, 0), Ports(0, 0)]) as given:
        every = {port for ports in given for port in (ports.tcp, ports.http)}

    assert 4 == len(every)
    assert 0 not in every


def test_programs_may_listen_on_reserved_ports():
    """A reserved port can be listened on, again and again."""
    with machine.reserved("127.0.0.1", ["a"], [Ports(0, 0)]) as [ports]:
        for _ in range(2):
            listening(ports.tcp).close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be bound twice before it listens")
def test_reserved_port_is_given_to_nobody_else():
    """As long as it is reserved, the port can't be bound by who does not share."""
    with (
        machine.reserved("127.0.0.1", ["a"], [Ports(0, 0)]) as [ports],
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(("127.0.0.1", ports.tcp))


def test_every_port_in_use_is_named():
    """The error names each port that is taken, what it was for, and the way out."""
    with listening() as one, listening() as two:
        first, second = one.getsockname()[1], two.getsockname()[1]

        with (
            pytest.raises(StartError) as caught,
            machine.reserved("127.0.0.1", ["nsqd-1", "nsqd-2"], [Ports(first, 0), Ports(0, second)]),
        ):
            pass

    lines = str(caught.value).split("\n  ")
    assert 3 == len(lines)
    assert lines[0].startswith(f"port {first}, for nsqd-1, is in use")
    assert lines[1].startswith(f"port {second}, for nsqd-2, is in use")
    assert "--base-port" in lines[2]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens")
def test_who_uses_a_port_is_named():
    """On Linux the error names the process that listens there."""
    with listening() as taken, pytest.raises(StartError, match=rf"by process {os.getpid()} \(.+\)\n"):
        machine.reserved("127.0.0.1", ["a"], [Ports(taken.getsockname()[1], 0)]).__enter__()


def test_process_without_a_name(monkeypatch, tmp_path):
    """A process that ended meanwhile, or tells no name, is named by its number; an unknown one not at all."""
    monkeypatch.setattr(machine, "find_listener", lambda _host, _port: 2**30)
    assert f" by process {2**30}" == machine._by_whom("127.0.0.1", 1)

    monkeypatch.setattr(machine, "find_listener", lambda _host, _port: None)
    assert "" == machine._by_whom("127.0.0.1", 1)


def test_foreign_address_is_refused():
    """An address that this machine does not have is an error that names --host."""
    with (
        pytest.raises(StartError, match="can't listen on 192.0.2.1, port 0: .*--host"),
        machine.reserved("192.0.2.1", ["a"], [Ports(0, 0)]),
    ):
        pass


def test_system_port_is_refused(monkeypatch):
    """A port that the system keeps for itself is an error that names --base-port."""

    def refuse(_host, _port):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(machine, "bind", refuse)
    with (
        pytest.raises(StartError, match="port 80: Permission denied; .*--base-port"),
        machine.reserved("127.0.0.1", ["a"], [Ports(80, 81)]),
    ):
        pass


def test_directories_are_made(tmp_path):
    """Data paths that are missing are made, with everything above them."""
    path = tmp_path / "new" / "nsqd-1"

    assert [] == machine.prepare_data(str(tmp_path / "new"), [program(path), program("")])
    assert path.is_dir()
    assert [] == list(path.iterdir())


def test_unusable_directory_is_named(tmp_path):
    """What can't be a directory is an error that names it and --data-path."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError, match="can't write to .*/file/nsqd-1: Not a directory; .*--data-path"):
        machine.prepare_data(str(tmp_path / "file"), [program(tmp_path / "file" / "nsqd-1")])


def test_directory_that_can_not_be_written_is_named(tmp_path, monkeypatch):
    """A directory that is there, but read-only, is found before anything is started."""

    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied", dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StartError, match="can't write to .*/nsqd-1: Permission denied"):
        machine.prepare_data(str(tmp_path), [program(tmp_path / "nsqd-1")])


def test_directory_in_use_is_named(tmp_path):
    """A data path that another nsqd uses is an error in nsqd's own words."""
    path = tmp_path / "nsqd-1"
    path.mkdir()

    with DataPathLock(str(path)), pytest.raises(StartError, match="in use by another instance of nsqd"):
        machine.prepare_data(str(tmp_path), [program(path)])


def test_data_of_a_single_nsqd_is_not_passed_over(tmp_path):
    """A directory that is itself an nsqd's data path is refused, for its messages would seem to be gone."""
    (tmp_path / "nsqd.dat").write_text("{}")

    with pytest.raises(StartError, match="is the data path of a single nsqd"):
        machine.prepare_data(str(tmp_path), [program(tmp_path / "nsqd-1")])


def test_data_left_behind_is_mentioned(tmp_path):
    """Data of nsqds that are not started this time is mentioned."""
    for name in ("nsqd-1", "nsqd-2", "nsqd-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nsqd.dat").write_text("{}")

    remarks = machine.prepare_data(
        str(tmp_path), [program(tmp_path / "nsqd-1"), program(tmp_path / "nsqd-3")]
    )

    assert [f"{tmp_path}/nsqd-2 has data too, and is not started now"] == remarks
