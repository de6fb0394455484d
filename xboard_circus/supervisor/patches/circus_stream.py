"""Circus's FileStream: the file that it writes to, which a failed rotation leaves closed, and which others delete."""

import os
from contextlib import suppress
from typing import Any


def open_again(stream: Any) -> None:
    """Open the file of *stream* again: a rotation that failed leaves a closed one, or none, behind."""
    old: Any = getattr(stream, "_file", None)
    make = getattr(stream, "_open", None)
    if make is None:
        return
    with suppress(OSError, ValueError, AttributeError):
        old.close()
    with suppress(OSError):
        stream._file = make()


def is_nameless(stream: Any) -> bool:
    """Return whether the file that *stream* writes to was deleted, or moved away, from under it."""
    try:
        return not os.path.samestat(os.stat(stream._filename), os.fstat(stream._file.fileno()))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def name_of(stream: Any) -> str:
    """Return the name of the file that *stream* writes to, for a message."""
    return str(getattr(stream, "_filename", type(stream).__name__))
