"""Every target on its corpus, on mutations of it, and on what hypothesis makes up. Always the same inputs."""

from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import inputs, names, target
from tests.fuzz.mutation import mutated
from tests.fuzz.seeds import seeds

SLOW: Final = {"compression": 4, "journal": 4, "session": 2, "lookupd": 2, "segments": 2, "command_line": 2}
"""How many times fewer inputs a target gets, because it takes longer for each."""

EXAMPLES: Final = 60
MUTATIONS: Final = 400


@pytest.fixture(params=names())
def name(request) -> str:
    """A target."""
    return str(request.param)


def test_corpus_is_made_by_the_script(name: str) -> None:
    """What `python -m tests.fuzz.seeds` makes is in the corpus; everything else was found by fuzzing."""
    committed = inputs(name)

    assert seeds()[name] == {file: data for file, data in committed.items() if not file.startswith("found-")}
    assert all(len(data) <= 4096 for data in committed.values())


def test_corpus(name: str) -> None:
    """A target holds for every input of its corpus: `python -m tests.fuzz.run TARGET FILE` replays one."""
    check = target(name)

    for file, data in inputs(name).items():
        try:
            check(data)
        except Exception as error:
            raise AssertionError(f"tests/fuzz/corpus/{name}/{file}") from error


def test_mutations(name: str) -> None:
    """A target holds for mutations of its corpus."""
    check = target(name)
    corpus = list(inputs(name).values())
    random = Random(name)

    for _ in range(MUTATIONS // SLOW.get(name, 1)):
        data = mutated(random, corpus)
        try:
            check(data)
        except Exception as error:
            raise AssertionError(f"{name}: {data!r}") from error


def test_anything(name: str) -> None:
    """A target holds for any bytes."""
    check = target(name)

    @settings(max_examples=EXAMPLES // SLOW.get(name, 1), derandomize=True, database=None)
    @given(st.binary(max_size=300))
    def holds(data: bytes) -> None:
        check(data)

    holds()
