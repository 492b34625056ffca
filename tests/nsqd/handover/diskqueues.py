"""Files of the original's disk queues, to be read and written."""

from collections.abc import Iterable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nsqkit.nsqd.handover.diskqueue import QueueContents, StoredMessage, read_queue, write_queue

DATA = "t.diskqueue.000000.dat"
META = "t.diskqueue.meta.dat"
MANY_TIMES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

RECORD = (
    b"\x00\x00\x00\x1f"  # 26 + 5 bytes follow
    b"\x17\x97\x9c\xfe\x36\x2a\x00\x00"  # 1700000000 s in ns
    b"\x00\x03"  # attempts
    b"0a1b2c3d4e5f6789"  # id
    b"hello"
)
MESSAGE = StoredMessage(1_700_000_000_000_000_000, 3, b"0a1b2c3d4e5f6789", b"hello")

ids = st.integers(0, 2**64 - 1).map(lambda number: b"%016x" % number)
any_message = st.builds(
    StoredMessage, st.integers(-(2**63), 2**63 - 1), st.integers(0, 65535), ids, st.binary(max_size=99)
)
# Without checksums, damage can only be told from bodies that don't look like headers or never written space.
text_body = st.text("uvwxyz {}", max_size=99).map(str.encode)
times = st.integers(1_500_000_000_000_000_000, 2_000_000_000_000_000_000)
message_with_text = st.builds(StoredMessage, times, st.integers(0, 9), ids, text_body)


def message(number: int, body: bytes = b"body") -> StoredMessage:
    """A message that differs from all others."""
    return StoredMessage(1_700_000_000_000_000_000 + number, 1, b"%016x" % (0xABC0 + number), body)


def record(stored: StoredMessage) -> bytes:
    """A message as NSQ puts it into a data file."""
    payload = stored.timestamp.to_bytes(8, "big", signed=True) + stored.attempts.to_bytes(2, "big")
    payload += stored.id + stored.body
    return len(payload).to_bytes(4, "big") + payload


def records(messages: Iterable[StoredMessage]) -> bytes:
    """Messages one after the other."""
    return b"".join(record(stored) for stored in messages)


def make(data_path: Path, **files: bytes | bytearray | str) -> None:
    """Files of queue t: `meta`, and data files by number, `d0`, `d1` and so on."""
    for key, content in files.items():
        name = META if key == "meta" else f"t.diskqueue.{int(key[1:]):06d}.dat"
        (data_path / name).write_bytes(content.encode() if isinstance(content, str) else content)


def read(data_path: Path) -> QueueContents:
    """All of queue t."""
    return read_queue(str(data_path), "t")


def write(data_path: Path, messages: Iterable[StoredMessage], max_bytes_per_file: int = 1000) -> int:
    """Write queue t."""
    return write_queue(str(data_path), "t", messages, max_bytes_per_file)


def contents(data_path: Path) -> dict[str, bytes]:
    """All files of a data path."""
    return {path.name: path.read_bytes() for path in data_path.iterdir()}
