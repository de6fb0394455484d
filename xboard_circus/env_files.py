"""Read the env files of a watcher: `worker.env_file`, and the `--env-file` of a command of ours.

python-dotenv parses them, as it does for uvicorn; a line that it would skip with a warning is refused here, by its
number. No message holds a value. The environment overrides the files, and a later file an earlier one. Variables of
circusd for its workers (`OF_CIRCUSD`) are never taken from a file.
"""

import errno
import io
import shlex
import stat
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xboard_circus.errors import XboardError
from xboard_circus.host.written_files import read_whole
from xboard_circus.options.fields import WatcherOptions
from xboard_circus.worker import OF_CIRCUSD, runs_worker

if TYPE_CHECKING:
    from dotenv.parser import Binding

OPTION = "worker.env_file"
ARGUMENT = "--env-file"
LARGEST = 64 * 1024
"""Bytes of a file, and of all values: the kernel takes at most 128 KiB for one variable."""
MOST_FILES = 50
"""Of a watcher: each is read for each new worker, and by root's `check` of another user's ini."""
MOST_STEPS = 1 << 22
"""Of the look for the end of each ``${`` in a value: 30,000 of them took minutes, in which Python did nothing else."""
NO_SUCH_FILE = frozenset({errno.EINVAL, errno.EFBIG, errno.EISDIR, errno.ENOTDIR})
"""Errors of what is no plain file, or too large for an env file."""


class EnvFileError(XboardError):
    """An env file that cannot be used: *what* is wrong, and as *hint* the cure."""

    def __init__(self, option: str, what: str, hint: str) -> None:
        super().__init__(f"{option}: {what}; {hint}")
        self.option, self.what, self.hint = option, what, hint


class EnvFile(NamedTuple):
    """One env file, and the option of the watcher that names it: `worker.env_file` or `cmd`."""

    option: str
    path: Path

    def read(self) -> "list[Binding]":
        """Return its variables. Raises EnvFileError."""
        from dotenv.parser import parse_stream  # not above: circusd pays its 0.3 MiB only where there is such a file

        bindings = list(parse_stream(io.StringIO(self._text())))
        if wrong := [str(_line(each)) for each in bindings if each.error or _is_odd(each)]:
            where = f"line{'s' * (len(wrong) > 1)} {', '.join(wrong[:5])}"
            what = f"{self.path}, {where}: neither NAME=value nor a comment"
            raise EnvFileError(self.option, what, "write NAME=value, and put quotes around a value with blanks")
        return [each for each in bindings if each.key is not None and each.value is not None]

    def is_open(self) -> bool:
        """Return whether every user of this host may read it."""
        return bool(self.path.stat().st_mode & stat.S_IROTH)

    def _text(self) -> str:
        try:
            return read_whole(self.path, LARGEST).decode("utf-8-sig")
        except FileNotFoundError:
            raise EnvFileError(self.option, f"there is no file {self.path}", "write it, or correct its name") from None
        except OSError as error:
            why, hint = error.strerror, "let the user of circusd read it"
            if error.errno == errno.ELOOP:
                why, hint = "it is a link that leads back to itself", "put a file in its place"
            elif error.errno in NO_SUCH_FILE:
                hint = "name a file of NAME=value lines"
            raise EnvFileError(self.option, f"{self.path} cannot be read: {why}", hint) from None
        except UnicodeDecodeError:
            raise EnvFileError(self.option, f"{self.path} is not UTF-8 text", "save it as UTF-8") from None


def of_watcher(options: WatcherOptions, cmd: object, args: object, *, folder: Path, working_dir: Path) -> list[EnvFile]:
    """Return the env files of a watcher, overriding ones last; *folder* is that of the ini file."""
    named = [EnvFile("cmd", working_dir / name) for name in _in_command(cmd, args)]
    return named + [EnvFile(OPTION, folder / name) for name in options.worker.env_file or ()]


def refuse_many(files: Sequence[EnvFile]) -> None:
    """Raise EnvFileError if *files* are more than a watcher may have."""
    if len(files) > MOST_FILES:
        raise EnvFileError(files[-1].option, f"{len(files)} env files are too many", f"name {MOST_FILES} at most")


def values(files: Sequence[EnvFile], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what *files* add to *environ*, which overrides them. ``${NAME}`` is replaced. Raises EnvFileError."""
    refuse_many(files)
    found: dict[str, str] = {}
    known, size = ChainMap(dict(environ), found), 0
    for file in files:
        from dotenv.variables import parse_variables  # as in `EnvFile.read`

        for binding in file.read():
            name, text = str(binding.key), binding.value or ""
            if text.count("${") * len(text) > MOST_STEPS:
                raise EnvFileError(file.option, f"{file.path}: {name[:80]} has too many ${{", "take some out of it")
            value = "".join(atom.resolve(known) for atom in parse_variables(text))
            size += len(value) - len(found.get(name, ""))
            found[name] = value
            if size > LARGEST:
                raise EnvFileError(file.option, f"the values of {file.path} exceed 64 KiB", "take ${...} out of it")
    return {name: value for name, value in found.items() if name not in environ and name not in OF_CIRCUSD}


def _in_command(cmd: object, args: object) -> Iterator[str]:
    """Yield the file in the command of our worker; uvicorn uses the last."""
    if not runs_worker(cmd, args):
        return
    text = " ".join(map(str, args)) if isinstance(args, (list, tuple)) else str(args or "")
    with suppress(ValueError):
        words = shlex.split(f"{cmd} {text}")
        given = [word.partition("=")[2] for word in words if word.startswith(f"{ARGUMENT}=")]
        given += [name for word, name in pairwise(words) if word == ARGUMENT]
        yield from given[-1:]


def _is_odd(binding: "Binding") -> bool:
    """Return whether no process can have this variable."""
    return "\0" in (binding.value or "") or any(sign in (binding.key or "") for sign in "=\0")


def _line(binding: "Binding") -> int:
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
