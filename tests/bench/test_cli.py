"""The whole load generator against a small nsqd in this process, and its command line."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from nsqkit.bench.cli import build_cases, build_parser, main

if TYPE_CHECKING:
    from tests.bench.conftest import FakeNsqd

StartNsqd = Callable[..., "FakeNsqd"]


def addresses(nsqd: "FakeNsqd") -> list[str]:
    """The options that lead to this nsqd."""
    return [
        f"--nsqd-tcp-address=127.0.0.1:{nsqd.tcp_port}",
        f"--nsqd-http-address=127.0.0.1:{nsqd.http_port}",
    ]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["pub", "--batch=1", "--connections=2"], 300),
        (["pub", "--batch=20", "--topic-each", "--window=3"], 300),
        (["pub", "--batch=100", "--channels=0"], 300),
        (["pubsub", "--batch=100"], 300),
        (["consume"], 200),  # it is filled in whole batches
        (["latency", "--rate=5000"], 300),
        (["http"], 300),
    ],
)
def test_each_scenario_counts_every_message(
    start_nsqd: StartNsqd, tmp_path: Path, arguments: list[str], messages: int
) -> None:
    """It ends by itself after the messages asked for, has figures to show, and leaves no topic behind."""
    nsqd = start_nsqd()

    code = main(
        [*addresses(nsqd), "--messages=300", "--rounds=2", f"--json={tmp_path / 'out.json'}", *arguments]
    )

    assert code == 0
    written: Any = msgspec.json.decode((tmp_path / "out.json").read_bytes())
    (result,) = written["results"]
    assert [messages, messages] == [one["messages"] for one in result["rounds"]]
    assert result["median"]["per_second"] > 0
    assert (result["median"]["p50_us"] is None) == (arguments[0] == "consume")
    assert written["facts"]["server"]["version"] == "1.3.0-fake"
    topics = 2 if "--topic-each" in arguments else 1
    assert len(set(nsqd.deleted)) == 3 * topics  # a warm-up and two rounds
    assert all(topic.startswith("bench-") for topic in nsqd.deleted)


def test_consumed_messages_are_finished_and_heartbeats_answered(start_nsqd: StartNsqd) -> None:
    """Before CLS is answered the server has seen every FIN."""
    nsqd = start_nsqd()

    assert main([*addresses(nsqd), "--messages=400", "--no-warm-up", "pubsub"]) == 0

    assert nsqd.finished == 400
    assert nsqd.heartbeats_answered > 0


def test_a_round_ends_after_its_duration(start_nsqd: StartNsqd, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a number of messages, time decides; the table says what was reached."""
    nsqd = start_nsqd()

    assert main([*addresses(nsqd), "--duration=0.02", "--no-warm-up", "pub", "--batch=1"]) == 0

    captured = capsys.readouterr()
    assert "pub batch=1 connections=2" in captured.out
    assert "from sending a command to its OK" in captured.out
    assert "msg/s" in captured.err


def test_a_given_topic_is_left_alone(start_nsqd: StartNsqd) -> None:
    """It may be someone's."""
    nsqd = start_nsqd()

    assert main([*addresses(nsqd), "--messages=10", "--topic=mine", "pub", "--batch=1"]) == 0

    assert nsqd.deleted == []
    assert len(nsqd.queues["mine"]) == 20


@pytest.mark.parametrize("scenario", ["pub", "consume", "latency", "pubsub"])
def test_an_error_of_the_server_fails_the_case(
    start_nsqd: StartNsqd, capsys: pytest.CaptureFixture[str], scenario: str
) -> None:
    """The table says which error, the exit code that there was one, and the other cases still run."""
    nsqd = start_nsqd(refuse=f"bench-{scenario}-")

    assert main([*addresses(nsqd), "--messages=200", scenario, "http"]) == 1

    out = capsys.readouterr().out
    assert "E_PUB_FAILED PUB failed disk full" in out
    assert "\nhttp connections=2\n  " in out


@pytest.mark.parametrize("scenario", ["pubsub", "consume", "latency"])
def test_lost_messages_are_counted(
    start_nsqd: StartNsqd, capsys: pytest.CaptureFixture[str], scenario: str
) -> None:
    """Messages that were answered OK and never come are an error that says how many."""
    nsqd = start_nsqd(lose=7)

    code = main(
        [*addresses(nsqd), "--messages=200", "--rate=5000", "--timeout=0.3", "--no-warm-up", scenario]
    )

    assert code == 1
    assert "7 of 200 messages lost" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_ends_it_with_what_there_is(start_nsqd: StartNsqd) -> None:
    """The case that was done has its figures in the table, and that another one was not done is said below."""
    nsqd = start_nsqd(silent="bench-latency-")
    options = ["--messages=40", "--no-warm-up", "--batch=1"]
    bench = subprocess.Popen(
        [sys.executable, "-m", "nsqkit", "bench", *addresses(nsqd), *options, "pub", "latency", "http"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert nsqd.asked.wait(30)

    bench.send_signal(signal.SIGINT)
    out, _ = bench.communicate(timeout=30)

    assert bench.returncode == 130
    assert "\npub batch=1 connections=2\n        40 " in out
    assert "\nlatency 1,000/s: failed\n" in out
    assert "\nlatency 1,000/s: interrupted after 0 of 1 rounds\n" in out
    assert "http" not in out


def test_a_spawned_program_is_looked_for_beside_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--spawn nsqd` is the nsqd of this installation, also where the PATH does not lead to it."""
    script = Path(__file__).with_name("conftest.py")
    program = tmp_path / "some-nsqd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    assert main(["--spawn", "some-nsqd", "--messages=100", "--no-warm-up", "consume"]) == 0


def test_a_layer_that_the_server_lacks_fails(
    start_nsqd: StartNsqd, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is measured without it."""
    nsqd = start_nsqd()

    assert main([*addresses(nsqd), "--messages=200", "--tls", "pub"]) == 1

    assert "the server does not offer tls_v1" in capsys.readouterr().out


def test_with_layers_what_has_them_is_measured() -> None:
    """Without a scenario, those that can go through layers; each case is called after its layers."""
    cases = build_cases(build_parser().parse_args(["--tls", "--deflate", "--batch=200"]))

    assert ["pub", "consume", "pubsub"] == [case.scenario for case in cases]
    assert all(case.label.endswith(" tls deflate") for case in cases)


def test_bodies_are_cut_from_a_file(start_nsqd: StartNsqd, tmp_path: Path) -> None:
    """One after the other, and from the beginning again."""
    nsqd = start_nsqd()
    (tmp_path / "text").write_bytes(b"abcdefg")

    options = ["--messages=3", "--batch=3", "--size=3", "--topic=t", "--no-warm-up", "--channels=0"]
    assert main([*addresses(nsqd), *options, f"--body={tmp_path / 'text'}", "pub"]) == 0

    assert [b"abc", b"def", b"gab"] == list(nsqd.queues["t"])


def test_an_empty_file_makes_no_bodies(tmp_path: Path) -> None:
    """It is wrong usage."""
    (tmp_path / "empty").touch()

    with pytest.raises(SystemExit, match="2"):
        main(["pub", f"--body={tmp_path / 'empty'}"])


def test_a_refused_connection_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens: exit code 1 and a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert main([f"--nsqd-tcp-address=127.0.0.1:{port}", "pub", "--batch=1"]) == 1

    assert f"cannot connect to 127.0.0.1:{port}" in capsys.readouterr().out


def test_a_spawned_nsqd_that_does_not_start_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own last words are shown."""
    command = f"{sys.executable} -c \"raise SystemExit('no such option')\""

    assert main(["--spawn", command, "pub"]) == 1

    assert "no such option" in capsys.readouterr().err


def test_a_spawned_nsqd_is_measured_and_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets free ports and a data path that is removed again, and is the process the CPU figures are of."""
    script = Path(__file__).with_name("conftest.py")
    out = tmp_path / "out.json"

    assert (
        main(["--spawn", f"{sys.executable} {script}", "--messages=100", "--json", str(out), "consume"]) == 0
    )

    facts: Any = msgspec.json.decode(out.read_bytes())["facts"]
    assert facts["server"]["version"] == "1.3.0-fake"
    with pytest.raises(ProcessLookupError):
        os.kill(facts["server_pid"], 0)
    assert "consume rdy=2500" in capsys.readouterr().out


@pytest.mark.parametrize("tells", [True, False])
def test_the_longest_pass_is_told(
    start_nsqd: StartNsqd, capsys: pytest.CaptureFixture[str], tells: bool
) -> None:
    """If the server knows it, in the last line, which fits a narrow terminal."""
    nsqd = start_nsqd()
    nsqd.tells = tells

    assert main([*addresses(nsqd), "--messages=100", "--rounds=1", "consume"]) == 0

    line = "longest pass of nsqd's event loop: 1.5 ms of CPU, 2.5 ms long"
    assert tells == (line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["latency", "--size=7"],
        ["pub", "--messages=5"],
        ["pubsub", "--channels=0"],
        ["latency", "--tls"],
        ["http", "--snappy"],
        ["pub", "--snappy", "--deflate"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """Before anything is connected."""
    assert main(arguments) == 2


def test_fsync_asks_for_one_and_many_connections() -> None:
    """One alone, 64 on one topic, 64 with a topic each; single PUBs that wait for their OK."""
    cases = build_cases(build_parser().parse_args(["fsync"]))

    assert [(1, False), (64, False), (64, True)] == [(case.connections, case.topic_each) for case in cases]
    assert {(1, 1)} == {(case.batch, case.window) for case in cases}


def test_giving_one_limit_lifts_the_other() -> None:
    """--messages alone means no time limit, --duration alone no message limit; consume always counts messages."""
    by_count = build_cases(build_parser().parse_args(["pub", "--batch=1", "--messages=7"]))
    by_time = build_cases(build_parser().parse_args(["pub", "--batch=1", "--duration=7"]))
    filled = build_cases(build_parser().parse_args(["consume", "--duration=7"]))

    assert (7, None) == (by_count[0].messages, by_count[0].duration_s)
    assert (None, 7.0) == (by_time[0].messages, by_time[0].duration_s)
    assert (500_000, None) == (filled[0].messages, filled[0].duration_s)
