"""Makes the corpus: `python -m tests.fuzz.seeds`. What was found by fuzzing is kept beside it as `found-*`, by hand."""

import json
import os
from collections.abc import Mapping
from typing import Final

from nsqkit.nsqd.storage.segment import file_header
from tests.fuzz.memory_disk import House
from tests.fuzz.targets.compression import bomb
from tests.fuzz.targets.diskqueue import NAME, scratch
from tests.nsqd.core.sent import sized

from nsqkit.nsqd.handover.diskqueue import StoredMessage, meta_file_name, write_queue  # isort: skip

CORPUS: Final = os.path.join(os.path.dirname(__file__), "corpus")
NOW: Final = 1_700_000_000_000_000_000
HASHED: Final = b"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0ab8225d7c1a9e2c9b1c1e"
FIRST_ID: Final = b"%016x" % (((NOW >> 20) - 1288834974288) << 22)  # of the first message a session publishes

MAGIC: Final = b"  V2"
TWO: Final = sized(b"one", b"two")
MPUB: Final = b"MPUB t\n" + (4 + len(TWO)).to_bytes(4, "big") + (2).to_bytes(4, "big") + TWO


def seeds() -> Mapping[str, Mapping[str, bytes]]:
    """The inputs of each target, by name."""
    return {
        "commands": _commands(),
        "batches": _batches(),
        "session": _session(),
        "link": {
            "publishes": b"\x03\x05"
            + _frames((0, b"OK"), (0, b"_heartbeat_"), (0, b"OK"), (1, b"E_BAD_TOPIC no")),
            "message": b"\x00\x02" + _frames((2, NOW.to_bytes(8, "big") + b"\0\1" + FIRST_ID + b"body")),
            "late": b"\x00\x02" + _frames((1, b"E_FIN_FAILED FIN failed"), (0, b"CLOSE_WAIT")),
            "too-many": b"\x01\x07" + _frames((0, b"OK"), (0, b"OK")),
        },
        "frames": {
            "ok-heartbeat-error": b"\x05" + _frames((0, b"OK"), (0, b"_heartbeat_"), (1, b"E_INVALID x")),
            "message": b"\x02" + _frames((2, NOW.to_bytes(8, "big") + b"\0\1" + FIRST_ID + b"body")),
            "too-small": b"\x07" + _frames((0, b"OK")) + b"\0\0\0\3\0\0\0\0",
            "negative": b"\x01\xff\xff\xff\xfb\0\0\0\0",
        },
        "identify": _identify(),
        "compression": {
            "snappy-stream": b"\x02\x03" + b"PUB t\n\0\0\0\4body" * 4,
            "snappy-garbage": b"\x00\x05\xff\x06\x00\x00sNaPpY\x01\x05\x00\x00\1\2\3\4x\x80\x03\x00\x00abc",
            "snappy-skippable": b"\x00\x02\xfe\x00\x01\x00" + bytes(256) + b"\x01",
            "snappy-large": b"\x06\x07" + b"0123456789" * 9,
            "snappy-damaged": b"\x0a\x01\x00\x15" + b"abcd" * 20,
            "deflate-stream": b"\x03\x03" + b"PUB t\n\0\0\0\4body" * 4,
            "deflate-large": b"\x07\x07" + b"0123456789" * 9,
            "deflate-damaged": b"\x0b\x02\x00\x09" + b"abcd" * 20,
            "deflate-ended": b"\x01\x00\x03\x00",
            "deflate-bomb": b"\x01\x04" + bomb(size=2 << 20),
        },
        "query": {
            "pub": b"topic=orders&defer=1000",
            "channel": b"topic=orders&channel=billing%23ephemeral",
            "escapes": b"topic=a%2Bb+c&x=%e4%b8%96&topic=second&=&&a",
            "bad-escape": b"topic=%4",
            "semicolon": b"topic=a;b",
        },
        "replies": {
            "ok-json": b'\x03\0\0\0\2OK\0\0\0\x0d{"a":"b","c":1}',
            "empty": b"\x01\0\0\0\0\0\0\0\2OK",
            "too-long": b"\x02\0\0\0\2OK\0\1\0\0x",
            "negative": b"\x05\xff\xff\xff\xff",
        },
        "lookupd": _lookupd(),
        "segments": _segments(),
        "checkpoint": {
            "made": bytes([2, 6, 1, 0, 2, 3, 1, 0, 5, 1, 2, 4, 1, 3, 1, 0, 7, 0, 1, 0, 2, 0, 0, 1, 44, 3]),
            "made-damaged": bytes([2, 6, 1, 0, 2, 1, 1, 0, 5, 0, 0, 0, 1, 44, 3, 0, 0, 20, 3, 7, 7]),
            "synced-too-far": bytes([2, 9, 0, 0, 0, 0, 0, 255, 255, 7]),
            "right-front": b"\x01" + bytes(52),
            "garbage": b"\x00NSQKCKP\n\x00\x00\x00\x01",
        },
        "journal": _journal(),
        "diskqueue": _diskqueue(),
        "moving": {
            f"{name}-{number}": bytes([number]) + content[1:]
            for name, content in _queue_files().items()
            for number in (range(4) if name == "queue" else (1,))
        },
        "metadata": {
            "topics": b'{"topics":[{"name":"t","paused":false,"channels":[{"name":"c","paused":true}]},'
            b'{"name":"u","paused":true,"channels":null}],"version":"1.3.0"}',
            "null": b'{"topics":null,"version":"1.3.0"}',
            "bad-names": b'{"topics":[{"name":"bad name","channels":[]},{"name":"t","channels":[{"name":"\\u0000"}]}]}',
            "twice": b'{"topics":[{"name":"t"},{"name":"t","paused":true}]}',
            "ephemeral": b'{"topics":[{"name":"t#ephemeral","channels":[{"name":"c"}]}]}',
            "wrong-type": b'{"topics":[{"name":7}]}',
        },
        "auth_answer": _auth_answers(),
        "tokens": {
            "all": b"# whose\nread 3f2c1e0b9a8d7c6f5e4d\n\npublish,read "
            + HASHED
            + b"\nadmin 0123456789abcdef!",
            "own": b"3f2c1e0b9a8d7c6f5e4d\n",
            "header": b"Bearer 3f2c1e0b9a8d7c6f5e4d",
            "twice": b"read 3f2c1e0b9a8d7c6f5e4d\nadmin 3f2c1e0b9a8d7c6f5e4d\n",
            "no-role": b"reed 3f2c1e0b9a8d7c6f5e4d",
            "short": b"read 3f2c1e",
            "bad-hash": b"admin sha256:9f86",
            "only-remarks": b"# nothing\n",
        },
        "command_line": {
            "usual": b"-data-path\0/tmp/x\0--mem-queue-size=0\0--lookupd-tcp-address=a:1\0--snappy=false",
            "durations": b"--msg-timeout=1m30s\0--max-msg-timeout\x0015m\0--sync-timeout=2.5s",
            "lists": b"--e2e-processing-latency-percentile=0.5,0.99\0--lookupd-tcp-address\0[::1]:4160",
            "words": b"--log-level=DEBUG\0--durability=fsync\0--worker-id=7\0--verbose",
            "live": b'--\0["a:1","b:2"]',
            "not-defined": b"--nothing",
            "not-available": b"--tls-cert=x",
        },
        "config_file": {
            "usual": b'log_level = "warn"\nmsg_timeout = 30000\nsnappy = false\nid = 7\n',
            "lists": b'nsqlookupd_tcp_addresses = ["a:1", "b:2"]\ne2e_processing_latency_percentiles = "0.5, 0.9"\n',
            "numbers": b"e2e_processing_latency_percentiles = [1, 0.5]\nmax_body_size = 0x1000\ndeflate = 0\n",
            "durations": b'max_msg_timeout = "15m"\nsync_timeout = "1.5s"\n',
            "tls": b"tls_required = true\n",
            "unknown": b"nothing = 1\n[table]\nx = 1979-05-27T07:32:00Z\n",
        },
    }


def _auth_answers() -> dict[str, bytes]:
    rule = b'{"topic":"^orders$","channels":[".*"],"permissions":["subscribe","publish"]}'
    plain = b'{"topic":"rder","channels":["bill","c"],"permissions":["subscribe"]}'
    return {
        "usual": b'{"ttl":60,"identity":"billing","identity_url":"http://id/","authorizations":['
        + rule
        + b"]}",
        "plain": b'{"ttl":1,"authorizations":[' + plain + b"," + rule + b"]}",
        "nothing": b'{"ttl":3600,"authorizations":null}',
        "no-ttl": b'{"identity":"x","authorizations":[]}',
        "long-ttl": b'{"ttl":9223372036854775807}',
        "bad-permission": b'{"ttl":1,"authorizations":[{"topic":"","channels":[""],"permissions":["admin"]}]}',
        "bad-pattern": b'{"ttl":1,"authorizations":[{"topic":"(","channels":["[a-"],"permissions":[]}]}',
        "not-json": b"<html>502</html>",
    }


def _commands() -> dict[str, bytes]:
    return {
        "lines": b"\x03NOP\nRDY 5\r\n\nCLS\n",
        "finish": b"\x05FIN 0123456789abcdef\nFIN 0123456789abcde\r\nFIN x\n",
        "document": b"\x02D\n" + sized(b"{}") + b"NOP\n",
        "batch": b"\x07" + MPUB + b"NOP\n",
        "batch-bad-count": b"\x01MPUB t\n" + bytes(3) + b"\x08\0\0\0\0NOP\n",
        "batch-bad-size": b"\x01MPUB t\n\0\0\0\x09\0\0\0\1\0\0\0\0x",
        "number": b"\x0018446744073709551616",
        "incomplete": b"\x04MPUB t\n\0\0\0\x20\0\0\0\3\0\0\0\1x\0\0",
    }


def _batches() -> dict[str, bytes]:
    return {
        "two": b"\x03\x00" + MPUB[7:],
        "short": b"\x03\x00" + MPUB[7:-1],
        "too-many": b"\x03\x00\0\0\0\x20\0\1\0\0\0\0\0\1x",
        "made": b"\x0a\x01\0\0\0" + bytes([20, 40, 60, 3, 1, 0, 6]),
        "made-large": b"\x10\x01\0\0\0" + b"\x01\x80\x00" * 5 + b"\x02" * 9,
        "made-damaged": b"\x05\x01\0\x09\x01" + b"\x01\x80\x00" * 5,
        "lines": b"\x00\x00one\n\ntwo\r\nthree",
    }


def _session() -> dict[str, bytes]:
    identify = json.dumps({"feature_negotiation": True, "heartbeat_interval": 1000, "msg_timeout": 2000})
    snappy = json.dumps({"feature_negotiation": True, "snappy": True})
    consume = b"SUB t c\nRDY 2\n"
    return {
        "publish": b"\x03\x01"
        + MAGIC
        + b"PUB t\n"
        + sized(b"body")
        + MPUB
        + b"DPUB t 100\n"
        + sized(b"late"),
        "synced": b"\x03\x02" + MAGIC + b"PUB t\n" + sized(b"body") + b"NOP\n" + MPUB + b"SUB t c\n",
        "identify": b"\x05\x00" + MAGIC + b"IDENTIFY\n" + sized(identify.encode()) + consume,
        "upgrade": b"\x05\x02"
        + MAGIC
        + b"PUB t\n"
        + sized(b"x")
        + b"IDENTIFY\n"
        + sized(snappy.encode())
        + b"NOP\n",
        "consume": b"\x03\x01"
        + MAGIC
        + b"PUB t\n"
        + sized(b"body")
        + consume
        + b"FIN "
        + FIRST_ID
        + b"\nCLS\n",
        "requeue": b"\x03\x00"
        + MAGIC
        + consume
        + MPUB
        + b"REQ %b 0\nTOUCH %b\nREQ %b 50\n" % ((FIRST_ID,) * 3),
        "finish-twice": b"\x02\x01" + MAGIC + MPUB + consume + (b"FIN " + FIRST_ID + b"\n") * 2,
        "ephemeral": b"\x02\x00" + MAGIC + b"SUB e#ephemeral c#ephemeral\nPUB e#ephemeral\n" + sized(b"x"),
        "sample": b"\x02\x00" + MAGIC + b"IDENTIFY\n" + sized(b'{"sample_rate":10}') + consume + MPUB,
        "bad-magic": b"\x02\x00  V1PING\n",
        "bad-topic": b"\x02\x00" + MAGIC + b'PUB a"b\\\xff\n',
        "bad-batch-topic": b"\x02\x00" + MAGIC + b"MPUB \n",
        "bad-size": b"\x02\x00" + MAGIC + b"PUB t\n\xff\xff\xff\xfb",
        "bad-document": b"\x02\x00" + MAGIC + b"IDENTIFY\n" + sized(b"[1]"),
        "auth": b"\x02\x00" + MAGIC + b"AUTH\n" + sized(b"secret"),
        "unknown": b"\x02\x00" + MAGIC + b"NOP\nHELLO world\nNOP\n",
        "incomplete": b"\x02\x01" + MAGIC + b"PUB t\n" + sized(b"x") + b"PUB t\n\0\0\0\x09half",
    }


def _identify() -> dict[str, bytes]:
    bodies: dict[str, object] = {
        "all": {
            "client_id": "id",
            "hostname": "host",
            "user_agent": "agent/1",
            "feature_negotiation": True,
            "heartbeat_interval": 2000,
            "output_buffer_size": 128,
            "output_buffer_timeout": 100,
            "sample_rate": 5,
            "msg_timeout": 3000,
            "deflate": True,
            "deflate_level": 9,
        },
        "no-heartbeat": {"heartbeat_interval": -1, "output_buffer_size": -1, "output_buffer_timeout": -1},
        "both-codecs": {"feature_negotiation": True, "snappy": True, "deflate": True},
        "any-case": {"Sample_Rate": 7, "HEARTBEAT_INTERVAL": 1000, "short_id": [1, {"a": None}]},
        "out-of-range": {"msg_timeout": 999},
        "wrong-type": {"sample_rate": "5"},
    }
    made = {name: b"\x00" + json.dumps(body).encode() for name, body in bodies.items()}
    made["null"] = b"\x01null"
    made["fraction"] = b'\x00{"msg_timeout":1000.0}'
    made["half-character"] = b'\x07{"client_id":"\\ud800","feature_negotiation":true}'
    made["twice"] = b'\x00{"sample_rate":1,"SAMPLE_RATE":2,"snappy":null}'
    return made


def _lookupd() -> dict[str, bytes]:
    body = json.dumps(
        {"broadcast_address": "a", "hostname": "h", "tcp_port": 4150, "http_port": 4151, "version": "1.3.0"}
    ).encode()
    hello = b"\x05  V1IDENTIFY\n" + sized(body)
    return {
        "register": hello + b"REGISTER t c\nREGISTER u\nPING\nUNREGISTER t c\nUNREGISTER u\n",
        "ephemeral": hello + b"REGISTER e#ephemeral c#ephemeral\nUNREGISTER e#ephemeral\n",
        "unregister-unknown": hello + b"UNREGISTER x y\nUNREGISTER t c\n",
        "spaces": hello + b"  REGISTER t \r\nREGISTER  c\n",
        "bad-topic": hello + b"REGISTER a'b\n",
        "bad-channel": hello + b"REGISTER t *\n",
        "twice": hello + b"IDENTIFY\n" + sized(body),
        "missing-fields": b"\x02  V1IDENTIFY\n" + sized(b'{"version":"1"}'),
        "not-identified": b"\x02  V1REGISTER t c\n",
        "bad-magic": b"\x02  V2",
        "half-body": b"\x02  V1PING\nIDENTIFY\n\0\0\0\x09{",
    }


def _segments() -> dict[str, bytes]:
    house = House()
    log = house.storage.open("t")
    for number, size in enumerate((8, 30)):
        log.append(house.batch(2, size, carried=number == 1))
        log.write()
    log.close()
    content = bytes(house.disk.files[f"d/t/{0:020d}.log"])
    batches = bytes([5, 20, 33, 5, 60, 80])
    return {
        "whole": b"\x00" + batches,
        "rolled": b"\x00\x0b" + bytes([250, 120, 5, 241, 9, 200, 130, 90, 77, 3, 18]),
        "byte-changed": b"\x00" + batches + bytes([0, 0, 0, 90, 1, 7, 7]),
        "zeros": b"\x00" + batches + bytes([0, 3, 0, 60, 100]),
        "torn": b"\x00" + batches + bytes([0, 4, 1, 40, 0]),
        "bytes-gone": b"\x00" + batches + bytes([0, 5, 0, 120, 30]),
        "bytes-put-in": b"\x00" + batches + bytes([0, 6, 0, 130, 9]) + b"garbagegarbage",
        "zeros-behind": b"\x00" + batches + bytes([0, 7, 0, 0, 8]),
        "header-changed": b"\x00" + batches + bytes([0, 0, 0, 3, 1, 7, 7]),
        "as-it-is": b"\x01\x00" + content,
        "other-name": b"\x01\x07" + content,
        "header-only": b"\x01\x00" + file_header(0),
        "checksums-right": b"\x02\x00" + content,
        "named": b"\x03" + b"00000000000000000000" + content,
        "foreign": b"\x03" + b"notes from somewhere" + b"hello",
    }


def _journal() -> dict[str, bytes]:
    house = House()
    house.storage.journal.start()
    house.storage.journal.write(
        [("t", house.batch(2, 8)), ("u", house.batch(1, 9)), ("t", house.batch(0, 0))]
    )
    content = bytes(house.disk.files["d/journal/0000000001.journal"])
    publishes = bytes([5, 20, 33, 5, 60, 80, 140])
    return {
        "whole": b"\x00" + publishes,
        "log-torn": b"\x00" + publishes + bytes([1, 4, 0, 80, 0]),
        "log-hole": b"\x00" + publishes + bytes([1, 3, 0, 60, 100]),
        "journal-torn": b"\x00" + publishes + bytes([0, 4, 1, 60, 0]),
        "both-damaged": b"\x00" + publishes + bytes([0, 0, 0, 90, 3, 1, 2, 3, 4, 1, 5, 0, 40, 30]),
        "as-it-is": b"\x01" + content,
        "torn": b"\x01" + content[:-5],
        "checksums-right": b"\x02" + content,
    }


def _queue_files() -> dict[str, bytes]:
    """A queue's meta file and data file, as `diskqueue` takes them in mode 1."""
    messages = [StoredMessage(NOW + n, n, b"%016x" % (n << 12), b"body %d" % n) for n in range(4)]
    with scratch() as path:
        write_queue(path, NAME, messages, 1 << 20)
        with open(os.path.join(path, meta_file_name(NAME)), "rb") as file:
            meta = file.read()
        with open(os.path.join(path, f"{NAME}.diskqueue.000000.dat"), "rb") as file:
            content = file.read()
    return {
        "queue": b"\x01" + meta + b"|" + content,
        "no-meta": b"\x01|" + content,
        "damaged": b"\x01" + meta + b"|" + content[:40] + b"\xff\xff" + content[42:],
        "read-up-to": b"\x01" + meta.replace(b"0,0", b"0,36", 1) + b"|" + content,
    }


def _diskqueue() -> dict[str, bytes]:
    messages = bytes([0, 5]) + b"\x04body" + b"\x45other" + b"\x00" + b"\xcdthirteenbytes" + b"\x07seventh"
    return {
        **_queue_files(),
        "made": messages,
        "made-torn": messages + bytes([0, 4, 0, 100, 0]),
        "made-length-wrong": messages + bytes([0, 0, 0, 36, 0, 9]),
        "made-zeros": messages + bytes([0, 3, 0, 60, 50]),
        "garbage": b"\x011\n0,0\n0,9\n|garbage",
    }


def _frames(*frames: tuple[int, bytes]) -> bytes:
    return b"".join(sized(kind.to_bytes(4, "big") + payload) for kind, payload in frames)


def main() -> None:
    """Write the files."""
    for target, inputs in seeds().items():
        directory = os.path.join(CORPUS, target)
        os.makedirs(directory, exist_ok=True)
        for name, content in inputs.items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(content)


if __name__ == "__main__":
    main()
