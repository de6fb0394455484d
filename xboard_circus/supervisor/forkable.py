"""Decide whether the workers of a watcher can be forked, by its command and Circus's options."""

import re
from collections.abc import Mapping

from xboard_circus.core.sentences import Say
from xboard_circus.worker import MODULE

USUAL = {
    "shell": False,
    "executable": None,
    "stdin_socket": None,
    "close_child_stdin": True,
    "close_child_stdout": False,
    "close_child_stderr": False,
}
"""Circus's options that a forked worker does not know, with their defaults."""

_FORKABLE = re.compile(rf"(\S*/)?python[\d.]*( -[a-zA-Z]+)* -m {re.escape(MODULE)}(\s|$)")


def command_text(cmd: object, args: object) -> str:
    """Return a watcher's `cmd` and `args` as one text."""
    return " ".join(map(str, [cmd, *(args if isinstance(args, (list, tuple)) else [args or ""])]))


def why_not_forkable(command: str, options: Mapping[str, object]) -> str:
    """Return why workers are started, not forked, whatever `worker.preload` says; "" if they can be forked.

    >>> why_not_forkable("python -m xboard_circus.worker app:app", {"shell": False})
    ''
    >>> str(why_not_forkable("python -m xboard_circus.worker app:app", {"shell": True}))
    'workers are started, not forked: shell is set'
    """
    for option, usual in USUAL.items():
        if options.get(option) not in (usual, None):
            return Say.NO_FORKS_WITH(option=option)
    if "circus.wid" in command.lower():
        return Say.NO_FORKS_WITH(option="$(circus.wid)")  # each worker has a command of its own
    return "" if _FORKABLE.match(command) else Say.NO_FORKS_OF_COMMAND(module=MODULE)
