"""NSQ in Python. Importing this package loads nothing; what it offers is loaded when it is asked for.

async with Nsqd(NsqdOptions(data_path=path, tcp_address="127.0.0.1:0")) as nsqd:
    await nsqd.publish("orders", b"one book", delay=1.5)
    await nsqd.wait()
"""

from importlib import import_module
from typing import TYPE_CHECKING

from nsqkit.version import VERSION

if TYPE_CHECKING:
    from nsqkit.errors import NsqkitError, OptionError, PublishError, StartError
    from nsqkit.log import Level, Log
    from nsqkit.logger import LoggerLog
    from nsqkit.nsqd.daemon import Nsqd
    from nsqkit.nsqd.durability import Durability
    from nsqkit.nsqd.options import NsqdOptions

__all__ = [
    "Durability",
    "Level",
    "Log",
    "LoggerLog",
    "Nsqd",
    "NsqdOptions",
    "NsqkitError",
    "OptionError",
    "PublishError",
    "StartError",
]
__version__ = VERSION

_HOMES = {
    "Durability": "nsqkit.nsqd.durability",
    "Level": "nsqkit.log",
    "Log": "nsqkit.log",
    "LoggerLog": "nsqkit.logger",
    "Nsqd": "nsqkit.nsqd.daemon",
    "NsqdOptions": "nsqkit.nsqd.options",
    "NsqkitError": "nsqkit.errors",
    "OptionError": "nsqkit.errors",
    "PublishError": "nsqkit.errors",
    "StartError": "nsqkit.errors",
}
"""Where each name is defined: mypy reads the imports above, Python these."""


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'nsqkit' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
