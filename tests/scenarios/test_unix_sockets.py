"""A real nsqd that listens on unix sockets only."""

import asyncio
import http.client
import os
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsqkit.cluster import Cluster
from tests.certificates import Certificates
from tests.scenarios.conftest import Daemon


class UnixDaemon(Daemon):
    """One with three sockets beside each other."""

    def __init__(self, directory: Path, sockets: str, *flags: str) -> None:
        super().__init__(directory)
        self.address = f"{sockets}/tcp.sock"
        self.web = f"{sockets}/http.sock"
        self.secure_web = f"{sockets}/https.sock"
        self.flags = [f"--http-address={self.web}", f"--https-address={self.secure_web}", *flags]

    def begin(self) -> "UnixDaemon":
        """Start it, and wait until it listens everywhere."""
        self.spawn()
        self.wait_for(f"HTTPS: listening on {self.secure_web}\n")
        return self

    def ask(self, target: str, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
        """GET, over HTTPS with a context."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.secure_web if context else self.web)
        if context:
            connection.sock = context.wrap_socket(connection.sock, server_hostname="127.0.0.1")
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture
def nsqd(tmp_path: Path, certificates: Certificates) -> Iterator[UnixDaemon]:
    """It runs; paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="nsqkit-") as sockets:
        daemon = UnixDaemon(tmp_path / "nsqd", sockets, *certificates.flags())
        yield daemon.begin()
        daemon.close()


def test_everything_is_served(nsqd, certificates):
    """TCP, HTTP and HTTPS; a client has no address, and the files are gone after a stop."""
    files = [nsqd.address, nsqd.web, nsqd.secure_web]
    assert [True] * 3 == [stat.S_ISSOCK(os.stat(path).st_mode) for path in files]

    client = nsqd.connect()
    client.publish("t", b"x")

    assert (200, b"OK") == nsqd.ask("/ping")
    status, body = nsqd.ask("/stats?format=json", certificates.trusting())
    assert (200, True) == (status, b'"remote_address":"@"' in body)
    assert (200, True) == (nsqd.ask("/info")[0], b'"tcp_port":-1' in nsqd.ask("/info")[1])
    client.close()
    assert 0 == nsqd.stop()
    assert [False] * 3 == [os.path.exists(path) for path in files]


def test_files_of_a_killed_one_are_in_nobodys_way(nsqd, tmp_path):
    """The next start takes them over; another nsqd is refused while this one listens."""
    nsqd.kill()
    nsqd.begin()
    other = UnixDaemon(tmp_path / "other", os.path.dirname(nsqd.web))

    other.spawn()

    assert 1 == other.wait()
    assert f"listen ({nsqd.address}) failed - another process listens there" in other.log()
    assert (200, b"OK") == nsqd.ask("/ping")


@pytest.mark.parametrize("umask, mode", [(0o077, 0o700), (0o002, 0o775)])
def test_who_may_connect(nsqd, umask, mode):
    """The mode of the files is what the umask leaves."""
    assert 0 == nsqd.stop()
    nsqd.spawn(umask=umask)
    nsqd.wait_for("HTTPS: listening on ")

    assert [mode] * 3 == [
        stat.S_IMODE(os.stat(path).st_mode) for path in (nsqd.address, nsqd.web, nsqd.secure_web)
    ]


def test_our_programs_find_it(nsqd):
    """`nsqkit.cluster` and `nsqkit bench` take paths for addresses."""
    nsqd.connect().publish("t", b"x")

    async def ask() -> None:
        async with Cluster() as cluster:
            answers = await cluster.stats([nsqd.web, f"{nsqd.web}.no"])
            assert ["t"] == [topic.topic_name for topic in answers.value.topics]
            assert [f"{nsqd.web}.no: cannot connect: No such file or directory"] == [
                str(failure) for failure in answers.failures
            ]
            assert [nsqd.web] == [one.node for one in (await cluster.nsqd_nodes([nsqd.web])).value]
            assert [nsqd.web] == (await cluster.post([nsqd.web], "/topic/empty", {"topic": "t"})).answered

    asyncio.run(ask())
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "nsqkit",
                "bench",
                "pub",
                "http",
                "latency",
                "consume",
                "--messages=200",
                "--rate=200",
            ),
            *(f"--nsqd-tcp-address={nsqd.address}", f"--nsqd-http-address={nsqd.web}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "latency" in done.stdout


def test_nsqlookupds_refuse_a_node_without_ports(tmp_path):
    """That is said when it starts, with what would be right."""
    with tempfile.TemporaryDirectory(prefix="nsqkit-") as sockets:
        lookupd = "--lookupd-tcp-address=127.0.0.1:1"
        daemon = UnixDaemon(tmp_path / "nsqd", sockets, lookupd)
        daemon.spawn()
        said = daemon.wait_for("WARNING: LOOKUPD: port 0 is refused there: say --broadcast-tcp-port")
        assert "TCP port 0, HTTP port 0\n" in said
        assert 0 == daemon.stop()
        daemon.flags += ["--broadcast-tcp-port=4150", "--broadcast-http-port=4151"]
        daemon.spawn()
        daemon.wait_for("TCP port 4150, HTTP port 4151\n")
        assert "is refused there" not in daemon.wait_for("LOOKUPD(127.0.0.1:1): adding peer")
        daemon.close()
