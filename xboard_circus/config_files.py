"""Read the text of an ini file and its included files, line by line, and find what Circus would misread."""

import errno
import fnmatch
import glob
import io
import locale
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from circus.util import replace_gnu_args

from xboard_circus.errors import XboardError
from xboard_circus.host.writers import User, authors, others_of
from xboard_circus.host.written_files import LARGEST, read_whole
from xboard_circus.options.circus import misread
from xboard_circus.options.ini_scan import Entry, Scan, scan
from xboard_circus.options.reading import Problem

MOST_FILES, MOST_NAMES = 1024, 100_000
TOO_MUCH = f"more than {LARGEST >> 10} KiB, or {MOST_FILES} files"
MOST_LINES, MOST_BLANKS, MOST_STEPS = 20_000, 200, 4_000_000
"""Of an ini file: lines, blanks in a row, and options times variables. From each blank on, Python looks for the sign
of an option, and for each option Circus copies all variables: another user's file would hold us up for hours."""
MOST_OF_OURS = 500
"""Of our own variables count no more: a pod has thousands where its namespace has many services."""
BYTE_ORDER_MARK = "\ufeff"  # editors of Windows write it


def read_scans(path: Path, shown: str, *, looks: bool = False) -> list[Scan]:
    """Return the lines of the file and of its included files; raise XboardError if one cannot be read."""
    found = set[int]()
    scans = [scan(path, _text(path, shown, found))]
    files = [file for _, _, each, _ in included(scans[0]) for file in each]
    texts = texts_of(files, shown, found, looks, lambda file, others: _text(file, str(file), found, others))
    scans += map(scan, files, texts)
    sections = Counter(entry.section for each in scans for entry in each.entries)
    sections.update({name: 0 for each in scans for name, _ in each.sections})
    if why := too_much(sections):
        raise XboardError(f"{shown}: {why}")
    return scans


def texts_of(
    files: Sequence[Path], shown: str, found: set[int], looks: bool, read: Callable[[Path, Collection[User]], str]
) -> list[str]:
    """Return the texts of included *files*, each of which all others may *read* who are `authors` of any of them.

    Else one who may write the last could name hosts by what an earlier one has, which only we may read. *read* notes
    the authors in *found*.
    """
    others, texts = None, list[str]()
    while others != (others := others_of(found, looks)):
        texts, left = [], LARGEST
        for file in files:
            texts.append(read(file, others))
            left -= len(texts[-1]) + LARGEST // MOST_FILES
            if left < 0:
                raise XboardError(f"{shown}: it includes too much: {TOO_MUCH}")
    return texts


def too_much(sections: Mapping[str, int]) -> str:
    """Return why Circus would take long for as many options by section; "" where it would not."""
    given = sum(n for name, n in sections.items() if name.partition(":")[0] == "env")
    variables = min(len(os.environ), MOST_OF_OURS) + given
    options = sum(sections.values()) + len(sections) * (1 + sections.get("DEFAULT", 0))
    if options * variables <= MOST_STEPS:
        return ""
    return f"{options} options and {variables} variables are too many for Circus; write fewer of the two"


def unreadable(scans: list[Scan]) -> Iterator[str]:
    """Yield a line for each line that is neither a section nor an option."""
    for each in scans:
        for line, text in each.broken:
            where = f"line {line}" if each is scans[0] else f"{each.file}, line {line}"
            before = "nothing may stand before the first [section]" if not each.sections else "write name = value"
            yield f"{where}: neither a [section] nor an option: {text[:80]}; {before}"


def misreadings(scans: list[Scan]) -> Iterator[tuple[str, Problem]]:
    """Yield (section, problem) for each value of Circus's own options that Circus would misread or fail with."""
    entries = [entry for each in scans for entry in each.entries]
    env = dict(os.environ) | {entry.option: entry.value for entry in entries if entry.section == "env"}
    for entry in entries:
        value = replace_gnu_args(entry.value, env=env)
        # Options in [DEFAULT] go into every section.
        kinds = ("circus", "watcher", "socket", "plugin") if entry.section == "DEFAULT" else (entry.section,)
        if wrong := next(filter(None, (misread(kind, entry.option, value) for kind in kinds)), None):
            yield entry.section, Problem(entry.option, entry.value, wrong.what, wrong.hint)


def text_of(path: Path, found: set[int], others: Collection[User] = ()) -> str:
    """Return the text of a plain file of at most 1 MiB, as `open` decodes it, and note its `authors` in *found*.

    OSError where it has too many lines, or blanks in a row, or one of *others* may not read it.
    """

    def look(descriptor: int) -> None:
        found.update(authors(descriptor))
        for user in (each for each in others if not each.may_read(descriptor, path)):
            raise PermissionError(
                errno.EACCES, f"{user.name}, who may write what includes it, may not; take it out there"
            )

    text = io.TextIOWrapper(io.BytesIO(read_whole(path, look=look))).read()
    if len(text.splitlines()) > MOST_LINES or any(len(run[0]) > MOST_BLANKS for run in re.finditer(r"[^\S\n]+", text)):
        raise OSError(errno.EFBIG, f"it has more than {MOST_LINES} lines, or {MOST_BLANKS} blanks in a row")
    return text


def _text(path: Path, shown: str, found: set[int], others: Collection[User] = ()) -> str:
    try:
        text = text_of(path, found, others)
    except FileNotFoundError:
        hint = "run `xboard-circus init --app module:app` to have one written, or name another with -c FILE"
        raise XboardError(f"{shown}: no such file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        encoding = locale.getpreferredencoding(False)
        wrong = f"it is not text in this system's encoding, {encoding}; save it in that"
        reason = error.strerror if isinstance(error, OSError) else wrong
        raise XboardError(f"{shown}: cannot be read: {reason}") from None
    if text.startswith(BYTE_ORDER_MARK):
        cure = "save it as UTF-8 without one, or `sed -i '1s/^\\xef\\xbb\\xbf//'` it"
        raise XboardError(f"{shown}: line 1: begins with a byte order mark, which Circus cannot read; {cure}")
    before, nul, _ = text.partition("\0")
    if nul:
        line = before.count("\n") + 1
        raise XboardError(f"{shown}: line {line}: a character that is no text (NUL); delete it")
    return text


def patterns(main: Scan) -> Iterator[tuple[Entry, str]]:
    """Yield (entry, pattern) for each word of ``include`` and ``include_dir``, in the order in which Circus goes."""
    for option, rest in (("include", ""), ("include_dir", "/*.ini")):
        for entry in main.entries:
            if (entry.section, entry.option) == ("circus", option):
                yield from ((entry, word + rest) for word in entry.value.split())


def included(main: Scan) -> Iterator[tuple[Entry, str, list[Path], list[Path]]]:
    """Yield (entry, pattern, files, open places) for each of the `patterns`, as `matching` finds."""
    for entry, pattern in patterns(main):
        files, places = matching(os.path.join(main.file.parent, pattern))
        yield entry, pattern, [*map(Path, sorted(files))], [*map(Path, places)]


def matching(pattern: str) -> tuple[list[str], list[str]]:
    """Return what `glob.glob` finds, which Circus asks, and the folders in which it would find what is put there later;
    XboardError if that are too many, or takes too long.

    The owner of an ini that root reads could write ``*/../*/../*/../``, and so on: `glob` would take years.
    """
    found, more, left = [os.sep if os.path.isabs(pattern) else ""], list[str](), MOST_NAMES
    for part in pattern.split(os.sep):
        places, found = found, []
        for place in (each for each in places if os.path.islink(each) or not os.path.isfile(each)):  # not below a file
            step, is_pattern = os.path.join(place, part), glob.has_magic(part)
            if not is_pattern and os.path.lexists(step or os.curdir):
                found.append(step)
                continue
            more.append(place)
            with suppress(OSError), os.scandir(place or os.curdir) as entries:
                for entry in islice(entries, (left + 1) * is_pattern):
                    left -= 1
                    if fnmatch.fnmatchcase(entry.name, part) and (part[0] == "." or entry.name[0] != "."):
                        found.append(os.path.join(place, entry.name))
            if left < 0 or len(found) > MOST_FILES:
                raise XboardError(f"{pattern}: it includes too much: {TOO_MUCH}")
    return found, more
