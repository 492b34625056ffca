"""What a test may hook into a broker: it hears of what was published, and lets commands fail. None outside of tests."""

from mypy_extensions import i64, mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Probe:
    """This one does nothing."""

    def command_came(self, command: str) -> None:
        """A client may give this command, as far as it can be known before its body. ClientError: it is refused."""

    def published(self, topic: str, data: bytes, count: i64) -> None:
        """Messages were taken in, by whatever way: `count` bodies in `data`, each after its 4-byte size."""
