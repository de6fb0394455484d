"""Deliver an alert by a command, which reads the document from its stdin."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError, scrubbed
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

    argv: tuple[str, ...]
    folder: Path
    timeout: float = 10.0
    hidden: Collection[str] = ()

    @property
    def place(self) -> str:
        return f"command {self.argv[0]}"

    def deliver(self, message: Message) -> None:
        """Run the command; it has *timeout* seconds, and exit code 0 means that the alert was delivered."""
        environment = {name: value for name, value in os.environ.items() if name not in self.hidden}
        # A file, not a pipe, because a grandchild that keeps a pipe open would be waited for.
        with tempfile.TemporaryFile() as stderr:
            where: dict[str, Any] = {"cwd": self.folder, "env": environment, "start_new_session": True}
            try:
                process = subprocess.Popen(self.argv, stdin=PIPE, stdout=DEVNULL, stderr=stderr, **where)
            except OSError as error:
                raise AlertError(f"{self.argv[0]} cannot be run: {error.strerror}") from None
            code = self._finished(process, json.dumps(dict(message.document)).encode())
            stderr.seek(0)
            complaint = stderr.read(STDERR_BYTES).decode(errors="replace")
        if code:
            secrets = [secret for name, value in environment.items() for secret in secrets_in(name, value)]
            last_line = scrubbed(complaint, [*secrets, *(os.environ.get(name, "") for name in self.hidden)])
            raise AlertError(f"{self.argv[0]} ended with {code}" + (f": {last_line}" if last_line else ""))

    def _finished(self, process: subprocess.Popen[bytes], document: bytes) -> int:
        try:
            process.communicate(document, timeout=self.timeout)
        except subprocess.TimeoutExpired:
            # It was not waited for yet, so its pid, and the group of that number, are its own.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(timeout=REAP_SECONDS)
            raise AlertError(f"{self.argv[0]} was killed: not done within {self.timeout:g} s") from None
        return process.returncode
