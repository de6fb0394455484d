"""Check the mounts of a container before the backend fails on them.

Docker makes an empty folder in place of a mounted file that does not exist yet, a mounted folder keeps its owner of the
host, and with a read-only root only mounts can be written. In the app each shows up as an error of SQLite's that names
none of it.
"""

import os
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from xboard_circus.host.mounts import mount_points

SAMPLE = "xboard_circus.app:app"
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
FILE_NAME = re.compile(r"\.(?:db|sqlite3?|ini|env|json|toml|ya?ml|pem|crt|key|txt|py)$")
SQLITE_HEADER = b"SQLite format 3"


def complaints(
    environment: Mapping[str, str] = os.environ, *, folder: Path | None = None, mounted: Iterable[Path] | None = None
) -> list[str]:
    """Return what is wrong with the folders that must be writable, and the cure, one line each.

    A database or a folder of uploads that is neither mounted nor set is skipped, because an app of the user's own may
    need neither, as the sample app does.
    """
    here, is_sample = folder or Path.cwd(), environment.get("XBOARD_APP") == SAMPLE
    mounts = {*(mount_points() if mounted is None else mounted)}
    database = here / environment.get("XBOARD_DB", "xboard.db")
    uploads = here / environment.get("XBOARD_UPLOADS", "uploads")
    above = _existing(Path(environment.get("XBOARD_RUNTIME_DIR", "/tmp")))
    found = [] if os.access(above, os.W_OK) else [f"{above} cannot be written: run the container with --tmpfs {above}"]
    files = (each for each in sorted(mounts - {database}) if FILE_NAME.search(each.name))
    found += [_no_file(each) for each in files if os.path.isdir(each)]
    if is_sample or os.path.exists(database) or "XBOARD_DB" in environment:
        found += _of_database(database, mounts)
    if is_sample or uploads in mounts or "XBOARD_UPLOADS" in environment:
        above = _existing(uploads)
        found += [] if os.access(above, os.W_OK) else [_not_ours(above)]
    return found


def warnings(environment: Mapping[str, str] = os.environ, *, mounted: Iterable[Path] | None = None) -> list[str]:
    """Return a line for each SQLite database that is mounted as a file, if the app is the user's own.

    `docker kill` and `docker rm` lose what is in the write-ahead log, though the app has reported it stored. The sample
    app uses no such log there.
    """
    if environment.get("XBOARD_APP") == SAMPLE:
        return []
    return [
        f"{file} is mounted as a file: what SQLite writes beside it stays in the container, and is lost with it; mount "
        "its folder, or let the app set `PRAGMA journal_mode = DELETE`"
        for file in sorted(mount_points() if mounted is None else mounted)
        if os.path.isfile(file) and _is_sqlite(file)
    ]


def _is_sqlite(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(SQLITE_HEADER)) == SQLITE_HEADER or file.suffix in SQLITE_SUFFIXES
    except OSError:
        return False


def _no_file(path: Path) -> str:
    make_it = f"`touch {path.name}`" if path.suffix in SQLITE_SUFFIXES else "put the file there"
    what = f"{path} is a folder: there was no file to mount when the container was made"
    return f"{what}; remove the container and the folder, {make_it}, and run it again"


def _of_database(database: Path, mounts: Container[Path]) -> list[str]:
    if os.path.isdir(database):
        return [_no_file(database)]
    if os.path.exists(database) and not os.access(database, os.W_OK):
        return [_not_ours(database)]
    above = _existing(database.parent)
    if not os.access(above, os.W_OK):
        if above in mounts:
            return [_not_ours(above)]
        what = f"SQLite keeps its log beside {database}, and {above} cannot be written"
        return [f"{what}: mount a folder, say /app/data, and set XBOARD_DB={'/app/data/' + database.name}"]
    return []


def _existing(path: Path) -> Path:
    # Not Path's own: it raises if a folder above may not be entered.
    return next(each for each in (path, *path.parents) if os.path.exists(each))


def _not_ours(path: Path) -> str:
    user = os.geteuid()
    return f"{path} cannot be written by user {user}: `chown {user}` it on the host, or run with another --user"
