"""deploy/monitoring and docs/metrics.md, held against what a running nsqd and nsqlookupd show at /metrics.

A query must name what is there: metrics, labels, and values of labels that are few; what it compares must have the same
labels, and what it takes the rate of must be a counter. What it says in words may name only labels that its result has.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import promql_parser as promql
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from nsqkit.log import Log
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.metrics import OF_A_CHANNEL, OF_A_TOPIC, OF_LATENCIES
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqlookupd.daemon import Nsqlookupd
from nsqkit.nsqlookupd.metrics import OF_TOPICS
from nsqkit.nsqlookupd.options import NsqlookupdOptions

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
PAGE = ROOT / "docs" / "metrics.md"
BOARD = json.loads((MONITORING / "grafana" / "dashboards" / "nsq.json").read_text())
ANYWHERE = "127.0.0.1:0"

TARGET = {"job", "instance"}  # labels that Prometheus gives to whatever it scrapes
FREE = TARGET | {"topic", "channel", "address"}  # labels whose values are anybody's


def yaml(name: str) -> Any:
    """A file of deploy/monitoring."""
    return YAML(typ="safe").load(MONITORING / name)


# -- what there is


class Known(NamedTuple):
    """A metric as queries name it."""

    counts: bool  # it only grows
    labels: dict[str, set[str]]  # with the values that were seen


async def get(port: int, path: str) -> str:
    """The body of an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert " 200 " in head.partition("\r\n")[0]
    return body


async def consume(port: int) -> None:
    """Finish one message."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def frame() -> bytes:
        size = int.from_bytes(await reader.readexactly(4), "big")
        return await reader.readexactly(size)

    writer.write(b"  V2SUB orders billing\n")
    assert b"\0\0\0\0OK" == await frame()
    writer.write(b"RDY 1\n")
    message = await frame()
    writer.write(b"FIN " + message[14:30] + b"\nCLS\n")
    assert b"\0\0\0\0CLOSE_WAIT" == await frame()
    writer.close()
    await writer.wait_closed()


async def show(data_path: str) -> list[Metric]:
    """Let a message pass, and look at both daemons."""
    quiet = Log("", write=lambda _: None)
    async with (
        asyncio.timeout(30),
        Nsqlookupd(NsqlookupdOptions(tcp_address=ANYWHERE, http_address=ANYWHERE), quiet) as lookupd,
        Nsqd(
            NsqdOptions(
                data_path=data_path,
                tcp_address=ANYWHERE,
                http_address=ANYWHERE,
                nsqlookupd_tcp_addresses=(f"127.0.0.1:{lookupd.tcp_port}",),
            ),
            quiet,
        ) as nsqd,
    ):
        lookupd.registrations.create_channel("orders", "billing")
        await nsqd.publish("orders", b"one", b"two")
        await consume(nsqd.tcp_port)
        pages = [await get(daemon.http_port, "/metrics") for daemon in (nsqd, lookupd)]
    return [family for page in pages for family in text_string_to_metric_families(page)]


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> list[Metric]:
    """What both daemons show."""
    return asyncio.run(show(str(tmp_path_factory.mktemp("data"))))


@pytest.fixture(scope="module")
def known(families) -> dict[str, Known]:
    """By name. `up` is Prometheus's own."""
    found = {"up": Known(counts=False, labels={})}
    for family in families:
        for sample in family.samples:
            one = found.setdefault(sample.name, Known(family.type in {"counter", "histogram"}, {}))
            for label, value in sample.labels.items():
                one.labels.setdefault(label, set()).add(value)
    return found


# -- what queries say


class Query:
    """Finds the labels of a query's result, and what is wrong with it on the way. `None` is a number."""

    def __init__(self, known: dict[str, Known], text: str) -> None:
        self.known = known
        self.labels = self._of(promql.parse(text.replace("$__rate_interval", "5m")))

    def _of(self, expr: Any) -> set[str] | None:
        kinds = {
            promql.VectorSelector: self._of_selector,
            promql.MatrixSelector: lambda matrix: self._of(matrix.vector_selector),
            promql.ParenExpr: lambda paren: self._of(paren.expr),
            promql.AggregateExpr: self._of_aggregate,
            promql.Call: self._of_call,
            promql.BinaryExpr: self._of_pair,
            promql.NumberLiteral: lambda _: None,
        }
        return kinds[type(expr)](expr)

    def _of_selector(self, expr: Any) -> set[str]:
        assert expr.name in self.known, f"there is no {expr.name}"
        labels = self.known[expr.name].labels
        for one in expr.matchers.matchers:
            assert one.name in labels.keys() | TARGET, f"{expr.name} has no label {one.name}"
            if one.name not in FREE:
                exact = one.op == promql.MatchOp.Equal
                wanted = [one.value] if exact else one.value.split("|")
                assert set(wanted) <= labels[one.name], f"{expr.name} is never {one.name}={one.value}"
        return labels.keys() | TARGET

    def _of_aggregate(self, expr: Any) -> set[str]:
        inner = self._of(expr.expr)
        assert inner is not None
        kept = re.match(r"(topk|bottomk)\b", expr.prettify().strip())
        if expr.modifier is None:
            return inner if kept else set()
        assert expr.modifier.type == promql.AggModifierType.By
        wanted = set(expr.modifier.labels)
        assert wanted <= inner, f"{wanted - inner} is no label of {expr.expr.prettify()}"
        return wanted

    def _of_call(self, expr: Any) -> set[str] | None:
        name = expr.func.name
        of = [self._of(one) for one in expr.args]
        if name == "vector":
            return set()
        if name == "histogram_quantile":
            assert of[1] is not None
            assert "le" in of[1]
            return of[1] - {"le"}
        counted = self.known[expr.args[0].vector_selector.name].counts
        assert counted == (name in {"rate", "increase"}) or name == "changes", expr.prettify()
        return of[0]

    def _of_pair(self, expr: Any) -> set[str] | None:
        left, right = self._of(expr.lhs), self._of(expr.rhs)
        if left is None or right is None:
            return right if left is None else left
        if str(expr.op) == "or":
            return left | right
        matching = expr.modifier.matching if expr.modifier is not None else None
        if matching is None:
            assert left == right, f"{left} never match {right}"
        else:
            assert set(matching.labels) <= left & right
        return left


RULES = [rule for group in yaml("alerts.yml")["groups"] for rule in group["rules"]]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def words(text: str, pattern: str) -> set[str]:
    """The labels that a text shows."""
    return set(re.findall(pattern, text))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(known, rule):
    """Its expression fits the metrics, and its words the expression."""
    query = Query(known, rule["expr"])

    shown = words(json.dumps(rule["annotations"]), r"\$labels\.(\w+)")
    assert query.labels is not None
    assert shown <= query.labels


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(known, panel):
    """Each of its queries fits the metrics, and its legend the query."""
    assert panel["targets"]
    for target in panel["targets"]:
        query = Query(known, target["expr"])
        assert query.labels is not None
        assert words(target["legendFormat"], r"\{\{(\w+)\}\}") <= query.labels


def test_variables_and_annotations_ask_for_what_there_is(known):
    """What the dashboard lets choose, and what it marks."""
    queries = [one for one in BOARD["templating"]["list"] if one["type"] == "query"]
    assert ["instance", "topic", "channel"] == [one["name"] for one in queries]
    for one in queries:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]["query"])
        assert found
        assert found[2] in (Query(known, found[1]).labels or ())
    for one in BOARD["annotations"]["list"]:
        Query(known, one["expr"])


@pytest.mark.parametrize(
    "text,error",
    [
        ("nsqd_deepth", "there is no nsqd_deepth"),
        ('nsqd_topic_depth{channel="x"}', "has no label channel"),
        ('nsqlookupd_producers{state="dead"}', "is never state=dead"),
        ("sum by (channel) (nsqd_topic_depth)", "is no label of"),
        ("nsqd_topic_depth > nsqd_channel_depth", "never match"),
        ("rate(nsqd_topic_depth[5m])", "rate"),
        ("deriv(nsqd_topic_messages_total[5m])", "deriv"),
        ("nsqd_topic_depth >", "."),
    ],
)
def test_a_wrong_query_is_found(known, text, error):
    """One that would never show anything is found before an operator waits for it."""
    with pytest.raises((AssertionError, ValueError), match=error):
        Query(known, text)


# -- the files themselves


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """What Prometheus takes for an alert."""

    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    for_: str = msgspec.field(name="for", default="0s")


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """Alerts that belong together."""

    name: str
    rules: list[Rule]


class Rules(msgspec.Struct, forbid_unknown_fields=True):
    """The file."""

    groups: list[Group]


def test_alerts_are_what_prometheus_takes():
    """Names are unique, durations are durations, and each says how bad it is and what to do."""
    rules = [rule for group in msgspec.convert(yaml("alerts.yml"), Rules).groups for rule in group.rules]

    assert len(rules) == len({rule.alert for rule in rules})
    for rule in rules:
        assert re.fullmatch(r"\d+[smh]", rule.for_)
        assert rule.labels.keys() == {"severity"}
        assert rule.labels["severity"] in {"critical", "warning"}
        assert rule.annotations.keys() == {"summary", "description"}


def test_dashboard_is_in_order():
    """Panels have ids and places of their own, and all take the data source that was chosen."""
    boxes = [panel["gridPos"] for panel in BOARD["panels"]]
    cells = [
        (x, y)
        for box in boxes
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]

    assert len(BOARD["panels"]) == len({panel["id"] for panel in BOARD["panels"]})
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    for panel in PANELS:
        assert {"${datasource}"} == {one["datasource"]["uid"] for one in [panel, *panel["targets"]]}
        assert len(panel["targets"]) == len({one["refId"] for one in panel["targets"]})
        assert panel["description"]


def test_prometheus_asks_every_daemon_of_the_cluster():
    """The targets are the HTTP addresses of deploy/compose.yaml, under the names of jobs that alerts go by."""
    services = YAML(typ="safe").load(ROOT / "deploy" / "compose.yaml")["services"]
    jobs = {
        one["job_name"]: one["static_configs"][0]["targets"]
        for one in yaml("prometheus.yml")["scrape_configs"]
    }

    for job, targets in jobs.items():
        expected = []
        for name, service in services.items():
            program, *flags = service["command"]
            if program == job:
                http = [flag.rpartition(":")[2] for flag in flags if flag.startswith("--http-address=")]
                expected.append(f"{name}:{http[0] if http else 4161}")
        assert expected == targets
    assert jobs.keys() == set(re.findall(r'job="(\w+)"', (MONITORING / "alerts.yml").read_text()))
    assert yaml("prometheus.yml")["rule_files"] == ["alerts.yml"]


def test_compose_file_of_monitoring_is_valid():
    """It follows the schema of the Compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, MONITORING / "compose.yaml"], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout


def test_compose_file_of_monitoring_names_files_that_are_there():
    """Paths count from the first file, deploy/compose.yaml."""
    services = yaml("compose.yaml")["services"]
    mounts = [one for service in services.values() for one in service["volumes"] if one.startswith("./")]

    assert 4 == len(mounts)
    for one in mounts:
        assert (ROOT / "deploy" / one.partition(":")[0]).exists()


# -- the page


def rows(families: list[Metric]) -> Iterator[str]:
    """The table of docs/metrics.md: one row for each family of ours."""
    for family in families:
        if family.name.startswith("nsq"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            kind = "gauge" if name.endswith("_info") else family.type
            yield f"| `{name}` | {kind} | {', '.join(sorted(labels, reverse=True))} | {family.documentation} |"


def test_the_page_lists_every_metric(families):
    """With its type, its labels and what it means, in the order of /metrics, and nothing else."""
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| `nsq")]

    assert [*rows(families)] == listed


def test_the_page_says_how_many_series_there_are():
    """Of a topic, a channel, and the latencies of a channel."""
    page = PAGE.read_text()

    assert (
        f"{OF_A_TOPIC} for each topic, {OF_A_CHANNEL} for each channel, and {OF_LATENCIES} for the lat"
        in page
    )
    assert f"nsqlookupd has {OF_TOPICS} for each topic" in page
