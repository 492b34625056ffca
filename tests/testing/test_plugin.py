import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
SETTINGS = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
asyncio_mode = {mode}
"""
STRICT = SETTINGS.format(mode="strict")
AUTO = SETTINGS.format(mode="auto")
ANYIO = "[pytest]\nfilterwarnings = error\naddopts = -p no:asyncio\n"

USES = """
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one", delay=3600)
        await nsq.advance(3600)
        await (await consumer.get(timeout=10)).finish()
        await nsq.drained("orders", "billing")
    assert [b"one"] == nsq.topic("orders").published
"""


@pytest.fixture
def run(tmp_path):
    """Runs pytest, with our plugin, on a test file with these settings; what it says, after a check of its status."""

    def start(settings, content, *, status=0):
        (tmp_path / "pytest.ini").write_text(settings)
        (tmp_path / "test_it.py").write_text(content)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "nsqkit.testing.plugin",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
        ]
        path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [*command, "-p", "no:xdist"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert status == done.returncode, done.stdout + done.stderr
        return done.stdout

    return start


def test_pytest_asyncio_in_strict_mode(run):
    """Marked tests have it, whatever loop they run in: their own, or one of the class, the module or the session."""
    tests = "".join(
        f"\n@pytest.mark.asyncio(loop_scope={scope!r})\nasync def test_{scope}(nsq):{USES}"
        for scope in ("function", "module", "session")
    )
    inside = (
        "\n    @pytest.mark.asyncio(loop_scope='class')\n    async def test_class(self, nsq):"
        + USES.replace("\n    ", "\n        ")
    )

    said = run(STRICT, f"import pytest\n{tests}\nclass TestOne:{inside}")

    assert "4 passed" in said


def test_pytest_asyncio_in_auto_mode(run):
    """Tests without a mark have it, also where their loop is that of the session by default."""
    said = run(AUTO, f"async def test_one(nsq):{USES}")
    assert "1 passed" in said

    said = run(AUTO + "asyncio_default_test_loop_scope = session\n", f"async def test_one(nsq):{USES}")
    assert "1 passed" in said


@pytest.mark.parametrize("settings", [ANYIO, STRICT])
def test_anyio(run, settings):
    """Tests of anyio have it with the backend asyncio, whether pytest-asyncio is there in strict mode or not."""
    said = run(
        settings,
        f"""
import pytest
@pytest.fixture
def anyio_backend():
    return "asyncio"
@pytest.mark.anyio
async def test_one(nsq):{USES}
""",
    )

    assert "1 passed" in said


@pytest.mark.parametrize("settings", [ANYIO, STRICT])
def test_a_test_that_is_not_asynchronous(run, settings):
    """A plain function can't have it, and is told what to do."""
    said = run(settings, "def test_one(nsq): pass", status=1)

    assert (
        "the fixture nsq is for asynchronous tests: install pytest-asyncio, or mark them with anyio" in said
    )


def test_options(run):
    """A fixture `nsq_options` gives the options of nsqd."""
    said = run(
        AUTO,
        """
import pytest
@pytest.fixture
def nsq_options():
    return {"max_msg_size": 10}
async def test_one(nsq):
    assert 10 == nsq.nsqd.options.max_msg_size
""",
    )

    assert "1 passed" in said


def test_a_failed_test_shows_what_the_daemons_logged(run):
    """pytest prints their lines with a test that fails; the logger's level is as before after it."""
    said = run(
        AUTO,
        """
import logging
async def test_one(nsq):
    await nsq.nsqd.publish("orders", b"one")
    assert False
def test_two():
    assert logging.NOTSET == logging.getLogger("nsqkit.testing").level
""",
        status=1,
    )

    assert "1 failed, 1 passed" in said
    assert "TOPIC(orders): created" in said
    assert "nsqkit.testing.nsqlookupd" in said


def test_nothing_is_loaded_before_it_is_used(run):
    """The plugin loads no daemon, and no client, for tests that do not ask for the fixture."""
    said = run(
        STRICT,
        """
import sys
def test_one():
    ours = {name for name in sys.modules if name.startswith("nsqkit")}
    plugin = {"nsqkit.testing.plugin", "nsqkit.testing.asyncio_plugin"}
    assert ours == {"nsqkit", "nsqkit.version", "nsqkit.testing"} | plugin
    assert "aiohttp" not in sys.modules
""",
    )

    assert "1 passed" in said


def test_only_the_plugin_imports_pytest():
    """Whoever uses the context manager needs no pytest."""
    loads = "import sys, nsqkit.testing.nsq; print([name for name in sys.modules if 'pytest' in name])"

    said = subprocess.check_output(
        [sys.executable, "-c", loads], env=os.environ | {"PYTHONPATH": str(SOURCE)}
    )

    assert b"[]\n" == said
