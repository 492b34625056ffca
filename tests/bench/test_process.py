"""Reading the kernel's accounting."""

import os
import socket
import sys

import pytest

from nsqkit.bench import process

TCP_TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1036 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0
   1: 0100007F:1037 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0
   2: 0100007F:1036 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 20 4
"""
TCP6_TABLE = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:1036 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
00000000  1000        0 99 1 0000000000000000 100 0 0 10 0
"""
STAT = "42 (my (odd) name) S 1 42 42 0 -1 4194560 500 0 0 0 123 45 7 8 20 0 1 0 100 1000000 200"
STATUS = "Name:\tnsqd\nVmPeak:\t  200000 kB\nVmRSS:\t   12345 kB\nThreads:\t1\n"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is there only on Linux")


@pytest.mark.parametrize(("table", "inodes"), [(TCP_TABLE, [4711]), (TCP6_TABLE, [99])])
def test_listening_sockets_are_found_by_port(table: str, inodes: list[int]) -> None:
    """Only listening ones, not those of accepted connections on the same port."""
    assert inodes == list(process.parse_listening_inodes(table, 4150))


def test_cpu_ticks_are_user_plus_system_time() -> None:
    """The children's time (7 and 8) does not count, and the name may hold anything."""
    assert process.parse_cpu_ticks(STAT) == 168


def test_resident_memory_is_in_bytes() -> None:
    """The kernel says kB and means KiB; a kernel thread says nothing."""
    assert process.parse_resident_bytes(STATUS) == 12345 * 1024
    assert process.parse_resident_bytes("Name:\tkthreadd\n") is None


@linux_only
def test_the_listener_is_found_and_measured() -> None:
    """A socket of this process leads to this process, its memory and its CPU clock."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pid = process.find_listener("127.0.0.1", listener.getsockname()[1])
    assert pid == os.getpid()

    meter = process.Meter(pid)
    meter.start()
    sum(range(100_000))
    window = meter.stop()

    assert process.cpu_source(pid) == process.CPU_CLOCK
    assert window.server_cpu_us is not None
    assert 0 < window.server_cpu_us <= window.seconds * 1e6 * (os.cpu_count() or 1)
    assert window.server_rss_before is not None
    assert window.server_rss_before > 1_000_000


@linux_only
def test_nobody_is_found_far_away_or_on_a_free_port() -> None:
    """An address that is not this machine's, and a port no one listens on."""
    assert process.find_listener("192.0.2.1", 22) is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert process.find_listener("127.0.0.1", port) is None


@linux_only
def test_the_listener_on_a_unix_socket_is_found(tmp_path, monkeypatch) -> None:
    """Who listens on a path is known by connecting to it; where nobody does, nobody is found."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("./s")
        listener.listen()
        assert process.find_listener("./s", process.UNIX) == os.getpid()
    assert process.find_listener("./s", process.UNIX) is None
    assert process.find_listener("./none", process.UNIX) is None
