"""Kinds of the options of an alert; circusd, which reads no alert, is spared what these import."""

import re
import shlex
from collections.abc import Callable
from email.utils import parseaddr

from xboard_circus.options.kinds import OptionKind, WrongValueError, matching
from xboard_circus.options.reading import suggestion


def word_list(*words: str) -> OptionKind:
    """Return the kind of some of a few words, with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(_parts(text.lower())))
        wrong = next((word for word in found if word not in words), None if found else "nothing")
        if wrong:
            hint = suggestion(wrong, words, alike=0.6, otherwise=f"write some of {', '.join(words)}")
            raise WrongValueError(f"{wrong} is none of the words that may stand here", hint)
        return found

    return OptionKind(f"any of {', '.join(words)}", read)


def addresses(most: int = 100) -> OptionKind:
    """Return the kind of one to *most* addresses of e-mail, with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(_parts(text))
        for word in found:
            if not re.fullmatch(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+", parseaddr(word)[1]) or not word.isprintable():
                raise WrongValueError(f"{word[:60]} is no address", "write one such as ops@example.org")
        if not 1 <= len(found) <= most:
            raise WrongValueError(f"{len(found)} addresses", f"write from 1 to {most}")
        return found

    return OptionKind("addresses", read)


def _parts(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _command_line(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        raise WrongValueError("a quote is not closed", "close it, or take it out") from None


def _printable(unit: str, is_allowed: Callable[[str], bool], what: str, hint: str) -> OptionKind:
    def read(text: str) -> str:
        if not text.isprintable() or not is_allowed(text):
            raise WrongValueError(what, hint)
        return text

    return OptionKind(unit, read)


# A file whose name never stands on a command line.
ANY_PATH = _printable(
    "path", lambda text: "://" not in text, "not the name of a file", "write the path of a file that holds it"
)
TEXT = _printable("text", lambda _: True, "there are letters in it that cannot be printed", "leave them out")
# Never the value of a variable. Whoever wrote the secret itself here must not read it again in every message.
VARIABLE_NAME = matching(
    "name of a variable",
    "[A-Za-z_][A-Za-z0-9_]*",
    "not the name of a variable",
    "write one such as XBOARD_WEBHOOK, without a $",
)
# Split as a shell would, and run without one.
COMMAND_LINE = OptionKind("command", _command_line)
