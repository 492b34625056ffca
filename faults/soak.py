"""Half of top speed for an hour, with topics, channels and clients that come and go: does anything grow?

    python -m faults.soak [--minutes 60] [--rate N] [--output soak.jsonl] [--docs docs]
    python -m faults.soak --report soak.jsonl --docs docs

Writes one JSON line for each sample, prints a table at the end (and so far, with --report), and with --docs renews
soak.md and soak.svg there. Exit code 1 if something grows, or the channels do not drain.
"""

import argparse
import asyncio
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from faults import chart, flat
from faults.churn import CHANNELS, STEADY, Load
from faults.facts import Journal
from faults.run import depths_of
from faults.server import HarnessError, Server
from nsqkit.bench import process

MEASURE_S = 8.0
DRAIN_S = 60.0
FLAGS = ("--max-bytes-per-file=8388608",)

PAGE = """# The soak

{about}

![memory, open files, data path, latency and CPU over time](soak.svg)

{table}

The trend is the median of the slopes between any two samples of the second half (Theil-Sen), times its length. Latency
is from the PUB's body being made to its arrival at a consumer: the load generator, which gets its share of the same two
cores, and the moments in which a channel's only consumer connects again are part of it.

{end}

Four steady topics with two channels each take the rate, one with PUBs and DPUBs, three with MPUBs of 20; 200 bytes a
body. One message in a hundred is requeued, a tenth of the PUBs are deferred by up to 30 s; each consumer hangs up in
the middle of its work after 20 s on average and comes again. Each second brings a topic that was never seen before: it
gets a channel and an ephemeral one, a hundred messages and one that is deferred by a minute, is half consumed, and is
deleted 8 s later; every third topic is ephemeral itself. Segments are 8 MiB (`{flags}`), so that they come and go, too.

    make soak MINUTES=60            # again; RATE=4000 instead of half of top speed
    python -m faults.soak --report soak.jsonl --docs docs    # this page, from the samples
"""


async def soak(arguments: argparse.Namespace, directory: Path) -> bool:
    """Run it; True if it drained."""
    with Journal(directory / "journal") as journal:
        data_path = directory / "data"
        data_path.mkdir()
        server = Server(directory, data_path, journal, FLAGS, program=shlex.split(arguments.nsqd))
        load = Load(server, arguments.rate, Random(arguments.seed))
        try:
            await server.start()
            load.start()
            if not arguments.rate:
                await asyncio.sleep(MEASURE_S)
                load.rate = load.published / MEASURE_S / 2
                await load.stop()
                load = Load(server, load.rate, Random(arguments.seed))
                load.start()
            with open(arguments.output, "w") as output:  # noqa: ASYNC230 - a line now and then
                await sample(load, data_path, arguments, output)
                load.ending = True
                drained = await drain(server)
                counts = vars(load) | {"drained": drained, "owed": load.published * len(CHANNELS)}
                wanted = (
                    "published",
                    "owed",
                    "delivered",
                    "requeued",
                    "deferred",
                    "visits",
                    "connects",
                    "failures",
                )
                print(json.dumps({"end": {name: counts[name] for name in (*wanted, "drained")}}), file=output)
            await load.stop()
            await server.stop()
        finally:
            await load.stop()
            server.close()
        return drained


async def sample(load: Load, data_path: Path, arguments: argparse.Namespace, output: Any) -> None:
    """A line each few seconds, until the time is over."""
    machine = {"cpu": process.cpu_model(), "cores": os.cpu_count(), "python": platform.python_version()}
    head = {
        "rate": load.rate,
        "measured": not arguments.rate,
        "minutes": arguments.minutes,
        "date": time.strftime("%Y-%m-%d"),
        **machine,
    }
    print(json.dumps({"head": head}), file=output, flush=True)
    pid = load.server.pid
    began = before = time.monotonic()
    cpu, own, published, delivered = (
        process.cpu_ns(pid) or 0,
        time.process_time(),
        load.published,
        load.delivered,
    )
    load.latencies.clear()
    while before - began < arguments.minutes * 60:
        await asyncio.sleep(arguments.every)
        now, cpu_now, own_now = time.monotonic(), process.cpu_ns(pid) or 0, time.process_time()
        seconds = now - before
        latencies, load.latencies = sorted(load.latencies), []
        line = {
            "seconds": round(now - began, 2),
            "rss_mb": (process.resident_bytes(pid) or 0) / 1e6,
            "files": len(os.listdir(f"/proc/{pid}/fd")),
            "disk_mb": await asyncio.to_thread(used_bytes, data_path) / 1e6,
            "p50_ms": quantile(latencies, 0.5) / 1e6,
            "p99_ms": quantile(latencies, 0.99) / 1e6,
            "cpu_percent": (cpu_now - cpu) / 1e7 / seconds,
            "own_cpu_percent": (own_now - own) * 100 / seconds,
            "published_per_s": (load.published - published) / seconds,
            "delivered_per_s": (load.delivered - delivered) / seconds,
        }
        print(json.dumps({key: round(value, 3) for key, value in line.items()}), file=output, flush=True)
        before, cpu, own, published, delivered = now, cpu_now, own_now, load.published, load.delivered


async def drain(server: Server) -> bool:
    """True when nothing is left in the steady channels before long."""
    give_up = time.monotonic() + DRAIN_S
    while time.monotonic() < give_up:
        depths = depths_of(await server.stats())
        if not any(depth for name, depth in depths.items() if name.partition("/")[0] in STEADY):
            return True
        await asyncio.sleep(0.5)
    return False


def used_bytes(directory: Path) -> int:
    """What the files below it take."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def quantile(ordered: Sequence[int], share: float) -> float:
    """Of sorted values; 0 of none."""
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else 0.0


def report(arguments: argparse.Namespace) -> bool:
    """Print the verdicts on the samples so far, and renew the page if that is wanted; True if all is flat."""
    with open(arguments.report or arguments.output) as file:
        lines = [json.loads(line) for line in file]
    head = lines[0]["head"]
    samples = [line for line in lines if "seconds" in line]
    ends = [line["end"] for line in lines if "end" in line]
    if len(samples) < 4:
        print("too few samples yet")
        return False
    verdicts = flat.judge(samples)
    middle = {key: sorted(one[key] for one in samples)[len(samples) // 2] for key in samples[0]}
    how = "half of top speed" if head.get("measured") else "a modest rate, as the machine was not ours alone"
    about = (
        f"{samples[-1]['seconds'] / 60:.0f} minutes on {head['date']}, at {how}: {middle['published_per_s']:,.0f} "
        f"messages a second published and {middle['delivered_per_s']:,.0f} delivered, with nsqd at "
        f"{middle['cpu_percent']:.0f} % and the load at {middle['own_cpu_percent']:.0f} % of a core. {head['cores']} "
        f"cores of {head['cpu']}, which others used at the same time, CPython {head['python']}. A sample each few "
        f"seconds."
    )
    end = "The run was not over when this was written."
    if ends:
        counts = ends[0]
        drained = (
            "Then every steady channel was empty." if counts["drained"] else "The channels did NOT drain."
        )
        end = (
            f"Altogether {counts['published']:,} messages were answered OK on the steady topics, "
            f"{counts['delivered']:,} deliveries came, {counts['requeued']:,} were requeued, "
            f"{counts['deferred']:,} deferred; {counts['visits']:,} topics came and went, {counts['connects']:,} "
            f"connections were made, {counts['failures']} of them failed unexpectedly. {drained}"
        )
    table = flat.table(verdicts)
    print(about, table, end, sep="\n\n")
    if arguments.docs:
        page = PAGE.format(about=about, table=table, end=end, flags=" ".join(FLAGS))
        Path(arguments.docs, "soak.md").write_text(page)
        Path(arguments.docs, "soak.svg").write_text(chart.svg(samples))
    return all(one.flat for one in verdicts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=0, help="messages a second; 0: half of what goes")
    parser.add_argument("--every", type=float, default=5, help="seconds between samples (5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nsqd", default="", help="the command, of one or more words")
    parser.add_argument("--output", default="soak.jsonl", help="where the samples go (soak.jsonl)")
    parser.add_argument(
        "--report", default="", metavar="FILE", help="run nothing; judge the samples of this file"
    )
    parser.add_argument("--docs", default="", metavar="DIRECTORY", help="renew soak.md and soak.svg there")
    arguments = parser.parse_args(argv)
    drained = True
    if not arguments.report:
        with tempfile.TemporaryDirectory(prefix="nsqkit-soak-") as directory:
            try:
                drained = asyncio.run(soak(arguments, Path(directory)))
            except HarnessError as error:
                print(error, file=sys.stderr)
                return 1
    return 0 if report(arguments) and drained else 1


if __name__ == "__main__":
    sys.exit(main())
