"""What runs here: our version, the NSQ version we speak, and which build this is. Imports must stay cheap."""

import importlib.util
import sys

VERSION = "0.1.0"
"""Our own version; pyproject.toml reads it from here."""

NSQ_VERSION = "1.3.0"
"""The NSQ release whose protocol, HTTP API and flags we follow. Clients look for features by it."""

_COMPILED_WITNESS = "nsqkit.wire.frames"


def built_with() -> str:
    """The runtime, in the form of Go's `go1.21.5`: `python3.11.7`."""
    name = sys.implementation.name.replace("cpython", "python")
    return f"{name}{'.'.join(str(part) for part in sys.version_info[:3])}"


def compiled() -> bool:
    """Whether the data plane of this installation is compiled."""
    spec = importlib.util.find_spec(_COMPILED_WITNESS)
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def build() -> str:
    """Our own version, and which build of it this is: `0.1.0 compiled`."""
    return f"{VERSION} {'compiled' if compiled() else 'pure'}"


def version_line(program: str) -> str:
    """What `--version` prints. Clients parse the part up to the closing parenthesis."""
    return f"{program} v{NSQ_VERSION} (built w/{built_with()}) nsqkit {build()}"
