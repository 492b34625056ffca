"""NSQ in Python. Importing this package loads nothing; `Nsqd` and `NsqdOptions` are loaded when they are asked for.

async with Nsqd(NsqdOptions(data_path=path, tcp_address="127.0.0.1:0")) as nsqd:
    await nsqd.wait()
"""

from typing import TYPE_CHECKING

from nsqkit.version import VERSION

if TYPE_CHECKING:
    from nsqkit.nsqd.daemon import Nsqd
    from nsqkit.nsqd.options import NsqdOptions

__all__ = ["Nsqd", "NsqdOptions"]
__version__ = VERSION


def __getattr__(name: str) -> object:
    if name == "Nsqd":
        from nsqkit.nsqd.daemon import Nsqd  # noqa: PLC0415

        return Nsqd
    if name == "NsqdOptions":
        from nsqkit.nsqd.options import NsqdOptions  # noqa: PLC0415

        return NsqdOptions
    raise AttributeError(f"module 'nsqkit' has no attribute {name!r}")
