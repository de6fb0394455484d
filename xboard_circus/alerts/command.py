"""Deliver an alert by a command, which reads the document from its stdin."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any, ClassVar

from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError, scrubbed
from xboard_circus.host.procs import without_marks
from xboard_circus.masking import secrets_in

STDERR_BYTES = 4096
REAP_SECONDS = 2.0


@dataclass(frozen=True)
class CommandSink:
    """Pass alerts to a program.

    Attributes:
        folder: Its working directory.
        hidden: Variables with the secrets of the sinks, which are removed from its environment.
    """

    command: tuple[str, ...]
    folder: Path
    timeout: float = 10.0
    hidden: Collection[str] = ()
    most_cuts: ClassVar[int] = 2  # one that restarts circusd ends this plugin, and would be run again by the next one

    @property
    def place(self) -> str:
        return f"command {self.command[0]}"

    def deliver(self, message: Message) -> None:
        """Run the command; it has *timeout* seconds, and exit code 0 means that the alert was delivered."""
        environment = {name: value for name, value in os.environ.items() if name not in self.hidden}
        where: dict[str, Any] = {"cwd": self.folder, "env": environment, "timeout": self.timeout}
        code, complaint = run(self.command, message.document, name=self.command[0], **where)
        if code:
            secrets = [secret for name, value in environment.items() for secret in secrets_in(name, value)]
            last_line = scrubbed(complaint, [*secrets, *(os.environ.get(name, "") for name in self.hidden)])
            raise AlertError(f"{self.command[0]} ended with {code}" + (f": {last_line}" if last_line else ""))


def run(
    argv: Sequence[str], document: Mapping[str, Any], *, name: str, env: Mapping[str, str], timeout: float, **where: Any
) -> tuple[int, str]:
    """Run a program with *document* on its stdin; return its exit code and what it wrote to stderr. *where*: of Popen.

    It has no mark of ours: a daemon that it starts, or another circusd, would be ended as a leftover of the plugin.

    Raises:
        AlertError: It cannot be run, or was not done in time, and was killed with its process group.
    """
    # A file, not a pipe, because a grandchild that keeps a pipe open would be waited for.
    with _file_for_words() as stderr:
        try:
            where |= {"env": without_marks(env), "start_new_session": True}
            process = subprocess.Popen(argv, stdin=PIPE, stdout=DEVNULL, stderr=stderr, **where)
        except OSError as error:
            raise AlertError(f"{name} cannot be run: {error.strerror}") from None
        code = _finished(process, json.dumps(dict(document)).encode(), name, timeout)
        stderr.seek(0)
        return code, stderr.read(STDERR_BYTES).decode(errors="replace")


def _file_for_words() -> IO[bytes]:
    """Return a temporary file; on a full disk one that keeps nothing, because the alert may be about that."""
    with suppress(OSError):
        return tempfile.TemporaryFile()
    return open(os.devnull, "w+b")


def _finished(process: subprocess.Popen[bytes], document: bytes, name: str, timeout: float) -> int:
    try:
        process.communicate(document, timeout=timeout)
    except subprocess.TimeoutExpired:
        # It was not waited for yet, so its pid, and the group of that number, are its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(OSError, subprocess.TimeoutExpired):
            process.communicate(timeout=REAP_SECONDS)
        raise AlertError(f"{name} was killed: not done within {timeout:g} s") from None
    return process.returncode
