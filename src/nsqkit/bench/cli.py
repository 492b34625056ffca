"""The command line of `nsqkit bench`: options in, cases out, and the exit code."""

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Final

import uvloop
from rich.console import Console

from nsqkit.bench import report, scenarios, server
from nsqkit.bench.clients import BenchError
from nsqkit.bench.frames import STAMP_BYTES
from nsqkit.bench.scenarios import Case
from nsqkit.errors import StartError
from nsqkit.log import Log
from nsqkit.program import Parser
from nsqkit.tokens import OwnToken

DEFAULT_SCENARIOS: Final = ("pub", "consume", "pubsub", "latency")
LAYERED_SCENARIOS: Final = ("pub", "consume", "pubsub")
LAYERS: Final = ("tls_v1", "snappy", "deflate")  # from the socket up
DEFAULT_BATCHES: Final = {"pub": (1, 20, 200), "pubsub": (200,)}
DEFAULT_TCP: Final = "127.0.0.1:4150"
DEFAULT_DURATION_S: Final = 3.0
DEFAULT_LATENCY_DURATION_S: Final = 5.0
DEFAULT_MESSAGES: Final = 1_000_000
DEFAULT_CONSUME_MESSAGES: Final = 500_000
FSYNC_CONNECTIONS: Final = 64
TOKEN_FILE: Final = "--http-client-token-file"  # noqa: S105 - a flag
INTERRUPTED: Final = 130  # exit code after Ctrl-C, as shells have it

_DESCRIPTION: Final = """\
Make load on an nsqd (this one or any other) and report messages per second,
latency, and the CPU time the server itself spent on each message.

scenarios:
  pub      publish, one command at a time per connection: PUB for a batch of 1,
           MPUB for more
  consume  publish in advance with MPUB, then measure delivery and FIN alone
  pubsub   publish and consume at once, until everything is finished
  latency  PUB at a fixed rate; time from when each message was due to be sent
           to its arrival
  http     POST /pub over connections that stay open
  fsync    group commit: pub with batch 1 over 1 connection, over 64, and over
           64 with a topic each
"""

_EPILOG: Final = """\
examples:
  nsqkit bench                  the nsqd on this machine, the usual questions
  nsqkit bench pub --batch 200 --connections 2 --rounds 5
  nsqkit bench latency --rate 5000 --duration 10 --json latency.json
  nsqkit bench --nsqd-tcp-address 10.0.0.7:4150
  nsqkit bench --spawn nsqd pub consume
  nsqkit bench --spawn "nsqd --durability=fsync" fsync

Each case runs once unmeasured, so that memory and disk are warm, and then
--rounds times; the table shows medians. CPU figures need Linux and a server on
this machine. Ctrl-C ends it with the figures there are. Exit code: 0, 1 when a
case failed (an error from the server, a refused connection, lost messages), 2
for wrong usage, 130 after Ctrl-C.
"""


def main(argv: Sequence[str]) -> int:
    """Run `nsqkit bench` with these arguments; the table goes to stdout, everything else to stderr."""
    arguments = build_parser().parse_args(argv)
    try:
        cases = build_cases(arguments)
        return uvloop.run(_bench(arguments, cases))
    except (BenchError, StartError, OSError) as error:
        print(f"nsqkit bench: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"nsqkit bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    """Every option, declared once."""
    parser = Parser(
        prog="nsqkit bench",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help=f"what to run, in this order (default: {' '.join(DEFAULT_SCENARIOS)}; http if its address is known)",
    )
    _add_server_options(parser.add_argument_group("the server"))
    _add_load_options(parser.add_argument_group("the load"))
    group = parser.add_argument_group("rounds and results")
    group.add_argument(
        "--rounds", type=_positive, default=1, metavar="N", help="measured rounds per case (default: 1)"
    )
    group.add_argument(
        "--timeout",
        dest="timeout_s",
        type=_positive_float,
        default=15.0,
        metavar="SECONDS",
        help="give a case up when nothing has arrived for so long (default: 15)",
    )
    group.add_argument("--no-warm-up", action="store_true", help="measure from the first message on")
    group.add_argument(
        "--json", type=Path, metavar="FILE", help="write all rounds and the facts of machine and server"
    )
    return parser


def build_cases(arguments: argparse.Namespace) -> list[Case]:
    """The cases asked for; raises ValueError when they make no sense."""
    arguments.layers = tuple(layer for layer in LAYERS if getattr(arguments, layer))
    plain = DEFAULT_SCENARIOS if not arguments.layers else LAYERED_SCENARIOS
    names = list(arguments.scenarios or plain)
    unknown = [name for name in names if name != "fsync" and name not in scenarios.SCENARIOS]
    if unknown:
        raise ValueError(
            f"unknown scenario {unknown[0]!r}; there are {', '.join([*scenarios.SCENARIOS, 'fsync'])}"
        )
    cases = [case for name in names for case in _cases_of(name, arguments)]
    for case in cases:
        _check(case)
    return cases


def _add_server_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--nsqd-tcp-address",
        type=server.Address.parse,
        default=DEFAULT_TCP,
        metavar="HOST:PORT",
        help=f"where it listens, or the path of its unix socket (default: {DEFAULT_TCP})",
    )
    group.add_argument(
        "--nsqd-http-address",
        type=server.Address.parse,
        metavar="HOST:PORT",
        help="needed for http, for its version, and to delete our topics afterwards (default: the port after the TCP "
        "one, if the same nsqd answers there)",
    )
    group.add_argument(
        TOKEN_FILE,
        default="",
        metavar="FILE",
        help="holds the token to send over HTTP, good for publishing and administration (default: none is sent)",
    )
    group.add_argument(
        "--server-pid",
        type=_positive,
        metavar="PID",
        help="whose CPU and memory to report (default: who listens on the TCP address, if that is on this machine)",
    )
    group.add_argument(
        "--spawn",
        metavar="COMMAND",
        help="start this nsqd on free loopback ports and measure it; it gets a temporary --data-path (below $TMPDIR) "
        "unless it names one",
    )


def _add_load_options(group: argparse._ArgumentGroup) -> None:
    def number(flag: str, default: int, text: str) -> None:
        group.add_argument(
            flag, type=_positive, default=default, metavar="N", help=f"{text} (default: {default})"
        )

    group.add_argument(
        "--batch",
        type=_positive_list,
        metavar="N[,N...]",
        help="messages per command of pub and pubsub (default: 1,20,200 for pub, 200 for pubsub)",
    )
    for layer, what in (
        ("tls", "TLS, whatever certificate the server shows"),
        ("snappy", "snappy"),
        ("deflate", "deflate"),
    ):
        group.add_argument(
            f"--{layer}",
            dest="tls_v1" if layer == "tls" else layer,
            action="store_true",
            help=f"talk through {what}; for {', '.join(LAYERED_SCENARIOS)}",
        )
    group.add_argument(
        "--body",
        type=_filling,
        metavar="FILE",
        help="pub, consume, pubsub: cut the messages out of this file, to see what compression makes of its like "
        "(default: one letter, over and over)",
    )
    number("--size", 200, "bytes per message")
    number("--connections", 2, "publishing connections")
    number("--window", 1, "commands each connection keeps unanswered; 1 waits for every OK")
    number("--consumers", 1, "consuming connections")
    number("--rdy", 2500, "messages in flight to each consumer, at most what the server allows")
    group.add_argument(
        "--channels",
        type=_natural,
        default=1,
        metavar="N",
        help="channels that get each message (default: 1)",
    )
    group.add_argument(
        "--topic-each", action="store_true", help="pub: a topic of its own for each connection"
    )
    group.add_argument(
        "--rate",
        type=_positive_float,
        default=1000.0,
        metavar="N",
        help="latency: messages/s (default: 1000)",
    )
    group.add_argument(
        "--messages",
        type=_positive,
        metavar="N",
        help=f"end a round after so many (default: {DEFAULT_CONSUME_MESSAGES:,} for consume; for others "
        f"{DEFAULT_MESSAGES:,} or --duration, whichever comes first)",
    )
    group.add_argument(
        "--duration",
        type=_positive_float,
        metavar="SECONDS",
        help=f"end a round after this time, not for consume (default: {DEFAULT_DURATION_S:g}, latency "
        f"{DEFAULT_LATENCY_DURATION_S:g})",
    )
    group.add_argument(
        "--topic",
        metavar="NAME",
        help="publish here, and leave the topic behind (default: a new topic for each round, deleted afterwards)",
    )
    group.add_argument(
        "--channel", default="bench", metavar="NAME", help="consume from here (default: bench)"
    )


def _cases_of(name: str, arguments: argparse.Namespace) -> Iterator[Case]:
    def case(scenario: str, **changes: object) -> Case:
        messages, duration = _limits(scenario, arguments)
        options: dict[str, object] = {
            "scenario": scenario,
            "messages": messages,
            "duration_s": duration,
            **{key: getattr(arguments, key) for key in _CASE_OPTIONS},
            **changes,
        }
        return Case(**options)  # type: ignore[arg-type]

    if name == "fsync":
        yield case("pub", connections=1, topic_each=False)
        yield case("pub", connections=FSYNC_CONNECTIONS, topic_each=False)
        yield case("pub", connections=FSYNC_CONNECTIONS, topic_each=True)
    elif name in DEFAULT_BATCHES:
        for batch in arguments.batch or DEFAULT_BATCHES[name]:
            yield case(name, batch=batch, topic_each=arguments.topic_each and name == "pub")
    else:
        yield case(name, connections=arguments.connections if name == "http" else 1)


_CASE_OPTIONS: Final = (
    "connections",
    "consumers",
    "channels",
    "size",
    "window",
    "rdy",
    "rate",
    "topic",
    "channel",
    "timeout_s",
    "layers",
    "body",
)


def _limits(scenario: str, arguments: argparse.Namespace) -> tuple[int | None, float | None]:
    """When a round ends: (messages, seconds). Giving one of them lifts the other's default."""
    messages: int | None = arguments.messages
    duration: float | None = arguments.duration
    if scenario == "consume":
        return messages or DEFAULT_CONSUME_MESSAGES, None
    if messages is None and duration is None:
        if scenario == "latency":
            return None, DEFAULT_LATENCY_DURATION_S
        return DEFAULT_MESSAGES, DEFAULT_DURATION_S
    return messages, duration


def _check(case: Case) -> None:
    if case.messages is not None and case.messages < case.batch:
        raise ValueError(f"{case.label}: {case.messages} messages are less than one batch")
    if case.scenario == "latency" and case.size < STAMP_BYTES:
        raise ValueError(f"latency needs messages of at least {STAMP_BYTES} bytes, for the time they carry")
    if case.layers and case.scenario not in LAYERED_SCENARIOS:
        raise ValueError(
            f"{case.scenario} has no --tls, --snappy or --deflate; {', '.join(LAYERED_SCENARIOS)} have"
        )
    if "snappy" in case.layers and "deflate" in case.layers:
        raise ValueError("--snappy and --deflate exclude each other")
    if case.channels < 1 and case.scenario in ("pubsub", "consume", "latency"):
        raise ValueError(f"{case.scenario} needs a channel")


async def _bench(arguments: argparse.Namespace, cases: list[Case]) -> int:
    async with _target(arguments) as target:
        info = await target.info()
        if not arguments.scenarios and not arguments.layers and target.http is not None:
            cases = [*cases, *_cases_of("http", arguments)]
        facts = report.gather_facts(
            server=info,
            address=str(target.tcp),
            pid=target.pid,
            command=arguments.spawn,
            event_loop=f"uvloop {version('uvloop')}",
        )
        if target.pid is None:
            print(
                "nsqkit bench: no CPU figures: the server's process is not known; see --server-pid",
                file=sys.stderr,
            )
        await target.longest_pass()  # begins anew
        results, interrupted = await _run_cases(target, cases, arguments)
        longest = None if interrupted else await target.longest_pass()
    server_line = f"nsqd {info.get('version', '(version unknown)')} at {target.tcp}"
    print("\n".join(report.wrapped(f"{server_line}; {facts.cpus} CPUs, {facts.cpu_model}")))
    print(report.table(results))
    if longest is not None:
        print(
            f"longest pass of nsqd's event loop: {longest[0] / 1e3:.1f} ms of CPU, {longest[1] / 1e3:.1f} ms long"
        )
    if arguments.json is not None:
        arguments.json.write_bytes(report.encode_json(facts, results))
    if interrupted:
        return INTERRUPTED
    return 1 if any(result.error for result in results) else 0


async def _run_cases(
    target: server.Target, cases: Sequence[Case], arguments: argparse.Namespace
) -> tuple[list[report.Result], bool]:
    """The results, and whether Ctrl-C came before the end: it cancels this task."""
    results: list[report.Result] = []
    with _progress() as (on_progress, on_result):
        for case in cases:
            try:
                result = await scenarios.run_case(
                    target,
                    case,
                    rounds=arguments.rounds,
                    warm_up=not arguments.no_warm_up,
                    on_progress=on_progress,
                )
            except scenarios.Interrupted as interrupted:
                results.append(interrupted.result)
                return results, True
            on_result(result)
            results.append(result)
    return results, False


@contextlib.asynccontextmanager
async def _target(arguments: argparse.Namespace) -> AsyncIterator[server.Target]:
    token = OwnToken(TOKEN_FILE, arguments.http_client_token_file, Log("[nsqkit bench] ")).get()
    if arguments.spawn is not None:
        async with server.spawned(arguments.spawn, token) as target:
            yield target
    else:
        yield await server.find_target(
            arguments.nsqd_tcp_address, arguments.nsqd_http_address, arguments.server_pid, token
        )


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[str, int], None], Callable[[report.Result], None]]]:
    """What to call while a case runs and when it is done: a live line on a terminal, else one line per case."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _title, _messages: None, lambda result: print(report.one_line(result), file=sys.stderr)
        return
    started = monotonic()

    def update(title: str, messages: int) -> None:
        status.update(f"{title}: {messages:,} messages, {monotonic() - started:.0f} s in all")

    with console.status("connecting", refresh_per_second=4) as status:
        yield update, lambda result: console.print(report.one_line(result), markup=False)


def _filling(text: str) -> str:
    if not Path(text).is_file() or Path(text).stat().st_size == 0:
        raise argparse.ArgumentTypeError(f"{text} is no file with something in it")
    return text


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _positive_list(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))
