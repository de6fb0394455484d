"""Read one value of an ini option: a text in, a typed value out, or why not.

Every kind knows its range, so that nothing later sees a string, a nan or a number that overflows a timer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

Value = str | int | float | tuple[str, ...] | None

# Python's own int() and float() also take "1_000", "nan", "inf" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)", re.ASCII | re.IGNORECASE
)
_SECONDS_IN = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?", re.ASCII | re.IGNORECASE)
_BYTES_IN = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?", re.ASCII)
_HEADER_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_HEADER = re.compile(rf"{_HEADER_NAME}\s*:[\x20-\x7e]*", re.ASCII)

YEAR = 365 * 86_400.0


class WrongValueError(ValueError):
    """A value that its kind refuses: *what* is wrong, and as *hint* what to write ("": just such a value)."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what}; {hint}")
        self.what = what
        self.hint = hint


class OptionKind(Protocol):
    """What an option holds."""

    @property
    def unit(self) -> str:
        """What a number counts, or what else may be written, for the reference table."""

    def read(self, text: str) -> Value:
        """Return the value that *text* stands for; raise WrongValueError if it stands for none."""


@dataclass(frozen=True)
class Seconds:
    """A length of time."""

    low: float = 0.05
    high: float = YEAR
    unit: str = "seconds"

    def read(self, text: str) -> float:
        if match := _DURATION.fullmatch(text):
            amount, name = match.groups()
            seconds = float(amount) * _SECONDS_IN["ms" if name.lower() == "ms" else name[0].lower()]
            raise WrongValueError("seconds are written without a unit", f"write {seconds:g}")
        return _in_range(_number(text, what="a number of seconds"), self.low, self.high)


@dataclass(frozen=True)
class Count:
    """A whole number."""

    low: int = 1
    high: int = 1_000_000
    unit: str = "count"

    def read(self, text: str) -> int:
        number = _in_range(_number(text, what="a whole number"), self.low, self.high)
        if number != int(number):
            raise WrongValueError("not a whole number", f"write {round(number)}")
        return int(number)


@dataclass(frozen=True)
class Size:
    """An amount of memory; ``512M`` is read as 512 * 1024 * 1024 bytes."""

    low: int = 0
    high: int = 1 << 50
    unit: str = "bytes, or with K, M, G"

    def read(self, text: str) -> int:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise WrongValueError("not an amount of memory", "write bytes, or a number with K, M or G, such as 512M")
        amount, letter, _ = match.groups()
        return int(_in_range(float(amount) * _BYTES_IN[letter.upper()], self.low, self.high))


@dataclass(frozen=True)
class Choice:
    """One word of a few."""

    words: tuple[str, ...]

    @property
    def unit(self) -> str:
        return ", ".join(self.words)

    def read(self, text: str) -> str:
        if text.lower() in self.words:
            return text.lower()
        raise WrongValueError("not one of the words that may stand here", f"write one of {self.unit}")


@dataclass(frozen=True)
class YesNo:
    """A switch, written as Circus writes its own."""

    unit: str = "True or False"

    def read(self, text: str) -> bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise WrongValueError("neither True nor False", "write True or False")


@dataclass(frozen=True)
class HostNames:
    """Names of a host, with blanks between them."""

    unit: str = "names"

    def read(self, text: str) -> tuple[str, ...]:
        names = tuple(text.lower().split())
        wrong = next((name for name in names if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name)), None)
        if wrong is not None:
            raise WrongValueError(f"{wrong} is no name of a host", "write one such as ops.example.org, without a port")
        return names


@dataclass(frozen=True)
class Headers:
    """Headers of a request: ``Name: value``, several with a comma or semicolon between them."""

    unit: str = "Name: value"

    def read(self, text: str) -> tuple[str, ...]:
        # A comma may also stand in a value; what follows one that separates begins with a name.
        headers = tuple(each.strip() for each in re.split(rf"[;,]\s*(?={_HEADER_NAME}\s*:)", text))
        wrong = next((each for each in headers if not _HEADER.fullmatch(each)), None)
        if wrong is not None:
            raise WrongValueError("not a header", "write one such as X-Forwarded-Proto: https")
        return headers


@dataclass(frozen=True)
class Endpoints:
    """Endpoints of circusd, with blanks between them."""

    unit: str = "tcp:// or ipc:// endpoints"

    def read(self, text: str) -> tuple[str, ...]:
        words = tuple(text.split())
        wrong = next((word for word in words if not is_endpoint(word)), None)
        if wrong is not None:
            raise WrongValueError(
                f"{wrong} is no endpoint", "write one such as tcp://10.0.0.7:5555 or ipc:///run/c.sock"
            )
        return words


def is_endpoint(text: str) -> bool:
    """True for what a circusd can be asked at: ``tcp://HOST:PORT`` or ``ipc:///PATH``."""
    if re.fullmatch(r"ipc:///[\x21-\x7e]{1,100}", text):
        return True
    match = re.fullmatch(r"tcp://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})", text)
    return match is not None and 0 < int(match[2]) < 65_536


@dataclass(frozen=True)
class UrlPath:
    """The path of a request, such as ``/health/live``."""

    unit: str = "path"

    def read(self, text: str) -> str:
        if text.startswith(("http://", "https://")):
            raise WrongValueError("a path is wanted, not a whole URL", f"write {urlsplit(text).path or '/'}")
        if not text.startswith("/"):
            raise WrongValueError(
                "a path begins with a slash", f"write /{text}" if _plain(text) else "write /health/live"
            )
        if not _plain(text) or "#" in text:
            raise WrongValueError("a path has no blanks, # or letters beyond ASCII", "escape them with %")
        return text


@dataclass(frozen=True)
class Url:
    """An address that is probed with a GET."""

    unit: str = "http or https URL"

    def read(self, text: str) -> str:
        example = "write one such as http://127.0.0.1:8000/health"
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
        except ValueError as error:
            raise WrongValueError(f"not a URL ({error})", example) from None
        if url.scheme not in ("http", "https") or not host or not _plain(text):
            raise WrongValueError("not a http or https URL", example)
        if port == 0:
            raise WrongValueError("port 0 is no port", example)
        if url.username is not None or url.password is not None:
            # The option is on show in circusctl, the dashboard and the logs.
            raise WrongValueError("a URL with a user or password in it would be on show everywhere", "leave them out")
        return text


@dataclass(frozen=True)
class Host:
    """The address that a server binds."""

    unit: str = "address"

    def read(self, text: str) -> str:
        if text.startswith("[") and text.endswith("]"):
            raise WrongValueError("an address has no brackets here", f"write {text[1:-1]}")
        if not _HOST_NAME.fullmatch(text):
            raise WrongValueError("not an address", "write one such as 127.0.0.1, 0.0.0.0, :: or localhost")
        return text


@dataclass(frozen=True)
class FilePath:
    """A file or folder. Circus pastes plugin options into a command line unquoted, hence no blanks."""

    unit: str = "path"

    def read(self, text: str) -> str:
        if re.search(r"""[\s'"\\$`]|:::""", text):
            raise WrongValueError(
                "Circus breaks such a value apart on the plugin's command line", "use a path of plain letters"
            )
        return text


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _number(text: str, *, what: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    first_word, _, rest = text.partition(" ")
    if _NUMBER.fullmatch(first_word) and rest.lstrip()[:1] in ("#", ";"):
        raise WrongValueError("Circus takes a # behind a value for part of it", "put the comment on a line of its own")
    raise WrongValueError(f"not {what}", "")


def _in_range(number: float, low: float, high: float) -> float:
    if number < low:
        raise WrongValueError("too small", f"write {_digits(low)} or more")
    if number > high:
        raise WrongValueError("too large", f"write {_digits(high)} or less")
    return number


def _digits(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
