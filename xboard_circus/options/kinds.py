"""Parse one value of an ini option into a typed value, or say why not.

Every kind knows its range, so that no later code sees a string, a nan or a number that overflows a timer.
"""

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

Value = str | int | float | tuple[str, ...] | None

# Python's own int() and float() also take "1_000", "nan", "inf" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
# Of wrong values; compiled where there is one.
_DURATION = r"(?ai)(\d+(?:\.\d+)?)\s*(ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)"
_SECONDS_IN = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = r"(?ai)(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?"
_BYTES_IN = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MOST_BYTES = 1 << 50
_LONGEST_PATH, _LONGEST_NAME = 2_000, 255  # Linux takes 4,095 with the folder in front of it
_HEADER_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"

YEAR = 365 * 86_400.0


class WrongValueError(ValueError):
    """A value that its kind refuses: *what* is wrong, and as *hint* what to write instead ("" for nothing else)."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what}; {hint}")
        self.what, self.hint = what, hint


class OptionKind(NamedTuple):
    """Kind of an option's value.

    Attributes:
        unit: Unit of a number, or other valid values, for the reference table.
        read: Parses a text into the value; raises WrongValueError for an invalid one.
        takes_lines: The value may continue in indented lines.
    """

    unit: str
    read: Callable[[str], Value]
    takes_lines: bool = False


def matching(unit: str, pattern: str, what: str, hint: str, then: Callable[[str], str] = str) -> OptionKind:
    """Return the kind of a text that matches *pattern*, and is parsed by *then*."""
    return OptionKind(unit, lambda text: then(matched(text, pattern, what, hint)))


def matched(text: str, pattern: str, what: str, hint: str) -> str:
    """Return *text* if it matches *pattern*; otherwise raise WrongValueError. ``{}`` in *what* is the text."""
    if not re.fullmatch(pattern, text, re.ASCII):
        raise WrongValueError(what.format(text), hint)
    return text


def seconds(low: float = 0.05, high: float = YEAR, *, unit: str = "seconds") -> OptionKind:
    """Return the kind of a duration."""

    def read(text: str) -> float:
        if not _NUMBER.fullmatch(text) and (match := re.fullmatch(_DURATION, text)):
            amount, name = match.groups()
            value = float(amount) * _SECONDS_IN["ms" if name.lower() == "ms" else name[0].lower()]
            raise WrongValueError("seconds are written without a unit", f"write {value:g}")
        return in_range(_number(text, what="a number of seconds"), low, high)

    return OptionKind(unit, read)


def count(low: int = 1, high: int = 1_000_000, *, unit: str = "count") -> OptionKind:
    """Return the kind of a whole number."""

    def read(text: str) -> int:
        number = in_range(_number(text, what="a whole number"), low, high)
        if number != int(number):
            raise WrongValueError("not a whole number", f"write {round(number)}")
        return int(number)

    return OptionKind(unit, read)


def choice(*words: str) -> OptionKind:
    """Return the kind of one of a few words."""
    unit = ", ".join(words)

    def read(text: str) -> str:
        for word in words:
            if text.lower() == word.lower():
                return word
        raise WrongValueError("not one of the words that may stand here", f"write one of {unit}")

    return OptionKind(unit, read)


def read_size(text: str) -> int:
    """Parse an amount of memory into bytes.

    >>> read_size("512M") == 512 * 1024 * 1024
    True
    """
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise WrongValueError("not an amount of memory", "write bytes, or a number with K, M or G, such as 512M")
    amount, letter, _ = match.groups()
    return int(in_range(float(amount) * _BYTES_IN[letter.upper()], 0, _MOST_BYTES))


def read_path(text: str) -> str:
    """Return the path of a file or folder that the file system can take, also below another folder."""
    if "\n" in text:
        raise WrongValueError("a path has no line break", "begin the line below in the first column")
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in encoded.split(b"/")):
        what = f"a path has {_LONGEST_PATH} letters at most, and each name in it {_LONGEST_NAME}"
        raise WrongValueError(what, "use a shorter one")
    return text


def read_url_path(text: str) -> str:
    """Parse the path of a request, such as ``/health/live``."""
    if text.startswith(("http://", "https://")):
        raise WrongValueError("a path is wanted, not a whole URL", f"write {urlsplit(text).path or '/'}")
    if not text.startswith("/"):
        raise WrongValueError("a path begins with a slash", f"write /{text}" if _plain(text) else "write /health/live")
    if not _plain(text) or "#" in text:
        raise WrongValueError("a path has no blanks, # or letters beyond ASCII", "escape them with %")
    return text


def _yes_no(text: str) -> bool:
    for value, words in ((True, ("true", "yes", "on", "1")), (False, ("false", "no", "off", "0"))):
        if text.lower() in words:
            return value
    raise WrongValueError("neither True nor False", "write True or False")


def _host_names(text: str) -> tuple[str, ...]:
    form, hint = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", "write one such as ops.example.org, without a port"
    return tuple(matched(name, form, "{} is no name of a host", hint) for name in text.lower().split())


def _headers(text: str) -> tuple[str, ...]:
    # A comma may also stand in a value; a separating one is followed by a name.
    headers = re.split(rf"[;,]\s*(?={_HEADER_NAME}\s*:)", text)
    form, hint = rf"{_HEADER_NAME}\s*:[\x20-\x7e]*", "write one such as X-Forwarded-Proto: https"
    return tuple(matched(each.strip(), form, "not a header", hint) for each in headers)


def _endpoints(text: str) -> tuple[str, ...]:
    words = tuple(text.split())
    for wrong in (word for word in words if not is_endpoint(word)):
        raise WrongValueError(f"{wrong} is no endpoint", "write one such as tcp://10.0.0.7:5555 or ipc:///run/c.sock")
    return words


def is_endpoint(text: str) -> bool:
    """Return whether this is an endpoint of circusd: ``tcp://HOST:PORT`` or ``ipc:///PATH``."""
    if re.fullmatch(r"ipc:///[\x21-\x7e]{1,100}", text):
        return True
    match = re.fullmatch(r"tcp://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})", text)
    return match is not None and 0 < int(match[2]) < 65_536


def _files(text: str) -> tuple[str, ...]:
    return tuple(read_path(name) for name in map(str.strip, re.split(r"[,\n]", text)) if name)


def _modules(text: str) -> tuple[str, ...]:
    hint = "write names as in `import`, such as numpy, sqlalchemy.orm"
    names = (name for name in map(str.strip, re.split(r"[,\n]", text)) if name)
    return tuple(matched(name, r"[^\W\d]\w*(\.[^\W\d]\w*)*", "{} is no name of a module", hint) for name in names)


def read_words(text: str) -> tuple[str, ...]:
    """Split a command line as a shell would."""
    try:
        return tuple(shlex.split(text))
    except ValueError:
        raise WrongValueError("a quote is not closed", "close it, or take it out") from None


def _command(text: str) -> str:
    if not read_words(text):
        raise WrongValueError("no command", "write one such as alembic upgrade head")
    return text


def _url(text: str) -> str:
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
        # circusctl, the dashboard and the logs show the option.
        raise WrongValueError("a URL with a user or password in it would be on show everywhere", "leave them out")
    return text


def read_host_name(text: str) -> str:
    """Return the address or name of a host if a resolver can take it: Python raises for an empty or long part."""
    if text and not all(0 < len(part) < 64 for part in text.removesuffix(".").split(".")):
        raise WrongValueError("not an address", "write one such as 127.0.0.1 or localhost")
    return text


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        raise WrongValueError("an address has no brackets here", f"write {text[1:-1]}")
    hint = "write one such as 127.0.0.1, 0.0.0.0, :: or localhost"
    return read_host_name(matched(text, r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?", "not an address", hint))


def _header_name(text: str) -> str | None:
    name = matched(text, _HEADER_NAME, "no name of a header", "write one such as X-Request-ID, or none")
    return None if name.lower() == "none" else name


YES_NO = OptionKind("True or False", _yes_no)
SIZE = OptionKind("bytes, or with K, M, G", read_size)
HOST = OptionKind("address", _host)
HOST_NAMES = OptionKind("names", _host_names)
HEADERS = OptionKind("Name: value", _headers)
HEADER_NAME = OptionKind("name of a header, or none", _header_name)
COMMAND = OptionKind("command", _command)
FILES = OptionKind("paths", _files, takes_lines=True)
MODULES = OptionKind("modules", _modules, takes_lines=True)
ENDPOINTS = OptionKind("tcp:// or ipc:// endpoints", _endpoints)
URL = OptionKind("http or https URL", _url)
URL_PATH = OptionKind("path", read_url_path)
# No blanks, because Circus pastes plugin options into a command line unquoted.
_BROKEN_APART = "Circus breaks such a value apart on the plugin's command line"
_UNQUOTED = r"""((?!:::)[^\s'"\\$`])*"""
FILE_PATH = matching("path", _UNQUOTED, _BROKEN_APART, "use a path of plain letters", then=read_path)


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _number(text: str, *, what: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    first_word, _, rest = text.partition(" ")
    if _NUMBER.fullmatch(first_word) and rest.lstrip()[:1] in ("#", ";"):
        raise WrongValueError("Circus takes a # behind a value for part of it", "put the comment on a line of its own")
    raise WrongValueError(f"not {what}", "")


def in_range(number: float, low: float, high: float) -> float:
    """Return *number* if it is from *low* to *high*; otherwise raise WrongValueError."""
    if number < low:
        raise WrongValueError("too small", f"write {_digits(low)} or more")
    if number > high:
        raise WrongValueError("too large", f"write {_digits(high)} or less")
    return number


def _digits(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
