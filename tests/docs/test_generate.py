"""The generated pages of docs/."""

from pathlib import Path

from docs.generate import stale
from docs.generate.__main__ import main

ROOT = Path(__file__).parents[2]


def test_pages_are_fresh():
    """docs/ says what the code says; `make docs` brings it up to date."""
    assert [] == stale(ROOT / "docs")


def test_stale_page_is_found(tmp_path, monkeypatch, capsys):
    """A page that differs is named, until it is written again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/options.md").write_text("# Options\n", encoding="utf-8")

    assert 1 == main(["--check"])
    assert "docs/options.md is stale: run make docs\n" in capsys.readouterr().err
    assert 0 == main([])
    assert 0 == main(["--check"])
