"""Run a program for its output, within a limit, or start one that lives on."""

import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from xboard_circus.launch import leave_session_keyring

READS_WITHIN = 5.0
KEPT = 1 << 16  # of each stream, because the app of a watcher's user may write without end


def run_captured(
    command: list[str], *, timeout: float, env: Mapping[str, str], cwd: Path | str | None = None, **more: Any
) -> subprocess.CompletedProcess[str] | None:
    """Run *command* without input; return the last `KEPT` bytes of its output, None if it takes over *timeout*.

    It has a session of its own, because a program of a watcher's user could otherwise type into root's terminal, and
    read from it.
    """
    withhold_keys()
    ends_at = time.monotonic() + timeout
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (
        subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **pipes, **more) as process,
        selectors.DefaultSelector() as reading,
    ):
        kept = {pipe.fileno(): b"" for pipe in (process.stdout, process.stderr) if pipe}
        for descriptor in kept:
            reading.register(descriptor, selectors.EVENT_READ)
            os.set_blocking(descriptor, False)  # it may take back its output before it is read
        while reading.get_map() and (left := ends_at - time.monotonic()) > 0:
            for key, _ in reading.select(left):
                with suppress(BlockingIOError):
                    if piece := os.read(key.fd, 1 << 16):
                        kept[key.fd] = (kept[key.fd] + piece)[-KEPT:]
                    else:
                        reading.unregister(key.fd)
        try:
            process.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            return None
    output, errors = (each.decode(errors="replace") for each in kept.values())
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def scratch_file(name: str) -> IO[bytes]:
    """Return a file without a path, in memory where the system has such: a full disk takes no temporary one."""
    return open(os.memfd_create(name), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def withhold_keys() -> None:
    """Leave root's session keyring, because the program may be another user's, or circusd, which starts such ones."""
    if os.geteuid() == 0:
        leave_session_keyring()


def start_detached(command: list[str], *, cwd: Path | str, output: IO[bytes], **more: Any) -> subprocess.Popen[bytes]:
    """Start a program without input, in a session that a Ctrl-C here does not reach; it writes all to *output*."""
    withhold_keys()
    where: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **more}
    return subprocess.Popen(command, cwd=cwd, start_new_session=True, **where)


def output_of(*command: str, within: float = READS_WITHIN) -> str | None:
    """Return the output of a read-only program of the system; None where it is missing, fails or hangs."""
    # Debian keeps some in /usr/sbin, which not every user's PATH has.
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        run = run_captured([program, *command[1:]], timeout=within, env={**os.environ, "LC_ALL": "C"})
    except OSError:
        return None
    return run.stdout if run is not None and run.returncode == 0 else None
