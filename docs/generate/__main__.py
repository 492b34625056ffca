"""`python -m docs.generate`, in the project's root: writes the pages. With --check it only says which are stale."""

import sys
from collections.abc import Sequence
from pathlib import Path

from docs.generate import stale, write

DOCS = Path("docs")
"""Where the pages are, seen from the project's root."""


def main(argv: Sequence[str]) -> int:
    """Write the pages, or check them: then 1 if one is stale."""
    if "--check" not in argv:
        write(DOCS)
        return 0
    outdated = stale(DOCS)
    for name in outdated:
        print(f"{DOCS / name} is stale: run make docs", file=sys.stderr)
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
