"""Note of which code the app was imported, so that circusd sees where the workers of one reload are of two versions."""

import os
import stat
import sys
import zlib
from contextlib import suppress

from xboard_circus.core.code_versions import UNSURE

LIBRARIES = ("/site-packages/", "/dist-packages/", f"{os.path.dirname(os.__file__)}/")
LARGEST = 1 << 20  # of a larger file, such as a compiled one, its time counts, and not its content


def code_of(app: str, began: float) -> str:
    """Return the content of each imported file of *app*, "module:name", as a checksum in front of its path.

    A file of a library counts only where the app is in that library. *began* is when the import began, by the clock.
    """
    package = app.partition(":")[0].partition(".")[0]
    found, is_unsure = [], False
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or (name.partition(".")[0] != package and is_library(name, file)):
            continue
        with suppress(OSError, ValueError), open(file, "rb") as code:
            facts = os.fstat(code.fileno())
            if stat.S_ISREG(facts.st_mode):
                content = code.read() if facts.st_size <= LARGEST else f"{facts.st_size} {facts.st_mtime_ns}".encode()
                found.append(f"{zlib.crc32(content):08x}{file}")
                is_unsure = is_unsure or facts.st_ctime > began
    if is_unsure:
        found.append(f"{os.urandom(4).hex()}{UNSURE}")
    return "\0".join(found)


def is_library(name: str, file: str) -> bool:
    """Return whether a module is installed beside the app, or is ours: a checkout of ours is no part of an app."""
    return name.partition(".")[0] == "xboard_circus" or any(part in file for part in LIBRARIES)
