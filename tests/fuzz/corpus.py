"""The targets by name, and their corpora."""

import importlib
import os
import pkgutil
from collections.abc import Callable
from typing import Final

from tests.fuzz import targets

CORPUS: Final = os.path.join(os.path.dirname(__file__), "corpus")


def names() -> list[str]:
    """Every target."""
    return sorted(module.name for module in pkgutil.iter_modules(list(targets.__path__)))


def target(name: str) -> Callable[[bytes], None]:
    """The function `check` of a target: it returns, or raises what was found."""
    check: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.targets.{name}").check
    return check


def inputs(name: str, directory: str = CORPUS) -> dict[str, bytes]:
    """The inputs that a directory holds for a target, by file name."""
    found: dict[str, bytes] = {}
    for path in sorted(_files(os.path.join(directory, name))):
        with open(path, "rb") as file:
            found[os.path.basename(path)] = file.read()
    return found


def _files(directory: str) -> list[str]:
    if not os.path.isdir(directory):
        return []
    return [entry.path for entry in os.scandir(directory) if entry.is_file()]
