"""The data path: who may use it, and where in it a topic's log lives.

<data-path>/                     locked by the one nsqd that uses it (flock on the directory itself)
    nsqd.dat                     metadata.py
    <name>.diskqueue.*           queues NSQ left behind, see handover/diskqueue.py
    imported/                    the same, after they were taken over
    journal                      kept free for storage
    %deleted-<number>/           the directory of a topic that was deleted, until all of it is removed
    %probe                       comes and goes at a start, to see whether the data path can be written
    <topic>/                     a topic's log
    %<topic>/                    that of a topic whose name is one of the above, or is no directory name
"""

import errno
import fcntl
import os
import re
from types import TracebackType
from typing import Final, Self

from nsqkit.errors import StartError
from nsqkit.names import valid_name

IMPORTED: Final = "imported"  # directory of NSQ's files that were taken over

_ESCAPE: Final = "%"  # never part of a topic's name
PROBE: Final = "%probe"  # a file that comes and goes at a start; no topic's directory is called so
_RESERVED: Final = re.compile(
    r"""  \.{1,2}                                          # no names of their own
        | imported | journal
        | nsqd\.(\d+\.)?dat(\..*)?                         # metadata of any age, and its temporary files
        | .*\.diskqueue\.(meta|\d{6,})\.dat(\..*)?         # NSQ's queues, likewise
    """,
    re.VERBOSE | re.IGNORECASE,  # file systems may take upper and lower case for the same
)


class DataPathLock:
    """The right to use a data path, held until `release` or the end of the process, however it ends.

    Raises StartError, with the text of NSQ 1.3, if another process holds it, or if the path is no readable
    directory. An empty path is the current directory.
    """

    def __init__(self, data_path: str) -> None:
        directory = data_path or os.getcwd()
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StartError(f"failed to lock data-path: open {directory}: {_errno_text(error)}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StartError(
                f"failed to lock data-path: cannot flock directory {directory} - {_errno_text(error)}"
                " (possibly in use by another instance of nsqd)"
            ) from error
        self._descriptor: int | None = descriptor
        self._directory = os.path.abspath(directory)
        self._identity = _identity(os.fstat(descriptor))

    def misplaced(self) -> str:
        """Why the path does not lead to the locked directory any more, "" if it does.

        Somebody may have removed or renamed it, or mounted something over it.
        """
        try:
            found = _identity(os.stat(self._directory))
        except OSError as error:
            return f"the data path {self._directory} can't be reached: {_errno_text(error)}"
        return "" if found == self._identity else f"the data path {self._directory} is another directory now"

    def release(self) -> None:
        """Let others use the data path. Does nothing the second time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def require_writable(data_path: str) -> None:
    """Raise StartError if nothing can be made in the data path. A full disk is no reason: what is there can be read."""
    directory = data_path or os.getcwd()
    probe = os.path.join(directory, PROBE)
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.unlink(probe)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise StartError(f"data-path {directory} is not writable: {_errno_text(error)}") from error


def topic_directory(data_path: str, topic: str) -> str:
    """Where the log of a topic lives. Raises ValueError for what is no valid name: it might lead anywhere."""
    if not valid_name(topic):
        raise ValueError(f"not a topic name: {topic!r}")
    return os.path.join(data_path, _ESCAPE + topic if _RESERVED.fullmatch(topic) else topic)


def topic_of_directory(name: str) -> str | None:
    """The topic whose log an entry of the data path is, or None if `topic_directory` would not name it so."""
    escaped = name.startswith(_ESCAPE)
    topic = name[len(_ESCAPE) :] if escaped else name
    if not valid_name(topic) or escaped != (_RESERVED.fullmatch(topic) is not None):
        return None
    return topic


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def _errno_text(error: OSError) -> str:
    """The system's text as Go spells it: with a small first letter."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
