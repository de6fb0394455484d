"""Print each place on the way to where links lead that another user may turn or replace: for `bootstrap.sh`.

``python3 -I scripts/links.py UID GID LINK...`` trusts root, that user, and that group. Of an interpreter, or a link to
one, it is also the way to the library that Python imports its own modules from. It needs the standard library
alone, since root runs it before anything of ``.venv``. ``find -L`` sees only where a link leads at that moment; and a
chown of the whole checkout makes the links in it root's, but not those behind them.
"""

import glob
import grp
import os
import pwd
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress


def steps(path: str) -> Iterator[tuple[str, str]]:
    """Yield each folder on the way to *path*, and what is looked up in it; links are followed."""
    above, name = os.path.split(path)
    if name:
        yield from steps(above)
        folder = os.path.realpath(above)
        step = os.path.join(folder, name)
        yield folder, step
        if os.path.islink(step):
            yield from steps(os.path.join(folder, os.readlink(step)))


def libraries(python: str) -> Iterator[str]:
    """Yield what the library of *python* is looked for by, beside its program or `home` in pyvenv.cfg, and above."""
    homes = [os.path.dirname(os.path.realpath(python))]
    with suppress(OSError), open(os.path.join(os.path.dirname(python), "../pyvenv.cfg"), errors="replace") as file:
        homes += map(os.path.abspath, re.findall(r"(?im)^\s*home\s*=\s*(.*?)\s*$", file.read()))
    for home in homes:
        while home != (home := os.path.dirname(home)):
            yield from glob.glob(f"{glob.escape(home)}/lib*/python3*/os.py")


def may_be_turned(folder: str, step: str, uids: set[int], gids: set[int]) -> bool:
    """Return whether *step* or its *folder* is another user's, or open to others who could make or replace it."""
    if not os.path.isdir(folder):
        return False  # who may make it was asked one step before
    found, is_there = os.stat(folder), os.path.lexists(step)
    if found.st_uid not in uids or (is_there and os.lstat(step).st_uid not in uids):
        return True
    if is_there and found.st_mode & stat.S_ISVTX:
        return False
    has_members = {each.pw_gid for each in pwd.getpwall()} | {each.gr_gid for each in grp.getgrall() if each.gr_mem}
    has_list = hasattr(os, "listxattr") and "system.posix_acl_access" in os.listxattr(folder)
    is_shared = has_list or found.st_gid in has_members - gids
    return bool(found.st_mode & 0o002 or (found.st_mode & 0o020 and is_shared))


if __name__ == "__main__":
    uid, gid, *links = sys.argv[1:]
    links += [each for link in links if os.path.basename(link).startswith("python") for each in libraries(link)]
    for where, what in sorted({pair for link in links for pair in steps(os.path.abspath(link))}):
        is_above = f"{os.getcwd()}/".startswith(f"{what}/")  # of the checkout: the installer refuses those of others
        if not is_above and may_be_turned(where, what, {0, os.getuid(), int(uid)}, {0, int(gid)}):
            print(what)
