"""The client's example in README.md, against a real nsqd."""

import re
import signal
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_clients_example_runs_as_pasted(launch, tmp_path):
    """It publishes, receives what it published, and ends at Ctrl-C."""
    daemon = launch()
    text = README.read_text(encoding="utf-8")
    (program,) = (
        re.sub("(?m)^    ", "", block)
        for block in re.findall(r"(?:^(?:    .*)?\n)+", text, re.MULTILINE)
        if "async for" in block
    )
    path = tmp_path / "example.py"
    path.write_text(program.replace("127.0.0.1:4150", f"127.0.0.1:{daemon.address[1]}"), encoding="utf-8")

    with subprocess.Popen(
        [sys.executable, "-W", "error", "-u", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    assert ["one book\n", "two books\n"] == lines
    assert "KeyboardInterrupt" == errors.strip().splitlines()[-1]
    assert "was never" not in errors
