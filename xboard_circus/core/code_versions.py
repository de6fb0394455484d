"""Find the commit that a checkout was at, in the record that git keeps of it (`logs/HEAD`)."""

import re

_MOVE = re.compile(r"^[0-9a-f]{40,64} ([0-9a-f]{40,64}) [^\t\n]*> (\d{1,12}) [-+]\d{4}(?:\t|$)", re.MULTILINE)
SHOWN = 8


def commit_at(moves: str, at: float) -> str | None:
    """Return how the commit of a checkout began at the time *at*; None before the first of its *moves*.

    >>> old, new = "a" * 40, "b" * 40
    >>> moves = f"{old} {old} A <a@b> 100 +0000\\tclone\\n{old} {new} A <a@b> 200 +0000\\tpull: fix\\n"
    >>> commit_at(moves, 99.0), commit_at(moves, 199.9), commit_at(moves, 200.0)
    (None, 'aaaaaaaa', 'bbbbbbbb')
    """
    found = [commit for commit, moved in _MOVE.findall(moves) if int(moved) <= at]
    return found[-1][:SHOWN] if found else None
