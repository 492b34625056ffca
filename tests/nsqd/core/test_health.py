from nsqkit.nsqd.core.health import MOST, READING, WRITING, Health


def test_the_first_reason_is_told() -> None:
    """The oldest reason is the text, with the number of other ones."""
    health = Health()
    assert "" == health.text()

    health.set("the journal", "no space left")
    health.set("nsqd.dat", "read-only")
    health.set("syncing", "no space left")

    assert "no space left (and 1 more)" == health.text()


def test_only_its_owner_clears_a_cause() -> None:
    """What works says nothing about what fails beside it."""
    health = Health()
    health.set(WRITING + "a", "full")
    health.set(WRITING + "b", "broken")

    health.clear(WRITING + "a")
    health.clear("something that never failed")

    assert ({WRITING + "b": "broken"}, "broken") == (health.reasons, health.text())


def test_topics_with_a_kind_of_trouble() -> None:
    """The topics of one kind of cause can be asked for."""
    health = Health()
    health.set(WRITING + "a", "full")
    health.set(READING + "b", "broken")
    health.set(WRITING + "c", "full")

    assert (["a", "c"], ["b"]) == (health.topics(WRITING), health.topics(READING))


def test_causes_are_bounded() -> None:
    """Ten thousand topics on one broken disk are no more reasons than can be read."""
    health = Health()

    for number in range(10_000):
        health.set(f"{WRITING}{number}", "broken")
    health.set(f"{WRITING}0", "worse")

    assert (MOST, "worse") == (len(health.reasons), health.reasons[f"{WRITING}0"])
