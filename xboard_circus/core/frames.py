"""Separate the app's frames in a stack from those of libraries, and fold the latter: one looks for the app's.

No effects: frames are lines as Python's faulthandler and tracebacks write them.
"""

import re
from collections.abc import Sequence

MOST_SHOWN = 20
_FRAME = re.compile(r'\s*File "([^"]+)"')
_THREAD = re.compile(r"(?:Current t|T)hread 0x")
_OF_OTHERS = re.compile(
    r"<|.*[/\\](?:(xboard_circus)[/\\]worker[/\\]|(?:site|dist)-packages[/\\]([\w-]+)|lib(?:64)?[/\\]python3\.\d+[/\\])"
)


def package_of(file: str, app: str = "") -> str:
    """Return of which package a *file* of code is, "python" for Python's own; "" for the app's.

    *app* names the package of an app that is installed among the libraries.

    >>> [package_of(name) for name in ("/srv/app.py", "/v/lib/python3.12/site-packages/anyio/x.py", "<frozen runpy>")]
    ['', 'anyio', 'python']
    """
    if (found := _OF_OTHERS.match(file)) is None:
        return ""
    name = found[1] or found[2] or "python"
    return "" if name == app else name


def is_of_app(line: str) -> bool:
    """Return whether a line is a frame of the app's.

    >>> is_of_app('    File "/srv/app.py", line 7 in f'), is_of_app("Thread 0x1 (most recent call first):")
    (True, False)
    """
    return (found := _FRAME.match(line)) is not None and not package_of(found[1])


def app_first(frames: Sequence[str], app: str = "") -> list[str]:
    """Return the *frames* of one stack, the last call first: those of the app's, then one line for all others.

    >>> other, ours = '  File "/v/site-packages/anyio/x.py", line 1', '  File "/srv/app.py", line 7 in f'
    >>> print(*app_first([other, ours]), sep="\\n")
      File "/srv/app.py", line 7 in f
      ... 1 frame of anyio, the last one File "/v/site-packages/anyio/x.py", line 1
    """
    packages = [package_of(found[1], app) if (found := _FRAME.match(line)) else "" for line in frames]
    own = [line for line, package in zip(frames, packages, strict=True) if not package]
    if not (others := [line for line, package in zip(frames, packages, strict=True) if package]):
        return own[:MOST_SHOWN]
    names = ", ".join(dict.fromkeys(filter(None, packages)))
    many = f"{len(others)} frame{'s' if len(others) > 1 else ''}"
    return [*own[:MOST_SHOWN], f"  ... {many} of {names}, the last one {others[0].strip()}"]


def folded(stacks: Sequence[str]) -> list[str]:
    r"""Return the stacks of all threads, as faulthandler wrote them, folded, threads that run the app's code first.

    >>> ours, other = '  File "/srv/app.py", line 7 in f', '  File "/v/lib/python3.12/site-packages/anyio/x.py", line 1'
    >>> print(*folded(["Fatal Python error", "Thread 0x2:", other, "Current thread 0x1:", other, ours]), sep="\n")
    Fatal Python error
    Current thread 0x1:
      File "/srv/app.py", line 7 in f
      ... 1 frame of anyio, the last one File "/v/lib/python3.12/site-packages/anyio/x.py", line 1
    Thread 0x2:
      ... 1 frame of anyio, the last one File "/v/lib/python3.12/site-packages/anyio/x.py", line 1
    """
    lines = [line for line in stacks if not line.startswith("Extension modules: ")]
    if not (starts := [at for at, line in enumerate(lines) if _THREAD.match(line)]):
        return lines
    threads = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    # Of all that run code of the app's, the one that got the signal first; sorting keeps the order of the rest.
    threads.sort(key=lambda thread: (not any(map(is_of_app, thread)), not thread[0].startswith("Current")))
    return [*lines[: starts[0]], *(line for thread in threads for line in (thread[0], *app_first(thread[1:])))]
