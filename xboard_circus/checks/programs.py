"""Run a program for what it prints, within a limit, or start one that lives on."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

READS_WITHIN = 5.0


def run_captured(
    command: list[str], *, timeout: float, env: Mapping[str, str], cwd: Path | str | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Run *command* without input and return its output; None where it takes longer than *timeout*.

    It has a session of its own: what a watcher's user wrote could else type into root's terminal, and read from it.
    """
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return None


def start_detached(command: list[str], *, cwd: Path | str, output: IO[bytes], **more: Any) -> subprocess.Popen[bytes]:
    """Start a program without input, in a session that a Ctrl-C here does not reach; all that it writes is *output*."""
    where: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **more}
    return subprocess.Popen(command, cwd=cwd, start_new_session=True, **where)


def output_of(*command: str) -> str | None:
    """Return what a program of the system that only reads prints; None where it is missing, fails or hangs."""
    # Debian keeps some in /usr/sbin, which not every user's PATH has.
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        run = run_captured([program, *command[1:]], timeout=READS_WITHIN, env={**os.environ, "LC_ALL": "C"})
    except OSError:
        return None
    return run.stdout if run is not None and run.returncode == 0 else None
