"""Pages of /metrics, read as Prometheus does."""

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, dict[tuple[str, ...], float]]


def read(text: str) -> Samples:
    """The samples by name and labels. Each family has one head, and no sample comes twice."""
    found: Samples = {}
    families = [*text_string_to_metric_families(text)]
    assert len(families) == len({family.name for family in families}) == text.count("# TYPE")
    for family in families:
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels, reverse=True))
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found
