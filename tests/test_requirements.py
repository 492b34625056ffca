"""The lock files, which `make lock` writes."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
HASH = re.compile(r" --hash=sha256:[0-9a-f]{64}")


def requirements() -> list[str]:
    """Each of requirements.lock in one line."""
    return (ROOT / "requirements.lock").read_text().replace("\\\n", "").splitlines()


def test_every_requirement_has_its_version_and_hashes() -> None:
    """So `pip install --require-hashes` takes the file, and nothing in it names a place to get things from."""
    pinned = [
        re.fullmatch(r"[\w.-]+==[\w.]+( ; [^\\]*?)?", HASH.sub("", line).strip()) for line in requirements()
    ]

    assert len(pinned) > 20
    assert all(pinned)
    assert all(HASH.search(line) for line in requirements())
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_what_runs_is_what_was_tested() -> None:
    """Both lock files have the same version of what both have, and the tests have all that an installation has."""
    tested = {normal(line) for line in (ROOT / "requirements-dev.lock").read_text().splitlines()}

    elsewhere = {normal(line) for line in requirements() if " ; " in line}  # needed on some systems only
    run = {normal(line) for line in requirements()} - elsewhere

    assert set() == run - tested


def normal(line: str) -> str:
    """A name and its version, spelled as pip compares names."""
    name, _, version = line.split(maxsplit=1)[0].partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"
