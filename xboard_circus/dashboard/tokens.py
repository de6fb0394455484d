"""Keep the two tokens of the page, in a file that only its owner can read."""

import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xboard_circus.errors import XboardError
from xboard_circus.host import writers
from xboard_circus.host.runtime import read_private, write_whole

Role = Literal["admin", "reader"]

FILE = "dashboard.token"
LONGEST = 200
_TEXT = """\
# Tokens of the dashboard. The admin token can stop the backend; the reader token is read-only. Keep the mode 0600.
# Delete this file and restart the dashboard for new ones; everybody is logged out then.
admin = {admin}
reader = {reader}
"""


@dataclass(frozen=True, repr=False)
class Tokens:
    """The tokens of the page, of an administrator and of a reader."""

    admin: str
    reader: str

    def role_of(self, token: str) -> Role | None:
        """Return the role of *token*, in constant time; None for any other text."""
        given = _digest(token[:LONGEST])
        is_admin = hmac.compare_digest(given, _digest(self.admin))
        is_reader = hmac.compare_digest(given, _digest(self.reader))
        return "admin" if is_admin else "reader" if is_reader else None

    def key(self, purpose: str) -> bytes:
        """Return a secret for *purpose* that new tokens make void."""
        return hashlib.sha256(f"{purpose}\n{self.admin}\n{self.reader}".encode()).digest()


def load_or_make(folder: Path) -> Tokens:
    """Return the tokens in *folder*, which the first start makes; XboardError if they cannot be used."""
    path = folder / FILE
    made = Tokens(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    try:
        if os.path.exists(path) and path.stat().st_size == 0:
            path.unlink()  # left by a reset of the host, or a full disk
        if not os.path.exists(path):
            # Linked and not moved: the second of two starts at once gets the tokens of the first.
            with contextlib.suppress(FileExistsError):
                write_whole(path, _TEXT.format(admin=made.admin, reader=made.reader), place=_link)
    except OSError as error:
        raise XboardError(f"{path} cannot be made: {error.strerror}; let the dashboard's user write there") from None
    return load(folder)


def load(folder: Path) -> Tokens:
    """Return the tokens in *folder*; XboardError without any, or if others could have read or written them.

    Root's also where another user may write the folder, and put back a file that was deleted for new tokens.
    """
    path = folder / FILE
    for who, place in writers.besides(path, {0}) if os.geteuid() == 0 else ():
        if who != writers.ANYBODY:  # as in a container, where nobody else is
            raise XboardError(
                f"{who.name} may write {place}, and put back deleted tokens; name another folder for them"
            )
    try:
        text = read_private(path, 4096)
    except FileNotFoundError:
        raise XboardError(f"{path} is missing; the dashboard makes it at its first start") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise XboardError(f"{path} cannot be used: {why}, or delete it and restart the dashboard") from None
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    values = {name.strip(): value.strip() for name, _, value in lines}
    tokens = Tokens(values.get("admin", ""), values.get("reader", ""))
    if min(len(tokens.admin), len(tokens.reader)) < 32 or tokens.admin == tokens.reader:
        what = "has no two different words of 32 characters or more"
        raise XboardError(f"{path} {what}; delete it and restart the dashboard for new ones")
    return tokens


def _link(made: str, path: Path) -> None:
    """Name the file once its text is on the disk; otherwise a reset of the host would leave an empty one."""
    with open(made, "rb") as file:
        os.fsync(file.fileno())
    os.link(made, path)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
