"""A topic's log: whatever becomes of its files, opening and reading them keeps the promises of docs/guarantees.md.

Input: a byte for the mode. Mode 0: the rest is a list of batches, then of damages to the files they make. Mode 1: the
rest is a segment's content as it is; mode 2: the same, with the checksums made right, as only a hostile hand would do.
Mode 3: the same as 1, and the first bytes are the file's name.
"""

from itertools import pairwise
from typing import Final

from nsqkit.nsqd.storage.segment import BATCH_HEADER, BATCH_MAGIC, FILE_HEADER, decode, whole_length
from tests.fuzz.memory_disk import Damage, House, identity, read_all, sealed
from tests.fuzz.source import Source

WORK: Final = 100  # times that a file may be read in order to find what is whole in it

Written = tuple[int, int, int, int, int, bool, bytes]


def check(data: bytes) -> None:
    """Damage costs what it hit, and no more; what is lost is told, and nothing is made up."""
    source = Source(data)
    mode = source.byte() % 4
    if mode == 0:
        _check_damage(source)
        return
    name = source.take(20).decode("latin-1").replace("/", "0") if mode == 3 else f"{source.byte():020d}"
    content = source.rest()
    if mode == 2:
        content = sealed(content, BATCH_MAGIC, 8, 12)
    house = House()
    house.disk.files[f"d/t/{name}.log"] = bytearray(content)
    log = house.storage.open("t")
    whole = _keys(content)
    found = [identity(batch) for batch in read_all(log)]
    assert set(found) <= set(whole), "a message out of nowhere"
    if mode != 2 and all(one[0] + one[1] <= following[0] for one, following in pairwise(whole)):
        _check_use(house, found)


def _keys(content: bytes) -> list[Written]:
    """What a file holds under good checksums, wherever it stands."""
    keys = (_key(content, at) for at in range(len(content)) if content.startswith(BATCH_MAGIC, at))
    return [key for key in keys if key is not None]


def _key(content: bytes, at: int) -> Written | None:
    if at + BATCH_HEADER > len(content) or not 0 < whole_length(content, at) <= len(content) - at:
        return None
    batch = decode(content, at)
    return None if batch is None else identity(batch)


def _check_damage(source: Source) -> None:
    house = House(max_bytes_per_file=900)
    written = _write(house, source)
    damages = {
        path: Damage(bytes(content), FILE_HEADER) for path, content in sorted(house.disk.files.items())
    }
    paths = list(damages)
    while source and paths:
        damages[paths[source.byte() % len(paths)]].apply(source)
    for path, damage in damages.items():
        house.disk.files[path] = damage.content
    total = sum(len(damage.content) for damage in damages.values())
    house.begin()
    house.disk.bytes_read = 0
    log = house.storage.open("t")
    found = [identity(batch) for batch in read_all(log)]
    assert house.disk.bytes_read <= WORK * (total + FILE_HEADER), "it takes far too long"
    known = {key for _, _, _, key in written}
    if not set(found) <= known:  # the damage brought a batch along, checksum and all
        files = [bytes(damage.content) for damage in damages.values()]
        assert set(found) - known <= {key for file in files for key in _keys(file)}, (
            "a message out of nowhere"
        )
        return
    assert len(found) == len(set(found)), "read twice"
    for path, start, stop, key in written:
        if key in found:
            continue
        assert not damages[path].whole(start, stop), f"lost, though whole: {key[:3]}"
        cut = damages[path].is_cut({end for other, _, end, _ in written if other == path})
        begun = path == paths[-1] or len(damages[path].content) >= FILE_HEADER  # only the last can be less
        assert house.reports or (cut and begun), "lost, and not told"
    assert bool(house.reports) == bool(house.storage.shared.torn_count + house.storage.shared.damaged_count)
    log.close()
    assert not house.disk.opened()
    _check_use(house, found)


def _write(house: House, source: Source) -> list[tuple[str, int, int, Written]]:
    """Batches, and where each stands: path, start, stop."""
    log = house.storage.open("t")
    written: list[tuple[str, int, int, Written]] = []
    for _ in range(1 + source.byte() % 16):
        kind = source.byte()
        size = kind * 8 - 1 if kind > 250 else kind // 2
        batch = house.batch(1 + kind % 4, size, carried=kind % 16 == 5)
        log.append(batch)
        log.write()
        path, content = max(house.disk.files.items())
        stop = len(content)
        written.append((path, stop - BATCH_HEADER - len(batch.data), stop, identity(batch)))
    log.close()
    return written


def _check_use(house: House, before: list[Written]) -> None:
    """The log can be written to; the next process finds all that was there, and what was written."""
    house.begin()
    log = house.storage.open("t")
    found = [identity(batch) for batch in read_all(log)]
    assert before == found, "another opening finds something else"
    batch = house.batch(2, 10)
    log.append(batch)
    log.write()
    assert batch.first_position >= max((key[0] + key[1] for key in found), default=0), "a position again"
    log.close()
    house.begin()
    again = [identity(one) for one in read_all(house.storage.open("t"))]
    assert again == [*found, identity(batch)]
