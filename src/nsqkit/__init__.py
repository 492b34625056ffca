"""NSQ in Python: the daemons, the tools and an asyncio client. Importing this package loads nothing else."""

from nsqkit.version import VERSION

__version__ = VERSION
