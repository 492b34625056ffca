"""What lies in deploy/: the schemas of its files, and that they agree with the programs and with each other."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from docs.generate.options import PROGRAMS
from nsqkit.address import split_address
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.options import Options, declared
from nsqkit.options.command_line import load, parse
from nsqkit.up.options import UpOptions

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILE = DEPLOY / "Dockerfile"
KUBERNETES = DEPLOY / "kubernetes" / "nsq.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PAGE = ROOT / "docs" / "deployment.md"

KUBERNETES_VERSIONS = (
    "1.27",
    "1.37",
)  # the oldest that the file promises, and the newest whose schema we have
MOST_EXPOSED = (
    15  # tenths: what a network service without files of others comes to; 10.0 is no hardening at all
)
FOREIGN_FLAGS = {
    "require-hashes",
    "only-binary",
    "no-deps",
    "help",
    "now",
    "unix-socket",
}  # pip, systemctl, curl
BENCH_FLAGS = {"nsqd-tcp-address", "nsqd-http-address"}

OPTIONS: dict[str, type[Options]] = {**PROGRAMS, "nsqkit up": UpOptions}


class Start(NamedTuple):
    """One command line found in a file."""

    where: str
    program: str
    flags: list[str]

    def options(self) -> Any:
        """What the program makes of it; it must not find anything odd."""
        line = parse(OPTIONS[self.program], self.flags)
        options = load(OPTIONS[self.program], line)
        assert [] == line.warnings
        return options

    def ports(self) -> dict[str, int]:
        """The ports that it listens on."""
        options = self.options()
        return {
            name: split_address(address)[1]
            for name, address in (("tcp", options.tcp_address), ("http", options.http_address))
        }


def start(where: str, words: Sequence[str]) -> Start:
    """A command line as the program gets it: paths cut, variables with their defaults filled in."""
    words = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in words]
    program, *flags = words
    program = program.rpartition("/")[2]
    if program == "nsqkit":
        program = f"nsqkit {flags.pop(0)}"
    return Start(where, program, flags)


def documents(path: Path) -> list[Any]:
    """The YAML documents of a file."""
    return list(YAML(typ="safe").load_all(path))


def services() -> dict[str, Any]:
    """The services of the compose file."""
    (compose,) = documents(COMPOSE)
    found: dict[str, Any] = compose["services"]
    return found


def of_kind(kind: str) -> dict[str, Any]:
    """The Kubernetes objects of one kind, by name."""
    return {one["metadata"]["name"]: one for one in documents(KUBERNETES) if one["kind"] == kind}


def container(stateful_set: dict[str, Any]) -> dict[str, Any]:
    """The only container of its pods."""
    (only,) = stateful_set["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def unit(path: Path) -> dict[str, list[str]]:
    """The lines of a unit, by key."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with their arguments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    found = [line.partition(" ") for line in text.splitlines() if line]
    return [(word, rest.strip()) for word, _, rest in found]


def all_starts() -> Iterator[Start]:
    """Every command line in deploy/, and those of the page that explains it."""
    for name, service in services().items():
        yield start(f"{COMPOSE.name}: {name}", service["command"])
    for name, stateful_set in of_kind("StatefulSet").items():
        one = container(stateful_set)
        yield start(f"{KUBERNETES.name}: {name}", [*one["command"], *one["args"]])
    for path in UNITS:
        (command,) = unit(path)["ExecStart"]
        yield start(path.name, [word for word in command.split() if not re.fullmatch(r"\$\w+", word)])
    for word, rest in instructions():
        if word == "CMD":
            yield start(DOCKERFILE.name, YAML(typ="safe").load(rest))
    for line in PAGE.read_text().splitlines():
        if found := re.match(r"    docker run .* nsqkit (nsq.+)$", line):
            yield start(PAGE.name, shlex.split(found[1]))


STARTS = list(all_starts())


def run(*command: str | Path) -> str:
    """Run a checker that must find nothing wrong; what it prints."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def beside_python(name: str) -> Path:
    """A program of this virtual environment."""
    return Path(sys.executable).with_name(name)


# -- all of them


def test_all_kinds_of_files_are_here():
    """Command lines were found in the compose file, the Kubernetes file, the units, the Dockerfile and the page."""
    assert 5 + 2 + 2 + 1 <= len(STARTS)
    assert {COMPOSE.name, KUBERNETES.name, "nsqd.service", DOCKERFILE.name, PAGE.name} <= {
        one.where.partition(":")[0] for one in STARTS
    }


@pytest.mark.parametrize("one", STARTS, ids=lambda one: f"{one.where} {one.program}")
def test_flags_are_understood(one):
    """Every flag in every file is a flag of the program it is given to, with a value that it takes."""
    assert one.options()


def test_flags_on_the_page_exist():
    """A flag named on the page is one of our programs', or of a tool that the page calls."""
    ours = {one.flag for options in OPTIONS.values() for one in declared(options)}
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", PAGE.read_text()))

    assert set() == named - ours - FOREIGN_FLAGS - BENCH_FLAGS


def test_page_names_files_that_exist():
    """Each path below deploy/ on the page is there."""
    named = set(re.findall(r"deploy/[\w./-]*\w", PAGE.read_text()))

    assert named
    assert [] == [path for path in sorted(named) if not (ROOT / path).exists()]


# -- the image


@pytest.mark.skipif(not beside_python("hadolint").exists(), reason="no hadolint for this platform")
def test_dockerfile_is_clean():
    """hadolint finds nothing to say about the Dockerfile."""
    assert "" == run(beside_python("hadolint"), DOCKERFILE)


def test_copied_files_exist():
    """What the Dockerfile copies from the project is there, and .dockerignore lets it through."""
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]

    assert {"src", "requirements.lock", "requirements-dev.lock"} <= set(copied)
    assert [] == [source for source in copied if not (ROOT / source).exists()]
    assert [] == [source for source in copied if f"!{source}" not in let_through]


def test_image_exposes_what_programs_listen_on():
    """EXPOSE names the default ports of nsqd and nsqlookupd."""
    (exposed,) = [rest.split() for word, rest in instructions() if word == "EXPOSE"]
    nsqd, nsqlookupd = NsqdOptions(), NsqlookupdOptions()
    addresses = (
        nsqd.tcp_address,
        nsqd.http_address,
        nsqd.https_address,
        nsqlookupd.tcp_address,
        nsqlookupd.http_address,
    )

    assert [str(split_address(address)[1]) for address in addresses] == exposed


def test_image_has_no_root():
    """The image's user is a number, owns the volume, and is the one that Kubernetes expects."""
    last = dict(instructions())
    user, _, group = last["USER"].partition(":")

    assert "4150" == user == group
    assert last["VOLUME"] == last["WORKDIR"] == "/data"
    assert any("--owner=4150 --group=4150 /data" in rest for _, rest in instructions())
    for stateful_set in of_kind("StatefulSet").values():
        security = stateful_set["spec"]["template"]["spec"]["securityContext"]
        assert [4150] * 3 == [security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")]


# -- compose


def test_compose_file_is_valid():
    """The compose file follows the schema of the Compose specification."""
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_compose_ports_are_listened_on():
    """A published port is one that the service listens on; health is asked for at its HTTP port."""
    for name, service in services().items():
        ports = start(name, service["command"]).ports()
        inside = {int(published.rpartition(":")[2]) for published in service["ports"]}
        assert inside <= set(ports.values())
        assert f":{ports['http']}/ping'" in service["healthcheck"]["test"][-1]


def test_compose_nsqds_have_their_own():
    """nsqds differ in id, data and ports, which are the same inside and outside; all know both nsqlookupds."""
    nsqds = {name: one for name, one in services().items() if one["command"][0] == "nsqd"}
    options = {name: start(name, one["command"]).options() for name, one in nsqds.items()}
    lookupds = [f"{name}:4160" for name in services() if name not in nsqds]
    (compose,) = documents(COMPOSE)

    assert 3 == len(nsqds) == len({one.node_id for one in options.values()})
    assert 2 == len(lookupds)
    for name, one in nsqds.items():
        assert [f"{name}:{options[name].data_path}"] == one["volumes"]
        assert name in compose["volumes"]
        assert tuple(lookupds) == options[name].nsqlookupd_tcp_addresses
        assert name == options[name].broadcast_address
        for published in one["ports"]:
            _, outside, inside = published.rsplit(":", 2)
            assert outside == inside
    outside = [published.rsplit(":", 2)[1] for one in services().values() for published in one["ports"]]
    assert len(outside) == len(set(outside))


# -- systemd


def test_units_are_those_of_the_programs():
    """There is a unit for each daemon."""
    assert ["nsqd.service", "nsqlookupd.service"] == [path.name for path in UNITS]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_is_valid(path, tmp_path):
    """systemd finds nothing wrong with the unit, once the program is where the unit says."""
    installed = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", path.read_text())
    (tmp_path / path.name).write_text(installed)

    assert "" == run("systemd-analyze", "verify", tmp_path / path.name)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_is_locked_down(path):
    """systemd's own measure of how exposed a service is stays low."""
    run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", path)


def test_units_give_time_and_files():
    """nsqd may take its time to write everything down, and open many files; wrong flags are not tried again."""
    lines = unit(DEPLOY / "systemd" / "nsqd.service")

    assert int(lines["TimeoutStopSec"][0]) >= 60
    assert int(lines["LimitNOFILE"][0]) >= 65536
    assert ["on-failure"] == lines["Restart"]
    assert ["2"] == lines["RestartPreventExitStatus"]


# -- Kubernetes


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_file_is_valid(version):
    """Every object follows the schema of this version of Kubernetes, and has no field that it does not know."""
    printed = run(beside_python("kubernetes-validate"), "--strict", "-k", version, KUBERNETES)

    assert len(documents(KUBERNETES)) == printed.count(" passed ")


def test_kubernetes_ports_are_listened_on():
    """Containers, services and probes name the ports that the programs listen on."""
    for name, stateful_set in of_kind("StatefulSet").items():
        one = container(stateful_set)
        ports = start(name, [*one["command"], *one["args"]]).ports()
        assert ports == {port["name"]: port["containerPort"] for port in one["ports"]}
        headless = of_kind("Service")[stateful_set["spec"]["serviceName"]]
        assert "None" == headless["spec"]["clusterIP"]
        assert {"http"} == {one[key]["httpGet"]["port"] for key in one if key.endswith("Probe")}
        for service in of_kind("Service").values():
            if service["spec"]["selector"] == stateful_set["spec"]["selector"]["matchLabels"]:
                assert ports == {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}


def test_kubernetes_objects_find_each_other():
    """Services, budgets and stateful sets select the pods that are made, and the names that are told are theirs."""
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"] for name, one in of_kind("StatefulSet").items()
    }
    for name, stateful_set in of_kind("StatefulSet").items():
        selected = stateful_set["spec"]["selector"]["matchLabels"]
        assert selected.items() <= labels[name].items()
        assert selected == of_kind("PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"]
        one = container(stateful_set)
        options = start(name, [*one["command"], *one["args"]]).options()
        assert (
            f"$(POD_NAME).{stateful_set['spec']['serviceName']}.$(POD_NAMESPACE).svc"
            == options.broadcast_address
        )
        assert {"POD_NAME", "POD_NAMESPACE"} == {variable["name"] for variable in one["env"]}
    for service in of_kind("Service").values():
        assert any(service["spec"]["selector"].items() <= one.items() for one in labels.values())
    nsqd = container(of_kind("StatefulSet")["nsqd"])
    options = start("nsqd", [*nsqd["command"], *nsqd["args"]]).options()
    assert ("nsqlookupd:4160",) == options.nsqlookupd_tcp_addresses
    assert [options.data_path] == [mount["mountPath"] for mount in nsqd["volumeMounts"]]
    (claim,) = of_kind("StatefulSet")["nsqd"]["spec"]["volumeClaimTemplates"]
    assert [claim["metadata"]["name"]] == [mount["name"] for mount in nsqd["volumeMounts"]]


def test_full_disk_restarts_nobody():
    """/ping fails while the disk is full: that takes the nsqd out of publishing, never out of life or of DNS."""
    stateful_set = of_kind("StatefulSet")["nsqd"]
    nsqd = container(stateful_set)

    assert "/ping" == nsqd["readinessProbe"]["httpGet"]["path"]
    assert "/info" == nsqd["livenessProbe"]["httpGet"]["path"] == nsqd["startupProbe"]["httpGet"]["path"]
    assert of_kind("Service")["nsqd"]["spec"]["publishNotReadyAddresses"]
    assert "publishNotReadyAddresses" not in of_kind("Service")["nsqd-publish"]["spec"]
    assert "Parallel" == stateful_set["spec"]["podManagementPolicy"]
