"""Passes of the event loop, measured with clocks that are set by hand."""

import asyncio

from nsqkit.nsqlookupd.passes import SHORT, Passes


def test_the_longest_pass_counts():
    """What was used since the last measurement was used in one pass; short ones are measured together."""

    async def main() -> list[float]:
        times = {"now": 0.0, "cpu": 1.0}
        passes = Passes(lambda: times["cpu"], lambda: times["now"])
        found = []
        for took, used in ((1.0, 0.25), (SHORT / 2, 0.5), (SHORT, 0.5), (1.0, 0.125)):
            passes.note()
            passes.note()
            times["now"] += took
            times["cpu"] += used
            await asyncio.sleep(0)
            found.append(passes.longest)
        return found

    assert [0.25, 0.25, 1.0, 1.0] == asyncio.run(main())
