"""Addresses as users give them: one, or several, or several in one text with commas between."""

from collections.abc import Sequence

from nsqkit.address import split_address
from nsqkit.errors import OptionError


def addresses_of(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses, each once; nsqd's are host:port, those of nsqlookupds may be URLs. OptionError says which."""
    words = [given] if isinstance(given, str) else list(given)
    for word in words:
        if not isinstance(word, str):
            raise OptionError(f"{name}: {word!r} is no address: write host:port")
    addresses = [one.strip() for word in words for one in word.split(",") if one.strip()]
    for address in addresses:
        if name == "nsqd":
            try:
                split_address(address)
            except ValueError as reason:
                raise OptionError(f"{name}: {address!r} is {reason}") from None
    return tuple(dict.fromkeys(addresses))
