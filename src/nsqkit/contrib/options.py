"""The options of a broker: it has producers and consumers, and each gets what it knows."""

from typing import cast

from nsqkit.client.options import ConsumerKeywords, ProducerKeywords


class BrokerKeywords(ProducerKeywords, ConsumerKeywords, total=False):
    """The options of `ProducerOptions` and of `ConsumerOptions` as keyword arguments."""


def split(options: BrokerKeywords) -> tuple[ProducerKeywords, ConsumerKeywords]:
    """What the producers get, and what the consumers get, who also complain of what nobody knows."""
    known = ProducerKeywords.__optional_keys__
    others = known - ConsumerKeywords.__optional_keys__
    producer = {name: value for name, value in options.items() if name in known}
    consumer = {name: value for name, value in options.items() if name not in others}
    return cast("ProducerKeywords", producer), cast("ConsumerKeywords", consumer)
