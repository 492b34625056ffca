"""docs/heritage.md names modules and tests that exist."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = Path(str(importlib.util.find_spec("nsqkit").origin)).parent  # type: ignore[union-attr]
TEXT = (ROOT / "docs" / "heritage.md").read_text()


def test_modules_exist() -> None:
    """Every module that the page names is part of the package."""
    modules = set(re.findall(r"`((?:nsqd|nsqlookupd|web|wire)/[a-z_/]+\.py)`", TEXT))

    assert modules
    assert [] == sorted(name for name in modules if not (PACKAGE / name).exists())


def test_tests_exist() -> None:
    """Every test that the page names is there."""
    tests = re.findall(r"`(tests/[a-z_/]+\.py)(?:::([a-z_]+))?`", TEXT)

    assert tests
    assert [] == [(f, name) for f, name in tests if f"def {name or 'test_'}" not in (ROOT / f).read_text()]
