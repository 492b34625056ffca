"""The three things that an OK can mean."""

from enum import Enum


class Durability(Enum):
    """How far a message has got when its publisher is answered OK."""

    MEMORY = "memory"
    """It is accepted; the disk is for what memory does not hold, and for a clean exit."""

    OS = "os"
    """It was written to the operating system: a killed process loses nothing."""

    FSYNC = "fsync"
    """It was synced: a power cut loses nothing."""
