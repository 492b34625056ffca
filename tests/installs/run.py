"""Installs what `make sdist wheel` left in dist/ as a stranger would, and tries it.

    python -m tests.installs.run [--dist DIRECTORY]

The sdist must hold every file of the repository, and a wheel must say where the project is to be found. The wheel goes
into an empty environment of this Python; the sdist, which pip then builds in isolation, into one of the newest other
Python at hand. Neither environment holds anything before: mypyc finds what lies in the environment that builds, so an
isolated build from an environment full of packages would prove nothing. What was installed must be compiled, and pass
messages.
"""

import argparse
import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TIME_LIMIT_S: Final = 600  # for one step; building takes half a minute
LAST_LINES: Final = 15
NEWEST_MINOR: Final = 30  # Python 3.30 is far away
ASK_VERSION: Final = "import sys, json, venv, ensurepip; print(json.dumps(sys.version_info[:3]))"
SMOKE: Final = ("pubsub", "--batch=1", "--messages=2000", "--duration=30", "--no-warm-up", "--spawn=nsqd")


class Failed(Exception):
    """The package is not what it should be, or could not be installed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check the artefacts, install them, and say so; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="tests.installs.run", description=__doc__)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the wheel and the sdist are")
    dist = parser.parse_args(argv).dist.resolve()
    try:
        sdist, wheel = the_only(dist, "*.tar.gz"), the_only(dist, "*.whl")
        check_sdist(sdist)
        check_metadata(wheel)
        install(Path(sys.executable), wheel)
        newest = newest_python()
        if newest is None:
            print("installs: no other Python from 3.12 on is at hand; the sdist was not tried on a newer one")
        else:
            install(newest, sdist)
    except Failed as failure:
        print(f"installs: {failure}", file=sys.stderr)
        return 1
    return 0


def the_only(directory: Path, pattern: str) -> Path:
    """The file that matches; Failed if there is none, or more than one."""
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise Failed(f"{directory} has {len(found)} files {pattern}, not one: make clean sdist wheel")
    return found[0]


def check_sdist(sdist: Path) -> None:
    """Every file that git knows is in the sdist. Outside of a clone there is nothing to compare with."""
    if not (ROOT / ".git").exists():
        return
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    wanted = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    with tarfile.open(sdist) as tar:
        held = {member.name.partition("/")[2] for member in tar}
    if missing := sorted(wanted - held):
        raise Failed(f"{sdist.name} lacks {len(missing)} files: {', '.join(missing[:10])}")


def check_metadata(wheel: Path) -> None:
    """The wheel says where the project is, and its description has no link that leads nowhere."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    if not metadata.get_all("Project-URL"):
        raise Failed(f"{wheel.name} names no URL of the project")
    description = metadata.get_payload()
    assert isinstance(description, str)
    if relative := re.findall(r"\]\((?!https?://|#)([^)]*)\)", description):
        raise Failed(f"{wheel.name}: its description has relative links: {', '.join(relative)}")


def newest_python() -> Path | None:
    """The newest other Python that can make environments."""
    found = {}
    for program in _pythons():
        asked = subprocess.run([program, "-c", ASK_VERSION], check=False, capture_output=True, text=True)
        if asked.returncode == 0:
            found[tuple(json.loads(asked.stdout))] = program
    newest = max(found, default=(0,))
    return found[newest] if newest >= (3, 12) and newest[:2] != sys.version_info[:2] else None


def _pythons() -> Iterator[Path]:
    """Programs that may be another Python 3.12 or newer: on the PATH, and where pyenv puts them."""
    for minor in range(12, NEWEST_MINOR):
        if program := shutil.which(f"python3.{minor}"):
            yield Path(program)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from pyenv.glob("versions/3.*/bin/python3")


def install(python: Path, package: Path) -> None:
    """Put the package into an empty environment of this Python; it must be compiled and pass messages."""
    with tempfile.TemporaryDirectory(prefix="nsqkit-install-") as directory:
        programs = Path(directory) / "bin"
        run(python, "-m", "venv", directory)
        print(f"installs: {package.name} on {python} ...", flush=True)
        try:
            run(programs / "python", "-m", "pip", "--disable-pip-version-check", "install", package)
        except Failed as failure:
            raise Failed(
                f"{failure}\ninstalls: pip could not install {package.name}; "
                "if it is the package index that did not answer, try again"
            ) from None
        version = run(programs / "nsqd", "--version").strip()
        if not version.endswith(" compiled"):
            raise Failed(f"{package.name} on {python} is not compiled: {version}")
        run(programs / "nsqkit", "bench", *SMOKE)
        print(f"installs: {version}: passes messages")


def run(program: Path, *arguments: str | Path) -> str:
    """Run a program outside of the source tree and return what it printed; Failed with its last lines if it fails."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NSQKIT_PURE")
    }
    environment["NSQKIT_REQUIRE_COMPILED"] = "1"  # a build that can't compile says why
    environment["PATH"] = f"{program.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    command = f"{program.name} {' '.join(map(str, arguments))}"
    try:
        done = subprocess.run(
            [program, *arguments],
            cwd=tempfile.gettempdir(),
            check=False,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{command} takes more than {TIME_LIMIT_S} s") from None
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
        raise Failed(f"{command} failed ({done.returncode}):\n{last}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
