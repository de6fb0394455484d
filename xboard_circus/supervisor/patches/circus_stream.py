"""Patch Circus's FileStream: its file, which a failed rotation leaves closed, and which others delete."""

import os
from contextlib import suppress
from typing import IO, Any

from xboard_circus.host.written_files import opener
from xboard_circus.supervisor.patches.patch import Original, replaces


@replaces("_FileStreamBase._open")
def open_no_link(_: Original, __: object) -> Original:
    """Open a log of a watcher, but no link of another user's where circusd is root.

    Without it: A user who may write the folder of a log has root write what he wants into any file.
    Fact: Circus opens the name with open(), again at each rotation.
    """

    def _open(stream: Any) -> IO[str]:
        return open(stream._filename, "a+", opener=opener)

    return _open


@replaces("Redirector.add_redirections")
def read_without_waiting(original: Original, _: object) -> Original:
    """Read the output of processes without waiting for it.

    Without it: A worker that takes its own output back out of the pipe has circusd wait in read() for ever.
    Fact: Circus reads when epoll has seen something, from a pipe that blocks; it belongs to the worker's user.
    """

    def add_redirections(redirector: Any, process: Any) -> None:
        for _, pipe in redirector.get_process_pipes(process):
            os.set_blocking(pipe.fileno(), False)
        original(redirector, process)

    return add_redirections


def open_again(stream: Any) -> None:
    """Open the file of *stream* again, because a failed rotation leaves a closed one, or none. Raises OSError."""
    old: Any = getattr(stream, "_file", None)
    make = getattr(stream, "_open", None)
    if make is None:
        return
    with suppress(OSError, ValueError, AttributeError):
        old.close()
    stream._file = make()


def is_nameless(stream: Any) -> bool:
    """Return whether the file of *stream* was deleted, moved away, or could not be opened."""
    try:
        return not os.path.samestat(os.stat(stream._filename), os.fstat(stream._file.fileno()))
    except (FileNotFoundError, ValueError):
        return True
    except (OSError, AttributeError, TypeError):
        return False


def name_of(stream: Any) -> str:
    """Return the name of the file of *stream*, for a message."""
    return str(getattr(stream, "_filename", type(stream).__name__))
