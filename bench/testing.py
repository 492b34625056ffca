"""How long a test waits for its broker: importing nsqkit.testing, and starting and stopping an `Nsq`.

python bench/testing.py [--starts 20]
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence


async def starts(count: int) -> list[tuple[float, float]]:
    """Seconds for starting, and for stopping, each of `count` of them."""
    from nsqkit.testing import Nsq  # noqa: PLC0415 - its import is measured

    took = []
    for _ in range(count):
        nsq = Nsq()
        began = time.perf_counter()
        await nsq.start()
        stood = time.perf_counter()
        await nsq.stop()
        took.append((stood - began, time.perf_counter() - stood))
    return took


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="How long a test waits for its broker.")
    parser.add_argument("--starts", type=int, default=20)
    count = parser.parse_args(arguments).starts
    began = time.perf_counter()
    from nsqkit.testing import Nsq  # noqa: F401, PLC0415 - this is what is measured

    print(f"import           {1000 * (time.perf_counter() - began):7.1f} ms")
    first, *others = asyncio.run(starts(count))
    print(f"first start      {1000 * first[0]:7.1f} ms")
    for what, at in (("start", 0), ("stop", 1)):
        times = sorted(1000 * one[at] for one in others)
        print(f"{what:<16} {statistics.median(times):7.1f} ms, at most {times[-1]:.1f}")


if __name__ == "__main__":
    main()
