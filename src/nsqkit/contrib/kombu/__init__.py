"""NSQ under kombu, and so under Celery: `broker_transport = "nsqkit.contrib.kombu:Transport"` (docs/celery.md).

names      how queues and exchanges are called in NSQ
envelope   a kombu message as bytes, and when it is due
feeds      consumers in the client's thread, and a descriptor that tells kombu's event loop of their messages
channel    what kombu does with queues: bind, publish, consume, acknowledge
transport  a connection: addresses, options, the event loop
"""

from kombu.transport import TRANSPORT_ALIASES

from nsqkit.contrib.kombu.transport import Transport

__all__ = ["Transport"]

TRANSPORT_ALIASES.setdefault(
    "nsq", "nsqkit.contrib.kombu:Transport"
)  # nsq:// is enough, once this is imported
