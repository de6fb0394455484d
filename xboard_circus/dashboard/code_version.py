"""Find which code a folder had at a time: its commit, and its newest Python file by then."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypedDict

from xboard_circus.host.written_files import plain_opener, walk

MOST_FILES = MOST_FOLDERS = 5000
LOG_BYTES = 1 << 18  # some 1,500 moves
LEFT_OUT = {"__pycache__", "node_modules", "site-packages"}
SHOWN = 8
_MOVE = re.compile(r"^[0-9a-f]{40,64} ([0-9a-f]{40,64}) [^\t\n]*> (\d{1,12}) [-+]\d{4}(?:\t|$)", re.MULTILINE)


class CodeVersion(TypedDict):
    """A version of the code in a folder; *changed* is when a file of it was changed last."""

    commit: str | None
    changed: float | None


def versions(folder: Path, times: Sequence[float]) -> list[CodeVersion]:
    """Return the version of the code in *folder* at each of *times*.

    What git does not know, such as an edit in place, the times of the files show; a file that was changed since is not
    among them.
    """
    moves, changed = _moves(folder), [*islice(_changes(folder), MOST_FILES)]
    return [
        {"commit": commit_at(moves, at), "changed": max((e for e in changed if e <= at), default=None)} for at in times
    ]


def commit_at(moves: str, at: float) -> str | None:
    """Return how the commit of a checkout began at the time *at*; None before the first of its *moves*.

    >>> old, new = "a" * 40, "b" * 40
    >>> moves = f"{old} {old} A <a@b> 100 +0000\\tclone\\n{old} {new} A <a@b> 200 +0000\\tpull: fix\\n"
    >>> commit_at(moves, 99.0), commit_at(moves, 199.9), commit_at(moves, 200.0)
    (None, 'aaaaaaaa', 'bbbbbbbb')
    """
    found = [commit for commit, moved in _MOVE.findall(moves) if int(moved) <= at]
    return found[-1][:SHOWN] if found else None


def _moves(folder: Path) -> str:
    for above in (folder, *folder.parents):
        git = above / ".git"
        with suppress(OSError):
            if os.path.isfile(git):  # a worktree of git's
                git = above / _text(git).removeprefix("gitdir:").strip()
            return _text(git / "logs" / "HEAD")
    return ""


def _text(file: Path) -> str:
    with open(file, "rb", opener=plain_opener) as opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - LOG_BYTES))
        return opened.read(LOG_BYTES).decode(errors="replace")


def _changes(folder: Path) -> Iterator[float]:
    for place, folders, files in islice(walk(folder), MOST_FOLDERS):
        with suppress(OSError):
            if "pyvenv.cfg" in files:
                folders.clear()
                continue
            folders[:] = [each for each in folders if not each.startswith(".") and each not in LEFT_OUT]
            yield from (os.lstat(os.path.join(place, each)).st_mtime for each in files if each.endswith(".py"))
