"""Build the command line of a spawn: the launcher in front of the watcher's command."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import xboard_circus
from xboard_circus.host.request_slots import VARIABLE

# By its path, because circusd runs nothing of it, and its import would cost 80 KiB.
LAUNCHER = Path(xboard_circus.__file__).absolute().with_name("launch.py")


def launch_command(watcher: Any, *, wid: int, token: str, requests: int | None = None) -> str:
    """Return the watcher's command with the launcher in front.

    *requests* is the descriptor of the memory in which it notes its requests. It also enters the directory and
    becomes the user: where Circus itself cannot, it stops the whole watcher.
    """
    words = [sys.executable, "-I", "-S", str(LAUNCHER), "--wid", str(wid), "--worker", token]
    # Circus enters the folder too if it can and we stay its user: a relative one would be looked for inside itself.
    words += ["--chdir", os.path.abspath(watcher.working_dir)]
    for option in ("uid", "gid"):
        if getattr(watcher, option) is not None:
            words += [f"--{option}", str(getattr(watcher, option))]
    for name, value in (watcher.rlimits or {}).items():
        words += ["--rlimit", f"{name}={value}"]
    if requests is not None:
        words += ["--env", f"{VARIABLE}={requests}"]
    return " ".join([*map(shlex.quote, words), "--", watcher.cmd])
