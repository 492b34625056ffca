"""Writes the pages of docs/ that code can print."""

from collections.abc import Callable, Mapping
from pathlib import Path

from docs.generate.http import http_page
from docs.generate.options import client_options_page, options_page

PAGES: Mapping[str, Callable[[], str]] = {
    "options.md": options_page,
    "client-options.md": client_options_page,
    "http.md": http_page,
}
"""Name of each generated page, and the function that writes it."""


def write(docs: Path) -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (docs / name).write_text(page(), encoding="utf-8")


def stale(docs: Path) -> list[str]:
    """The generated pages that are missing or differ from what the code says."""
    return [name for name, page in PAGES.items() if not _has(docs / name, page())]


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
