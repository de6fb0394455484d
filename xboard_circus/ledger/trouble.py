"""Turn failures of the ledger's file into reasons."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xboard_circus.errors import XboardError


class Trouble(enum.Enum):
    """Why the ledger could not do something."""

    FULL = "disk full"
    LOCKED = "locked"
    DAMAGED = "damaged"
    UNUSABLE = "unusable"


class LedgerError(XboardError):
    """The ledger at *path* could not be written or read.

    Attributes:
        trouble: What is in the way.
    """

    def __init__(self, path: Path, trouble: Trouble, what: str) -> None:
        super().__init__(f"ledger {path}: {what}")
        self.trouble = trouble


def trouble_of(error: sqlite3.Error) -> Trouble:
    """Return what *error* means for the ledger.

    >>> trouble_of(sqlite3.OperationalError("database is locked"))
    <Trouble.LOCKED: 'locked'>
    """
    text = str(error)
    # By the text: Python 3.10 does not hand out SQLite's code, and the texts have not changed since SQLite 3.0.
    if "malformed" in text or "not a database" in text:
        return Trouble.DAMAGED
    if "locked" in text or "busy" in text:
        return Trouble.LOCKED
    # A write beyond a quota or a limit on file sizes comes back as an I/O error.
    if "disk is full" in text or "disk I/O error" in text:
        return Trouble.FULL
    return Trouble.UNUSABLE


@contextmanager
def told_as_ledger_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite and the system raise inside as a LedgerError of the ledger at *path*."""
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(path, trouble_of(error), str(error)) from error
    except OSError as error:
        raise LedgerError(path, Trouble.UNUSABLE, error.strerror or str(error)) from error
