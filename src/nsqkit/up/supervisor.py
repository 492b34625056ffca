"""Starts the programs, relays what they say, starts them again when they die, and stops them.

Rules: each program has one task, from its first start to its last end; a program is started only while nobody has
asked to stop; every wait has a limit. The programs have sessions of their own, so a Ctrl-C reaches only us.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from nsqkit.log import Log
from nsqkit.up.lines import Splitter, plain
from nsqkit.up.plan import NSQLOOKUPD, Program
from nsqkit.up.restarts import START_ATTEMPTS, Restarts

STOP_TIMEOUT_S: Final = 30.0  # for all nsqds together, to write everything down
LAST_TIMEOUT_S: Final = 5.0  # for nsqlookupd, which has nothing to write, and for what was killed
FIRST_TIMEOUT_S: Final = 5.0  # for nsqlookupd to listen, before the nsqds look for it
CHUNK_BYTES: Final = 65536

_LISTENS: Final = "TCP: listening on "  # as nsqlookupd says it


class Supervisor:
    """Keeps some programs running until it is told to stop."""

    def __init__(
        self,
        programs: Sequence[Program],
        log: Log,
        relay: Callable[[str, str], None],
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        """`log` is for what we say ourselves; `relay` takes a program's name and a line it wrote."""
        self._programs = programs
        self._log = log
        self._relay = relay
        self._stop_timeout_s = stop_timeout_s
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._last_words: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self._nsqlookupd_started = asyncio.Event()  # it listens, or has failed; or there is none
        if NSQLOOKUPD not in {program.name for program in programs}:
            self._nsqlookupd_started.set()
        self._failed = False
        self._killed: set[str] = set()

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stopping.is_set()

    async def run(self) -> int:
        """Run until `stop` is called or a program will not start; 0 if all ended as they should, 1 otherwise."""
        keepers = {program.name: asyncio.create_task(self._keep(program)) for program in self._programs}
        told = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([told, *keepers.values()], return_when=asyncio.FIRST_COMPLETED)
        self._begin_to_stop()
        # nsqds first: then they can still take leave of their nsqlookupd.
        await self._end(
            {name: one for name, one in keepers.items() if name != NSQLOOKUPD}, self._stop_timeout_s
        )
        await self._end({name: one for name, one in keepers.items() if name == NSQLOOKUPD}, LAST_TIMEOUT_S)
        await told
        if self._killed:
            self._log.warning(f"had to be killed: {', '.join(sorted(self._killed))}")
        self._log.info("everything has stopped")
        return 1 if self._failed or self._killed else 0

    def stop(self) -> None:
        """Ask all programs to stop, and start none of them again."""
        if not self.stopping:
            self._log.info("stopping")
            self._begin_to_stop()

    def kill(self) -> None:
        """End all programs now."""
        self._begin_to_stop()
        self._kill(set(self._running))

    def _begin_to_stop(self) -> None:
        self._stopping.set()
        self._nsqlookupd_started.set()  # nobody waits for that any more

    # -- one program

    async def _keep(self, program: Program) -> None:
        restarts = Restarts()
        loop = asyncio.get_running_loop()
        if program.name != NSQLOOKUPD:  # which would be in vain before it listens
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nsqlookupd_started.wait(), FIRST_TIMEOUT_S)
        while not self._stopping.is_set():
            restarts.started(loop.time())
            code = await self._live(program)
            if program.name == NSQLOOKUPD:
                self._nsqlookupd_started.set()
            if self._stopping.is_set():
                return
            pause = restarts.ended(code, loop.time())
            if pause is None:
                self._give_up(program, code)
                return  # which ends the others too
            when = f"in {pause:.0f} s" if pause else "now"
            self._log.warning(f"{program.name} {ending(code)}; it is started again {when}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self, program: Program) -> int:
        """One life of a program: start it, relay what it says, and return its exit code, -N for signal N."""
        try:
            process = await asyncio.create_subprocess_exec(
                *program.command(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._last_words[program.name] = f"can't start a process: {error.strerror or error}"
            return 1
        self._running[program.name] = process
        try:
            if self._stopping.is_set():  # asked for while it was being started
                self._signal(program.name, signal.SIGTERM)
            await self._relay_all(program.name, process)
            return await process.wait()
        finally:
            del self._running[program.name]

    async def _relay_all(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        splitter = Splitter()
        while chunk := await process.stdout.read(CHUNK_BYTES):
            self._say(name, splitter.feed(chunk))
        self._say(name, splitter.end())

    def _say(self, name: str, lines: Sequence[str]) -> None:
        for line in lines:
            self._relay(name, line)
            self._last_words[name] = line
            if name == NSQLOOKUPD and _LISTENS in line:
                self._nsqlookupd_started.set()

    def _give_up(self, program: Program, code: int) -> None:
        words = plain(self._last_words.get(program.name, "nothing"))
        self._log.fatal(
            f"{program.name} did not start, {START_ATTEMPTS} times in a row: it {ending(code)}; its last words: {words}"
        )
        self._failed = True

    # -- the end

    async def _end(self, keepers: dict[str, asyncio.Task[None]], timeout_s: float) -> None:
        if not keepers:
            return
        for name in keepers:
            self._signal(name, signal.SIGTERM)
        await asyncio.wait(keepers.values(), timeout=timeout_s)
        late = {name for name, keeper in keepers.items() if not keeper.done()}
        if late:
            self._kill(late)
            await asyncio.wait(keepers.values(), timeout=LAST_TIMEOUT_S)
        for keeper in keepers.values():
            keeper.cancel()  # that of a process which not even SIGKILL ends, for the kernel holds it
            with suppress(asyncio.CancelledError):
                await keeper

    def _kill(self, names: set[str]) -> None:
        for name in names & set(self._running):
            self._killed.add(name)
            self._signal(name, signal.SIGKILL)

    def _signal(self, name: str, number: int) -> None:
        if (process := self._running.get(name)) is not None:
            with suppress(ProcessLookupError):
                process.send_signal(number)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
