"""Decide whether workers have imported different versions of their app."""

from collections.abc import Collection, Mapping

CHANGED = "?"
"""In front of a file that changed while it was imported: the process has its old code or the new one."""


def parsed(text: str) -> dict[str, str]:
    """Return the checksum of each file, as a worker has noted them.

    >>> parsed("0000000a/srv/app.py")
    {'/srv/app.py': '0000000a'}
    """
    return {entry[8:]: entry[:8] for entry in text.split("\0") if len(entry) >= 8}


def mixed(codes: Collection[Mapping[str, str]], *, surely: bool = False) -> str:
    """Return a file that two workers have in different versions, or one may have in two; "" without one.

    A file that only one worker has imported proves nothing. One that changed while it was imported counts at first:
    its process may have the old half of an app and the new one. With *surely* it counts only where a worker has another
    version that did not change: what changes in each import is written by the app itself.

    >>> one, other = {"app.py": "0a", "more.py": "0b"}, {"app.py": "0a"}
    >>> mixed([one, other]), mixed([one, {"app.py": "0c"}, {}])
    ('', 'app.py')
    >>> changed = {"app.py": "0a", "?app.py": "00"}
    >>> mixed([changed]), mixed([changed, one], surely=True), mixed([changed, {**changed, "app.py": "0c"}], surely=True)
    ('app.py', '', '')
    >>> mixed([changed, {"app.py": "0c"}], surely=True)
    'app.py'
    """
    if not surely:
        for code in codes:
            if changed := next((file for file in code if file.startswith(CHANGED)), ""):
                return changed.removeprefix(CHANGED)
    versions: dict[str, set[str]] = {}
    for code in codes:
        for file, version in code.items():
            versions.setdefault(file, set()).add(version)
    several = (file for file, found in versions.items() if len(found) > 1)
    return next((file for file in several if any(file in code and CHANGED + file not in code for code in codes)), "")
