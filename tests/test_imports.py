"""The layers of the package: who may import whom (CONTRIBUTING.md)."""

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = Path(str(importlib.util.find_spec("nsqkit").origin)).parent  # type: ignore[union-attr]

# Modules of the package, and of elsewhere, that each layer may use beside itself.
PURE = {
    "__future__", "collections", "enum", "heapq", "json", "math", "random", "typing",
    "librt", "mypy_extensions", "nsqkit.errors", "nsqkit.names", "nsqkit.wire", "nsqkit.nsqd.core",
    "nsqkit.nsqd.durability",
}  # fmt: skip
LAYERS = {
    "wire": PURE - {"nsqkit.nsqd.core"} | {"zlib", "cramjam"},
    "nsqd/core": PURE,
    "nsqd/storage": PURE
    | {
        "bisect",
        "contextlib",
        "errno",
        "os",
        "re",
        "struct",
        "threading",
        "time.monotonic",
        "time.sleep",
        "types",
    }
    | {"google_crc32c", "nsqkit.nsqd.storage"},
}


def imports(path: Path) -> Iterator[str]:
    """What a file imports, also inside functions and for type checking: modules, and names in modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(module: str, names: set[str]) -> bool:
    """Whether a module is one of the names, or inside one."""
    return any(module == name or module.startswith(name + ".") for name in names)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_it_may(layer: str) -> None:
    """The wire and the core use no socket, clock, disk or thread; storage adds the disk, and measures and pauses it."""
    files = sorted((PACKAGE / layer).glob("*.py"))

    strangers = [(file.name, m) for file in files for m in imports(file) if not allowed(m, LAYERS[layer])]

    assert files
    assert [] == strangers


def test_a_build_has_what_the_data_plane_imports() -> None:
    """What mypyc follows from the compiled files is in the standard library or in `build-system.requires`.

    Anything else fails the compilation of `pip install .`, whose environment holds nothing more.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = {
        re.split(r"[\[<>=~!;]", requirement)[0].replace("-", "_").lower()
        for requirement in project["build-system"]["requires"]
    }
    skipped = {
        module
        for override in project["tool"]["mypy"]["overrides"]
        if override.get("follow_imports") == "skip"
        for module in override["module"]
    }

    outside = _followed(_data_plane(), skipped)

    assert {"os", "librt"} <= {module.split(".")[0] for module in outside}
    assert set() == {
        module for module in outside if module.split(".")[0] not in required | set(sys.stdlib_module_names)
    }


def _data_plane() -> set[str]:
    """The modules that setup.py compiles."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    patterns = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DATA_PLANE"
    )
    files = [file for pattern in patterns for file in PACKAGE.glob(pattern.removeprefix("src/nsqkit/"))]
    return {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files}


def _followed(modules: set[str], skipped: set[str]) -> set[str]:
    """The modules outside of the package that mypy reads when it reads these, and the packages they are in."""
    outside: set[str] = set()
    waiting, seen = [*modules], set(skipped)
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if not allowed(module, {"nsqkit"}):
            outside.add(module)
            continue
        waiting.append(module.rpartition(".")[0])
        path = PACKAGE.parent.joinpath(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():  # otherwise it is a name in the module before the last dot
            waiting.extend(imports(file))
    return outside


def test_modules_are_short_enough_to_read() -> None:
    """No module has more than 500 lines, and none of the tests."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]

    sizes = {str(file): len(file.read_text().splitlines()) for file in files}

    assert {} == {name: size for name, size in sizes.items() if size > 500}


SHARED = (
    "web",
    "options",
    "wire",
    "cluster",
    "client",
    "contrib",
    "program.py",
    "listen.py",
    "log.py",
    "names.py",
)
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
