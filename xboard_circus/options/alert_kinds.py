"""What only the options of an alert hold; circusd, which reads no alert, is spared what these need."""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass
from email.utils import parseaddr

from xboard_circus.options.kinds import WrongValueError


@dataclass(frozen=True)
class AnyPath:
    """A file whose name never stands on a command line."""

    unit: str = "path"

    def read(self, text: str) -> str:
        if not text.isprintable() or "://" in text:
            raise WrongValueError("not the name of a file", "write the path of a file that holds it")
        return text


@dataclass(frozen=True)
class Text:
    """A few printable letters."""

    unit: str = "text"

    def read(self, text: str) -> str:
        if not text.isprintable():
            raise WrongValueError("there are letters in it that cannot be printed", "leave them out")
        return text


@dataclass(frozen=True)
class WordList:
    """Some of a few words, with commas between them."""

    words: tuple[str, ...]

    @property
    def unit(self) -> str:
        return f"any of {', '.join(self.words)}"

    def read(self, text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
        wrong = [word for word in found if word not in self.words]
        if wrong or not found:
            near = difflib.get_close_matches(wrong[0], self.words, n=1, cutoff=0.6) if wrong else []
            hint = f"did you mean {near[0]}?" if near else f"write some of {', '.join(self.words)}"
            raise WrongValueError(f"{wrong[0] if wrong else 'nothing'} is none of the words that may stand here", hint)
        return found


@dataclass(frozen=True)
class VariableName:
    """The name of an environment variable; never its value."""

    unit: str = "name of a variable"

    def read(self, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text, re.ASCII):
            # Whoever wrote the secret itself here must not read it again in every message.
            raise WrongValueError("not the name of a variable", "write one such as XBOARD_WEBHOOK, without a $")
        return text


@dataclass(frozen=True)
class CommandLine:
    """A command and its arguments; split as a shell would, and run without one."""

    unit: str = "command"

    def read(self, text: str) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(text))
        except ValueError:
            raise WrongValueError("a quote is not closed", "close it, or take it out") from None


@dataclass(frozen=True)
class Addresses:
    """Addresses of e-mail, with commas between them."""

    most: int = 100
    unit: str = "addresses"

    def read(self, text: str) -> tuple[str, ...]:
        found = tuple(word.strip() for word in text.split(",") if word.strip())
        for word in found:
            address = parseaddr(word)[1]
            if not re.fullmatch(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+", address) or not word.isprintable():
                raise WrongValueError(f"{word[:60]} is no address", "write one such as ops@example.org")
        if not 1 <= len(found) <= self.most:
            raise WrongValueError(f"{len(found)} addresses", f"write from 1 to {self.most}")
        return found
