"""Ways to cut a stream into chunks."""

from collections.abc import Callable

import pytest


@pytest.fixture(params=["whole", "byte by byte", "with a tail"])
def chunks(request) -> Callable[..., list[bytes]]:
    """Cut bytes into chunks; with a tail, more bytes come in the same chunk."""

    def cut(data: bytes, tail: bytes = b"TAIL") -> list[bytes]:
        if request.param == "whole":
            return [data]
        if request.param == "byte by byte":
            return [data[i : i + 1] for i in range(len(data))]
        return [data + tail]

    return cut
