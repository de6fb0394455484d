"""Deliver an alert by a command, which gets the document on its stdin."""

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

SAID_BYTES = 4096
REAP_SECONDS = 2.0


@dataclass(frozen=True)
class CommandSink:
    """Give alerts to a program.

    Attributes:
        folder: Where it runs.
        hidden: Variables with the secrets of the sinks, which it does not get.
    """

    argv: tuple[str, ...]
    folder: Path
    timeout: float = 10.0
    hidden: Collection[str] = ()

    @property
    def place(self) -> str:
        return f"command {self.argv[0]}"

    def deliver(self, message: Message) -> None:
        """Run it; it has *timeout* seconds, and exit code 0 means that the alert was delivered."""
        environment = {name: value for name, value in os.environ.items() if name not in self.hidden}
        # A file, not a pipe: a grandchild that keeps a pipe open would be waited for.
        with tempfile.TemporaryFile() as said:
            where: dict[str, Any] = {"cwd": self.folder, "env": environment, "start_new_session": True}
            try:
                process = subprocess.Popen(self.argv, stdin=PIPE, stdout=DEVNULL, stderr=said, **where)
            except OSError as error:
                raise AlertError(f"{self.argv[0]} cannot be run: {error.strerror}") from None
            code = self._finished(process, json.dumps(dict(message.document)).encode())
            said.seek(0)
            complaint = said.read(SAID_BYTES).decode(errors="replace")
        if code:
            secrets = [secret for name, value in environment.items() for secret in secrets_in(name, value)]
            said_last = scrubbed(complaint, [*secrets, *(os.environ.get(name, "") for name in self.hidden)])
            raise AlertError(f"{self.argv[0]} ended with {code}" + (f": {said_last}" if said_last else ""))

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
