"""The ways to break the code on purpose still fit the code. Trying them out takes longer: `make mutate`."""

import ast
import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("mutation_run", Path(__file__).with_name("run.py"))
assert SPEC is not None
assert SPEC.loader is not None
run = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", run.mutations(), ids=lambda mutation: mutation.what)
def test_mutation_fits(tmp_path, mutation):
    """What is to be replaced stands in the code exactly once, and the result is Python, other than before."""
    path = tmp_path / "src/nsqkit" / mutation.file
    path.parent.mkdir(parents=True)
    before = (ROOT / "src/nsqkit" / mutation.file).read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")

    mutation.apply(tmp_path)

    assert ast.dump(ast.parse(before)) != ast.dump(ast.parse(path.read_text(encoding="utf-8")))


def test_mutation_that_does_not_fit(tmp_path):
    """A mutation of code that has changed is an error that names it."""
    (tmp_path / "src/nsqkit").mkdir(parents=True)
    (tmp_path / "src/nsqkit/a.py").write_text("x = 1\nx = 1\n", encoding="utf-8")

    with pytest.raises(ValueError, match="^break x: found 2 times in a.py$"):
        run.Mutation("break x", "a.py", "x = 1", "x = 2").apply(tmp_path)


def test_there_are_enough():
    """No two of them are the same."""
    found = run.mutations()

    assert (
        25 <= len(found) == len({one.what for one in found}) == len({(m.file, m.old, m.new) for m in found})
    )
