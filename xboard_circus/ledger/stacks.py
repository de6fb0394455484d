"""Fold the stacks that faulthandler wrote: the frames of the app are what one looks for. No effects."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

_THREAD = re.compile(r"(?:Current t|T)hread 0x")
_OF_OTHERS = re.compile(
    r'"<frozen |/lib(?:64)?/python3\.\d+/(?:site-packages/|dist-packages/)?|/(xboard_circus)/worker/'
)
_NAME = re.compile(r"[\w.-]+")


def folded(stack: Sequence[str]) -> list[str]:
    r"""Return the lines of stacks with those of packages in one line each, threads that run the app's code first.

    >>> ours, other = '  File "/srv/app.py", line 7 in f', '  File "/v/lib/python3.12/site-packages/anyio/x.py", line 1'
    >>> print(*folded(["Fatal Python error", "Thread 0x2:", other, "Current thread 0x1:", ours, other]), sep="\n")
    Fatal Python error
    Current thread 0x1:
      File "/srv/app.py", line 7 in f
      (1 of anyio)
    Thread 0x2:
      (1 of anyio)
    """
    stack = [line for line in stack if not line.startswith("Extension modules: ")]
    starts = [at for at, line in enumerate(stack) if _THREAD.match(line)]
    if not starts:
        return list(stack)
    threads = [stack[start:end] for start, end in zip(starts, [*starts[1:], len(stack)], strict=True)]
    # Of all that run code of the app's, the one that got the signal first; sorting keeps the order of the rest.
    threads.sort(key=lambda lines: (all(map(_package, lines[1:])), not lines[0].startswith("Current")))
    return [*stack[: starts[0]], *(line for lines in threads for line in (lines[0], *_frames(lines[1:])))]


def _frames(lines: Sequence[str]) -> Iterator[str]:
    for is_of_others, found in groupby(lines, lambda line: bool(_package(line))):
        frames = list(found)
        if is_of_others:
            names = dict.fromkeys(map(_package, frames))
            yield f"  ({len(frames)} of {', '.join(names)})"
        else:
            yield from frames


def _package(line: str) -> str:
    """Return of which package a frame is, "python" for Python's own; "" for the app's, and for what is no frame."""
    if not line.startswith("  File ") or (found := _OF_OTHERS.search(line)) is None:
        return ""
    if "-packages/" not in found[0]:
        return found[1] or "python"
    name = _NAME.match(line[found.end() :])
    return name[0].removesuffix(".py") if name else "python"
