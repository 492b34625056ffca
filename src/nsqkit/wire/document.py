"""JSON documents of peers, read as Go's decoder reads them: IDENTIFY's, to nsqd and to nsqlookupd.

Keys match regardless of case, unknown ones are ignored, null means absent, the last value of a name counts, and each
must be of its type.
"""

import json
from typing import Final, NoReturn

MAX_STRING: Final = 256  # characters of a string: each is kept, logged and shown


class BadDocument(Exception):
    """It can't be read; or, with a text, that text says what is wrong in it."""


def decode_document(body: bytes, kinds: dict[str, type]) -> dict[str, object]:
    """The known fields that are there. `kinds` has the type of each: str, int or bool. BadDocument."""
    try:
        # An object becomes a tuple of pairs: nothing else does, and a name may be there twice.
        document: object = json.loads(
            body.decode("utf-8", "replace"), parse_constant=_refuse, object_pairs_hook=tuple
        )
    except (ValueError, RecursionError):
        raise BadDocument from None
    if document is None:
        return {}
    if not isinstance(document, tuple):
        raise BadDocument
    return _checked(document, kinds)


def _refuse(_: str) -> NoReturn:
    raise ValueError("no number")


def _checked(document: tuple[tuple[str, object], ...], kinds: dict[str, type]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key, value in document:
        name = key.replace("\u017f", "s").lower()  # Go folds the long s, too
        kind = kinds.get(name)
        if kind is None or value is None:
            continue
        if type(value) is not kind:
            raise BadDocument
        if isinstance(value, str):
            if len(value) > MAX_STRING:
                raise BadDocument(f"{name} too long {len(value)} > {MAX_STRING}")
            # JSON can hold halves of characters, UTF-8 can't.
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # noqa: PLW2901
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise BadDocument
        fields[name] = value
    return fields
