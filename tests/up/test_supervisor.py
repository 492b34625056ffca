"""Starting, restarting and stopping, with small scripts in the place of the programs."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import pytest

from nsqkit.log import Log
from nsqkit.up.plan import NSQLOOKUPD, Ports, Program
from nsqkit.up.supervisor import Supervisor, ending

WAIT_S = 30

IDLE = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = """if True:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        signal.pause()
"""
POLITE = """if True:
    import signal, sys
    def stop(*_):
        print("stopped", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    signal.pause()
"""
LISTENS = "TCP: listening on 127.0.0.1:1"
LISTENING = f"print({LISTENS!r}, flush=True)\n"


class Script(Program):
    """A program whose flags are Python source."""

    __slots__ = ()

    def command(self, parent: int) -> list[str]:
        """Run the source; the parent's pid is its argument."""
        return [sys.executable, "-c", *self.flags, str(parent)]


def script(name: str, source: str) -> Script:
    """A program of this name that does this."""
    return Script(name, "", "127.0.0.1", Ports(1, 2), "", (source,))


class Stage:
    """A supervisor with everything it says, in order: (name, line)."""

    def __init__(self, *programs: Program, stop_timeout_s: float = WAIT_S):
        self.said: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        log = Log(write=lambda line: self._hear("up", line.rstrip("\n")))
        self.supervisor = Supervisor(programs, log, self._hear, stop_timeout_s)
        self._run: asyncio.Task[int] | None = None

    def _hear(self, name: str, line: str) -> None:
        self.said.append((name, line))
        self._changed.set()

    def start(self) -> None:
        """Run in the background."""
        self._run = asyncio.create_task(self.supervisor.run())

    async def heard(self, name: str, line: str, times: int = 1) -> None:
        """Wait until this was said so often; `line` may be a part of it."""
        async with asyncio.timeout(WAIT_S):
            while sum(who == name and line in what for who, what in self.said) < times:
                self._changed.clear()
                await self._changed.wait()

    async def code(self) -> int:
        """Wait for the end; the exit code."""
        assert self._run is not None
        async with asyncio.timeout(WAIT_S):
            return await self._run

    def ours(self) -> list[str]:
        """What the supervisor said itself, without time stamps."""
        return [line.split(" ", 2)[2] for name, line in self.said if name == "up"]


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function in a loop of its own."""

    async def whole() -> None:
        await scene()

    asyncio.run(whole())


def test_output_is_relayed_by_name():
    """Lines of stdout and stderr come with the name of their program, also a last one without an end."""
    source = "import os; os.write(1, b'out\\n'); os.write(2, b'err\\nrest')"

    async def scene():
        stage = Stage(script("nsqd-1", source), script(NSQLOOKUPD, LISTENING + IDLE))
        stage.start()
        await stage.heard("nsqd-1", "rest")
        await stage.heard(NSQLOOKUPD, "ready")
        stage.supervisor.stop()
        assert 0 == await stage.code()
        assert ["out", "err", "rest"] == [line for name, line in stage.said if name == "nsqd-1"][:3]

    play(scene)


def test_program_that_was_killed_comes_back():
    """A program that dies is started again, at once, and a line tells what ended it."""
    source = "import os; print('ready', os.getpid(), flush=True); import signal; signal.pause()"

    async def scene():
        stage = Stage(script("nsqd-1", source))
        stage.start()
        await stage.heard("nsqd-1", "ready")
        os.kill(int(stage.said[0][1].split()[1]), signal.SIGKILL)
        await stage.heard("nsqd-1", "ready", times=2)
        stage.supervisor.stop()
        assert 0 == await stage.code()
        assert "WARNING: nsqd-1 was ended by SIGKILL; it is started again now" == stage.ours()[0]

    play(scene)


def test_program_that_does_not_start_ends_everything():
    """After the third refusal the others are stopped, the last words are repeated, and the exit code is 1."""

    async def scene():
        stage = Stage(script("nsqd-1", "raise SystemExit('no such disk')"), script("nsqd-2", POLITE))
        stage.start()
        assert 1 == await stage.code()
        assert [
            "WARNING: nsqd-1 ended with exit code 1; it is started again now",
            "WARNING: nsqd-1 ended with exit code 1; it is started again in 1 s",
            "FATAL: nsqd-1 did not start, 3 times in a row: it ended with exit code 1; its last words: no such disk",
            "INFO: everything has stopped",
        ] == stage.ours()
        assert ("nsqd-2", "stopped") in stage.said

    play(scene)


def test_program_that_can_not_be_run(monkeypatch):
    """When the system starts no process, that counts as a refusal and is what the last words say."""

    async def refuse(*_arguments, **_more):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)

    async def scene():
        stage = Stage(script("nsqd-1", IDLE))
        stage.start()
        assert 1 == await stage.code()
        assert "its last words: can't start a process: Resource temporarily unavailable" in stage.ours()[2]

    play(scene)


def test_nsqlookupd_starts_first():
    """nsqds are started when it listens, so that they look for it once."""

    async def scene():
        source = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n" + LISTENING + IDLE
        stage = Stage(script("nsqd-1", IDLE), script(NSQLOOKUPD, source))
        stage.start()
        await stage.heard("nsqd-1", "ready")
        assert stage.said.index((NSQLOOKUPD, LISTENS)) < stage.said.index(("nsqd-1", "ready"))
        stage.supervisor.stop()
        assert 0 == await stage.code()

    play(scene)


def test_nsqlookupd_that_fails_keeps_nobody_waiting():
    """nsqds are started when it has ended, too."""

    async def scene():
        stage = Stage(script("nsqd-1", IDLE), script(NSQLOOKUPD, "import sys; sys.exit(1)"))
        stage.start()
        await stage.heard("nsqd-1", "ready")
        stage.supervisor.stop()
        assert 0 == await stage.code()

    play(scene)


def test_stop_while_nsqlookupd_starts():
    """No nsqd is started any more."""

    async def scene():
        stage = Stage(script("nsqd-1", IDLE), script(NSQLOOKUPD, IDLE))
        stage.start()
        await stage.heard(NSQLOOKUPD, "ready")
        stage.supervisor.stop()
        await stage.code()
        assert "nsqd-1" not in {name for name, _ in stage.said}

    play(scene)


def test_nsqlookupd_stops_last():
    """nsqds are asked to stop first, and nsqlookupd when they have ended."""

    async def scene():
        stage = Stage(
            script(NSQLOOKUPD, LISTENING + POLITE), script("nsqd-1", POLITE), script("nsqd-2", POLITE)
        )
        stage.start()
        for name in (NSQLOOKUPD, "nsqd-1", "nsqd-2"):
            await stage.heard(name, "ready")
        stage.supervisor.stop()
        stage.supervisor.stop()
        assert 0 == await stage.code()
        assert (NSQLOOKUPD, "stopped") == [(n, line) for n, line in stage.said if line == "stopped"][-1]
        assert ["INFO: stopping", "INFO: everything has stopped"] == stage.ours()

    play(scene)


def test_program_that_does_not_stop_is_killed():
    """What has not ended in time is killed and named, and the exit code tells."""

    async def scene():
        stage = Stage(script("nsqd-1", POLITE), script("nsqd-2", STUBBORN), stop_timeout_s=0.5)
        stage.start()
        await stage.heard("nsqd-1", "ready")
        await stage.heard("nsqd-2", "ready")
        stage.supervisor.stop()
        assert 1 == await stage.code()
        assert "WARNING: had to be killed: nsqd-2" in stage.ours()
        assert ("nsqd-1", "stopped") in stage.said

    play(scene)


def test_kill_waits_for_nobody():
    """`kill` ends everything without a chance to do anything more, also while a stop is under way."""

    async def scene():
        stage = Stage(script("nsqd-1", STUBBORN), script(NSQLOOKUPD, LISTENING + IDLE))
        stage.start()
        await stage.heard("nsqd-1", "ready")
        await stage.heard(NSQLOOKUPD, "ready")
        stage.supervisor.stop()
        assert stage.supervisor.stopping
        stage.supervisor.kill()
        assert 1 == await stage.code()
        assert f"WARNING: had to be killed: nsqd-1, {NSQLOOKUPD}" in stage.ours()

    play(scene)


def test_stop_during_a_start():
    """A program that was being started when the stop came is stopped too."""

    async def scene():
        stage = Stage(script("nsqd-1", IDLE))
        stage.start()
        await asyncio.sleep(0)  # the program's task begins to start it
        stage.supervisor.stop()
        assert 0 == await stage.code()

    play(scene)


def test_stop_during_a_pause():
    """A program that waits to be started again is not started any more."""

    async def scene():
        stage = Stage(script("nsqd-1", "import os; os.abort()"))
        stage.start()
        await stage.heard("up", "started again in 1 s")
        stage.supervisor.stop()
        assert 0 == await stage.code()
        assert not any("again in 2 s" in line for line in stage.ours())

    play(scene)


def test_program_has_a_session_of_its_own():
    """A Ctrl-C on the terminal does not reach the programs, for they are in sessions of their own."""
    source = "import os; print(os.getsid(0) == os.getpid(), flush=True); import signal; signal.pause()"

    async def scene():
        stage = Stage(script("nsqd-1", source))
        stage.start()
        await stage.heard("nsqd-1", "True")
        stage.supervisor.stop()
        assert 0 == await stage.code()

    play(scene)


def test_program_knows_its_parent():
    """The command line is made with our own process id."""

    async def scene():
        stage = Stage(
            script("nsqd-1", "import sys; print(sys.argv[1], flush=True); import signal; signal.pause()")
        )
        stage.start()
        await stage.heard("nsqd-1", str(os.getpid()))
        stage.supervisor.stop()
        assert 0 == await stage.code()

    play(scene)


@pytest.mark.parametrize(
    "code, words",
    [
        (0, "ended with exit code 0"),
        (1, "ended with exit code 1"),
        (-15, "was ended by SIGTERM"),
        (-250, "was ended by signal 250"),
    ],
)
def test_ending_in_words(code, words):
    """A signal is named, where it has a name."""
    assert words == ending(code)
