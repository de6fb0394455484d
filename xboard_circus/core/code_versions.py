"""Decide whether workers have imported different versions of their app."""

from collections.abc import Iterable, Mapping

UNSURE = ""
"""In place of a file: one of them changed while it was imported, so the process has the old code or the new one."""


def parsed(text: str) -> dict[str, str]:
    """Return the checksum of each file, as a worker has noted them.

    >>> parsed("0000000a/srv/app.py")
    {'/srv/app.py': '0000000a'}
    """
    return {entry[8:]: entry[:8] for entry in text.split("\0") if len(entry) >= 8}


def differ(codes: Iterable[Mapping[str, str]], *, surely: bool = False) -> bool:
    """Return whether two workers have a file in two versions; one that only one of them has imported proves nothing.

    A worker may be unsure, because a file changed while it was imported: then it is of another version than those that
    were not imported with it, unless only what is sure counts. Of a worker that noted nothing nothing is known.

    >>> one, other = {"app.py": "0a", "more.py": "0b"}, {"app.py": "0a"}
    >>> differ([one, other]), differ([one, {"app.py": "0c"}, {}])
    (False, True)
    >>> differ([one, {**one, "": "1234"}]), differ([one, {**one, "": "1234"}], surely=True)
    (True, False)
    """
    known: dict[str, str] = {}
    for code in filter(None, codes):
        for file, version in {UNSURE: "", **code}.items():
            if known.setdefault(file, version) != version and not (surely and file == UNSURE):
                return True
    return False
