"""Store the sample backend's uploads: files in one folder, under names that cannot lead out of it."""

import os
import secrets
import stat
import tempfile
import threading
import time
import unicodedata
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from anyio import CancelScope, to_thread
from fastapi import HTTPException

PART_PREFIX = ".part-"
STALE_PART_AGE = 86_400.0
LONGEST_NAME = 255
# Cf: characters that reverse the direction of text (`photo_gpj.exe` that reads as `photo_exe.jpg`), or are invisible.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
UNSAFE = "not hold control, direction or invisible characters, nor line breaks"


class UnsafeName(HTTPException):
    """The name cannot be a file's name here; the message says why."""

    def __init__(self, why: str) -> None:
        super().__init__(400, f"a name must {why}")


class UploadNotFound(HTTPException):
    """There is no file of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(404, f"there is no file {name!r}")


@dataclass(frozen=True)
class Upload:
    """One file. *changed_time* is UTC, ISO 8601."""

    name: str
    size: int
    changed_time: str


def holds_unsafe(name: str) -> bool:
    """Return whether a name reads as another one, or breaks its line."""
    return any(unicodedata.category(each) in _UNSAFE_CATEGORIES for each in name)


def safe_name(name: str) -> str:
    """Return *name* in the one spelling that is stored; raise UnsafeName if it may not be stored.

    Refused rather than repaired, because the client would not find the repaired name again.

    >>> safe_name("Entwurf für Zoë.pdf")
    'Entwurf für Zoë.pdf'
    """
    # Of no more than is too long in any spelling: accents are put in order in a time that grows with its square.
    name = unicodedata.normalize("NFC", name[: 4 * LONGEST_NAME + 1])
    for is_wrong, why in (
        (not name or name != name.strip(), "not be empty, nor begin or end with a blank"),
        (name.startswith("."), "not begin with a dot"),
        ("/" in name or "\\" in name, "not hold a slash or a backslash"),
        ("\N{REPLACEMENT CHARACTER}" in name, "be valid UTF-8"),
        (holds_unsafe(name), UNSAFE),
        (len(name.encode(errors="replace")) > LONGEST_NAME, f"not be longer than {LONGEST_NAME} bytes"),
    ):
        if is_wrong:
            raise UnsafeName(why)
    return name


class UploadFolder:
    """The files in *folder*, none larger than *max_bytes*. What is not async blocks: call it from the thread pool."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self.max_bytes, self._listing = folder, max_bytes, threading.Lock()

    def prepare(self) -> None:
        """Make the folder, and remove parts that the uploads of killed workers have left in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self.folder.glob(f"{PART_PREFIX}*"):
            with suppress(OSError):  # a sibling that starts at the same time may be quicker
                if time.time() - part.stat().st_mtime > STALE_PART_AGE:
                    part.unlink()

    async def save(self, name: str, chunks: AsyncIterable[bytes]) -> Upload:
        """Store *chunks* as *name*; raise HTTPException if it may not be.

        The file appears under its name when it is whole, and never takes the place of another one.
        """
        target = self.folder / safe_name(name)
        if await to_thread.run_sync(os.path.lexists, target):
            raise _taken(target)
        part = self.folder / f"{PART_PREFIX}{secrets.token_hex(8)}"
        try:
            await self._write(part, chunks)
            return await to_thread.run_sync(_publish, part, target)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(lambda: part.unlink(missing_ok=True))

    def page(self, *, limit: int, offset: int) -> tuple[list[Upload], int]:
        """Return at most *limit* files by name, from the *offset*-th on, and the number of all.

        One list is made at a time: in forty threads those of many files would take all memory that a worker may have.
        """
        with self._listing, os.scandir(self.folder) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file(follow_symlinks=False))
        uploads = []
        for name in names[offset : offset + limit]:
            with suppress(UploadNotFound):  # deleted since
                uploads.append(_describe(self.find(name)))
        return uploads, len(names)

    def find(self, name: str) -> Path:
        """Return the path of *name*; raise UnsafeName or UploadNotFound."""
        path = self.folder / safe_name(name)
        try:
            is_plain_file = stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            is_plain_file = False
        if not is_plain_file:
            raise UploadNotFound(path.name)
        return path

    def delete(self, name: str) -> None:
        """Remove *name*; raise UnsafeName or UploadNotFound."""
        path = self.find(name)
        try:
            path.unlink()
        except FileNotFoundError as error:
            raise UploadNotFound(path.name) from error

    def check_writable(self) -> None:
        """Raise OSError if a file cannot be made and written here."""
        with tempfile.TemporaryFile(dir=self.folder, prefix=PART_PREFIX, buffering=0) as file:
            file.write(b"x")

    async def _write(self, part: Path, chunks: AsyncIterable[bytes]) -> None:
        left = self.max_bytes
        file = await to_thread.run_sync(lambda: part.open("xb"))
        try:
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    raise too_large(self.max_bytes)
                await to_thread.run_sync(file.write, chunk)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(file.close)


def _publish(part: Path, target: Path) -> Upload:
    """Give a finished file its name. Unlike a rename, a link fails if the name has been taken meanwhile."""
    try:
        os.link(part, target)
    except FileExistsError as error:
        raise _taken(target) from error
    return _describe(target)


def _describe(path: Path) -> Upload:
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise UploadNotFound(path.name) from error
    changed = datetime.fromtimestamp(facts.st_mtime, timezone.utc)
    return Upload(name=path.name, size=facts.st_size, changed_time=changed.isoformat(timespec="milliseconds"))


def _taken(target: Path) -> HTTPException:
    return HTTPException(409, f"there is a file {target.name!r} already; delete it first or choose another name")


def too_large(most: int) -> HTTPException:
    return HTTPException(413, f"a file must not be larger than {most} bytes")
