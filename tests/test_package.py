"""What `import nsqkit` offers."""

import ast
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import nsqkit

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", nsqkit.__all__)
def test_each_name_is_there_and_shown(name):
    """Each name can be imported from the package, and dir() and help() show it."""
    value = getattr(nsqkit, name)

    assert name == value.__name__
    assert name in dir(nsqkit)
    assert f"class {name}" in pydoc.plain(pydoc.render_doc(nsqkit))


def test_what_is_not_there_is_named():
    """Another name is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="module 'nsqkit' has no attribute 'Nsq'"):
        _ = nsqkit.Nsq


def test_mypy_and_python_know_the_same_names():
    """What is imported for mypy is what is loaded when it is asked for, from the same modules."""
    tree = ast.parse(Path(str(nsqkit.__file__)).read_text())
    imported = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert imported == nsqkit._HOMES
    assert sorted(imported) == nsqkit.__all__


def test_the_snippet_of_the_readme_runs_as_pasted(tmp_path):
    """README's example of embedding is a whole program, which publishes and ends."""
    program = next(text for text in _snippets() if "from nsqkit import" in text and "NsqdOptions" in text)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert done.stdout.startswith("clients connect to port ")
    assert any((tmp_path / "orders-data").rglob("*.log"))


def _snippets():
    """README's indented blocks."""
    text = (ROOT / "README.md").read_text()
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("    ") or (not line and blocks[-1]):
            blocks[-1].append(line[4:])
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks]
