"""Read the secrets of the sinks, from the environment or from a file of mode 0600; mask them in every message."""

import base64
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from xboard_circus.core.reason import one_line
from xboard_circus.errors import Command, XboardError
from xboard_circus.host.written_files import plain_opener
from xboard_circus.masking import MASK, safe_text

LONGEST = 8192
SHORTEST_MASKED = 4


class AlertError(XboardError):
    """Failure of a sink to deliver; the message gives the reason, without a secret.

    Attributes:
        retry_after: Seconds before the next try, as the receiver demanded.
        refused: The receiver rejected this message, as a filter does; it may accept another one.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, refused: bool = False) -> None:
        super().__init__(message)
        self.retry_after, self.refused = retry_after, refused


class SecretFault(NamedTuple):
    """What is wrong with a secret, and the cure."""

    what: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.cure}" if self.cure else self.what


class Secret(NamedTuple):
    """A reference to a secret, which is read anew for each use, so that a corrected file counts at once."""

    env: str | None = None
    file: Path | None = None

    def __str__(self) -> str:
        return f"variable {self.env}" if self.env else f"file {self.file}"

    def read(self) -> str:
        """Return the secret; raise AlertError with the cure if it cannot be read."""
        if fault := self.fault():
            raise AlertError(str(fault))
        return (os.environ[self.env] if self.env else _content(self._file())).strip()

    def fault(self) -> SecretFault | None:
        """Return what is wrong with it; None for a good one."""
        if self.env:
            is_set = bool(os.environ.get(self.env, "").strip())
            return None if is_set else SecretFault(f"{self.env} is not set in the environment")
        file = self._file()
        try:
            found = file.stat()
            if not stat.S_ISREG(found.st_mode):
                return SecretFault(f"{file} is no plain file")
            if found.st_uid not in (0, os.geteuid()):
                what = f"{file} belongs to another user ({found.st_uid})"
                return SecretFault(what, Command("chown it, or write a file of your own"))
            if found.st_mode & 0o077:
                mode = f"mode {found.st_mode & 0o777:04o}"
                return SecretFault(f"{file} can be read by others ({mode})", Command("chmod 600 {}", file))
            return None if _content(file).strip() else SecretFault(f"{file} is empty")
        except FileNotFoundError:
            return SecretFault(f"{file} is not there", Command("write the secret into it, and chmod 600 {}", file))
        except (OSError, UnicodeDecodeError) as error:
            return SecretFault(f"{file} cannot be read", getattr(error, "strerror", None) or "it is not text")

    def _file(self) -> Path:
        assert self.file is not None, "a secret has a source"
        return self.file


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """Return a server's answer, or a program's last words, as one short line: all secrets masked, also unknown ones.

    >>> scrubbed("no such hook: /T0/B0/s3cr3t", ["https://hooks.example.org/T0/B0/s3cr3t"])
    'no such hook: ***'
    """
    for part in sorted({part for secret in secrets for part in _parts(secret)}, key=len, reverse=True):
        text = text.replace(part, MASK)
    return one_line(safe_text(text), 120)


def os_words(error: BaseException | None, default: str) -> str:
    """Return the text of an error of the system, otherwise *default*: other errors may quote the request."""
    return (isinstance(error, OSError) and error.strerror) or default


def _parts(secret: str) -> Iterable[str]:
    if not secret:
        return
    yield secret
    url = urlsplit(secret)
    if url.scheme in ("http", "https"):
        user, password = unquote(url.username or ""), unquote(url.password or "")
        # A server may quote the header of the request.
        basic = base64.b64encode(f"{user}:{password}".encode("latin-1", errors="replace")).decode()
        values = [value for _, value in parse_qsl(url.query)]
        parts = [f"{url.path}?{url.query}", url.path, url.query, *url.path.split("/"), *values]
        parts += [basic, password, url.password or ""] if password else []
        yield from (part for part in parts if len(part) >= SHORTEST_MASKED)


def _content(file: Path) -> str:
    with open(file, encoding="utf-8", opener=plain_opener) as opened:
        return opened.read(LONGEST)
