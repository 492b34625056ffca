"""Compiles the data plane with mypyc, and makes README.md readable elsewhere. The rest is in pyproject.toml.

NSQKIT_PURE=1 skips compiling. NSQKIT_REQUIRE_COMPILED=1 makes it an error if compiling fails; otherwise the
package is installed uncompiled, as if NSQKIT_PURE were set, and a line says so: same behaviour, less speed.
"""

import os
import re
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

DATA_PLANE = [
    "src/nsqkit/wire/*.py",
    "src/nsqkit/nsqd/core/*.py",
    "src/nsqkit/nsqd/storage/*.py",
    "src/nsqkit/nsqd/handover/diskqueue.py",
    "src/nsqkit/clock.py",
    "src/nsqkit/nsqd/backlog.py",
    "src/nsqkit/nsqd/connection.py",
    "src/nsqkit/nsqd/turns.py",
    "src/nsqkit/client/link.py",
    "src/nsqkit/client/message.py",
]
"""What is compiled, as one group: calls between these modules are C calls."""

METADATA_ONLY = {"egg_info", "dist_info", "sdist"}
"""Commands that compile nothing. A build asks for metadata first, and translating takes a while."""

PURE = os.environ.get("NSQKIT_PURE") == "1"
REQUIRED = os.environ.get("NSQKIT_REQUIRE_COMPILED") == "1"


def data_plane() -> list[str]:
    """The files to compile. A package's `__init__` holds no code worth it."""
    files = (file for pattern in DATA_PLANE for file in Path().glob(pattern))
    return sorted(str(file) for file in files if file.name != "__init__.py")


def translated() -> list[Extension]:
    """The data plane as C; nothing if that is not wanted, or fails and is not required."""
    files = data_plane()
    if PURE or METADATA_ONLY & set(sys.argv) or not files:
        return []
    try:
        from mypyc.build import mypycify

        extensions = mypycify(
            files, group_name="nsqkit", separate=False, multi_file=True, opt_level="3", debug_level="0"
        )
    except (ImportError, OSError, SystemExit) as error:  # mypy reports errors in the source by SystemExit
        give_up(f"mypyc failed: {error}")
        return []
    for extension in extensions:
        # A new compiler's new warning must not stop an install.
        extension.extra_compile_args.append("-Wno-error")
    return extensions


def give_up(reason: str) -> None:
    """Go on without compiling, aloud; or stop, if compiling is required."""
    if REQUIRED:
        raise SystemExit(f"nsqkit: cannot compile, and NSQKIT_REQUIRE_COMPILED is set: {reason}")
    print(f"nsqkit: INSTALLING UNCOMPILED, which is slower: {reason}", file=sys.stderr)


class BuildDataPlane(build_ext):
    """Compiles on every core; all or nothing, for the parts of the group do not work by themselves."""

    extensions: list[Extension]

    def run(self) -> None:
        """Build the extensions, or none of them."""
        try:
            super().run()
        except (BaseError, CCompilerError, OSError) as error:
            give_up(str(error))
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []
            self.distribution.ext_modules = []

    def build_extensions(self) -> None:
        """Give each C file to the compiler by itself, as many at a time as there are cores."""
        compile_files = self.compiler.compile

        def compile_parallel(sources: Sequence[str], **arguments: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_files([source], **arguments), sources)
                return [path for paths in objects for path in paths]

        self.compiler.compile = compile_parallel
        super().build_extensions()


def readme() -> str:
    """README.md with links that lead somewhere from wherever the package's description is shown."""
    urls = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["urls"]
    return re.sub(r"\]\((?!\w+:|#)", f"]({urls['Source']}/blob/main/", Path("README.md").read_text("utf-8"))


setup(
    ext_modules=translated(),
    cmdclass={"build_ext": BuildDataPlane},
    long_description=readme(),
    long_description_content_type="text/markdown",
)
