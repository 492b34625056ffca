"""What a program runs in. The scenario of `nsqkit up` kills a real parent."""

import os
import select
import subprocess
import sys
from types import ModuleType

import pytest

from nsqkit.up import child


def test_program_gets_its_flags(monkeypatch):
    """The module's main is called with the flags, and its exit code is ours."""
    module = ModuleType("some_program")
    monkeypatch.setattr(module, "main", lambda flags: 10 + len(flags), raising=False)
    monkeypatch.setitem(sys.modules, "some_program", module)
    monkeypatch.setattr(child, "end_with_parent", lambda _parent: None)

    assert 12 == child.main(["1", "some_program", "--one", "--two"])


def test_orphan_does_not_start():
    """A program whose parent has ended before it could ask for the signal exits at once."""
    command = [sys.executable, "-m", "nsqkit.up.child", "1073741824", "nsqkit.nsqd.cli", "--version"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (1, "nsqkit up (process 1073741824) is gone\n") == (done.returncode, done.stderr)


def test_child_starts():
    """With its parent there, the program runs."""
    command = [sys.executable, "-m", "nsqkit.up.child", str(os.getpid()), "nsqkit.nsqd.cli", "--version"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("nsqd v")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this signal")
def test_end_of_the_parent_ends_the_child():
    """A child whose parent is killed gets a SIGTERM."""
    waiting = (
        "import os, signal, sys; from nsqkit.up.child import end_with_parent; end_with_parent(int(sys.argv[1])); "
        "print('ready', flush=True); signal.pause()"
    )
    starting = (
        "import os, subprocess, sys; "
        "subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid())], check=False)"
    )
    with subprocess.Popen([sys.executable, "-c", starting, waiting], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert b"ready\n" == parent.stdout.readline()

        parent.kill()

        # The child has the same stdout, so this is its end.
        assert select.select([parent.stdout], [], [], 20)[0]
        assert b"" == parent.stdout.read()
