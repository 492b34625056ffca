"""docs/testing.md: what it shows works."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"((?:^(?: {4}.*)?\n)+)", re.MULTILINE)


def files():
    """The indented blocks that begin with the name of a file, by that name."""
    blocks = [
        textwrap.dedent(block).strip() for block in NAMED.findall((ROOT / "docs/testing.md").read_text())
    ]
    return {block[2 : block.index("\n")]: block + "\n" for block in blocks if block.startswith("# ")}


def test_its_examples_run(tmp_path):
    """The tests in it pass with pytest and pytest-asyncio, warnings being errors; the script prints what it should."""
    for name, content in files().items():
        (tmp_path / name).write_text(content)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\npythonpath = .\nasyncio_default_fixture_loop_scope = function\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    pytest = [sys.executable, "-m", "pytest", "-p", "nsqkit.testing.plugin", "-p", "no:cacheprovider"]

    tests = subprocess.run(pytest, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    script = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, check=True
    )

    assert "5 passed" in tests.stdout, tests.stdout + tests.stderr
    assert b"[b'one book']\n" == script.stdout


def test_it_names_everything():
    """Each public name of `Nsq` that a test may use is in it."""
    from nsqkit.testing import Nsq

    text = (ROOT / "docs/testing.md").read_text()
    unexplained = {"start", "stop"}  # `async with`

    names = {name for name in vars(Nsq) if not name.startswith("_")} - unexplained

    assert set() == {name for name in names if f"nsq.{name}" not in text}
