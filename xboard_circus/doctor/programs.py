"""Run a program of the system that only reads, for a few seconds at most."""

from __future__ import annotations

import os
import shutil
import subprocess

WITHIN = 5.0


def output_of(*command: str) -> str | None:
    """Return what *command* prints; None where it is not there, fails, or hangs."""
    # Debian keeps some in /usr/sbin, which not every user's PATH has.
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
