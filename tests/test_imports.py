"""The layers of the package: who may import whom (CONTRIBUTING.md)."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(str(importlib.util.find_spec("nsqkit").origin)).parent  # type: ignore[union-attr]

# Modules of the package, and of elsewhere, that each layer may use beside itself.
PURE = {
    "__future__", "collections", "enum", "heapq", "json", "math", "random", "typing",
    "librt", "mypy_extensions", "nsqkit.errors", "nsqkit.names", "nsqkit.wire", "nsqkit.nsqd.core",
}  # fmt: skip
LAYERS = {
    "wire": PURE - {"nsqkit.nsqd.core"} | {"zlib", "cramjam"},
    "nsqd/core": PURE,
    "nsqd/storage": PURE
    | {"bisect", "os", "re", "struct", "threading", "types", "google_crc32c", "nsqkit.nsqd.storage"},
}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)


def allowed(module: str, names: set[str]) -> bool:
    """Whether a module is one of the names, or inside one."""
    return any(module == name or module.startswith(name + ".") for name in names)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_it_may(layer: str) -> None:
    """The wire and the core use no socket, clock, disk or thread; storage adds the disk."""
    files = sorted((PACKAGE / layer).glob("*.py"))

    strangers = [(file.name, m) for file in files for m in imports(file) if not allowed(m, LAYERS[layer])]

    assert files
    assert [] == strangers


def test_modules_are_short_enough_to_read() -> None:
    """No module has more than 500 lines."""
    sizes = {
        str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")
    }

    assert {} == {name: size for name, size in sizes.items() if size > 500}


SHARED = ("web", "options", "wire", "cluster.py", "cluster", "program.py", "listen.py", "log.py", "names.py")
DAEMONS = {"nsqd", "nsqlookupd"}


@pytest.mark.parametrize("daemon", sorted(DAEMONS))
def test_daemons_do_not_import_each_other(daemon: str) -> None:
    """What two daemons need lies outside of both."""
    others = {f"nsqkit.{other}" for other in DAEMONS - {daemon}}
    files = list(PACKAGE.joinpath(daemon).rglob("*.py"))

    assert [] == [(path.name, m) for path in files for m in imports(path) if allowed(m, others)]


def test_what_is_shared_imports_no_daemon() -> None:
    """The machinery of all daemons knows none of them."""
    files = [path for name in SHARED for path in _modules(PACKAGE / name)]
    daemons = {f"nsqkit.{daemon}" for daemon in DAEMONS}

    assert [] == [(path.name, m) for path in files for m in imports(path) if allowed(m, daemons)]


def _modules(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))
