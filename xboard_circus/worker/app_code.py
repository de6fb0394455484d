"""Note of which code the app was imported, so that circusd sees where the workers of one reload are of two versions."""

import os
import stat
import sys
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from xboard_circus.core.code_versions import CHANGED

LIBRARIES = ("/site-packages/", "/dist-packages/", f"{os.path.dirname(os.__file__)}/")
LARGEST = 1 << 20  # of a larger file, such as a compiled one, its time counts, and not its content
COARSE_CLOCK = 0.01  # seconds by which the time of a change of a file may be late


class AppCode:
    """Which files of *app*, "module:name", this process has imported, each with a checksum of its content.

    A file of a library counts only where the app is in that library.
    """

    def __init__(self, app: str, app_dir: str | None = None) -> None:
        self._module = app.partition(":")[0]
        self._package = self._module.partition(".")[0]
        self._of_app = os.path.join(app_dir or "", self._module)  # each worker may have an --app-dir of its own
        self._app_dir = app_dir or ""
        self._files: dict[str, str] = {}
        self._looked_at = 0
        self.begin()

    def begin(self) -> None:
        """Begin the import of the app; what was looked at before is looked at no more."""
        self._began = time.time() - COARSE_CLOCK  # of all looks: what is imported late has to go with what was before
        self._folders: dict[str, tuple[int, int] | None] = {}
        self._add_folders([self._app_dir, *sys.path])

    def look(self) -> None:
        """Add what was imported since the last look.

        Only that is touched: to look at a thousand modules would write into pages that forked workers share.
        """
        new = list(islice(reversed(sys.modules.items()), max(0, len(sys.modules) - self._looked_at)))
        self._looked_at = len(sys.modules)
        for name, module in new:
            if (file := file_of(module)) and (_package(name) == self._package or not is_library(name, file)):
                with suppress(OSError, ValueError):
                    self._add(file)
        for folder, before in self._folders.items():
            if before and _inode(folder) != before:  # a link that leads to the next release, or a folder in its place
                self._files[f"{CHANGED}{folder}"] = f"{0:08x}"
        if new and (file := file_of(sys.modules.get(self._module))):
            # Its folder counts as well: two releases may differ in what is not imported yet.
            self._files.setdefault(self._of_app, f"{zlib.crc32(os.path.realpath(file).encode(errors='replace')):08x}")
        self._add_folders(sys.path)

    def text(self) -> str:
        """Return each file behind its checksum; see `core.code_versions`."""
        return "\0".join(f"{checksum}{file}" for file, checksum in self._files.items())

    def _add(self, file: str) -> None:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except NotADirectoryError:  # it is in an archive, which Python imports as it is
            self._add(os.path.dirname(file))
            return
        except FileNotFoundError:
            if not os.path.isabs(file):
                return  # no import found it: a module that is made at run time has any name
            folder = os.path.dirname(file)
            while not os.path.exists(folder):
                folder = os.path.dirname(folder)
            self._note_change(file, os.stat(folder).st_ctime)
            return
        with open(descriptor, "rb") as code:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                return
            content = code.read() if facts.st_size <= LARGEST else f"{facts.st_size} {facts.st_mtime_ns}".encode()
        self._files[file] = f"{zlib.crc32(content):08x}"
        self._note_change(file, facts.st_ctime)

    def _note_change(self, file: str, changed_at: float) -> None:
        if self._began < changed_at <= time.time() + COARSE_CLOCK:  # a later one is of another clock
            self._files[f"{CHANGED}{file}"] = f"{0:08x}"

    def _add_folders(self, folders: Iterable[object]) -> None:
        """Note where folders lead that were not there before; Python lets anything be in `sys.path`."""
        for folder in folders:
            if isinstance(folder, str) and folder and folder not in self._folders:
                self._folders[folder] = _inode(folder)


def file_of(module: Any) -> str | None:
    """Return the file of a module; None without one.

    Its own code does not run: a module that is to be imported when it is used would be, and what it raises would end
    the worker.
    """
    with suppress(Exception):
        file = object.__getattribute__(module, "__dict__").get("__file__")
        return file if isinstance(file, str) and "\0" not in file else None
    return None


def is_library(name: str, file: str) -> bool:
    """Return whether a module is installed beside the app, or is ours: a checkout of ours is no part of an app."""
    return _package(name) in ("xboard_circus", "__main__") or any(part in file for part in LIBRARIES)


def _package(name: object) -> str:
    return str(name).partition(".")[0]  # Python lets anything be a key of `sys.modules`


def _inode(folder: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(folder)
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino
