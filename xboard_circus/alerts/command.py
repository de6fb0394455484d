"""Deliver an alert by a command of the user's, which gets the document on its stdin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError, scrubbed

SAID_BYTES = 4096
REAP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CommandSink:
    """A program that takes alerts.

    Attributes:
        folder: Where it runs.
        hidden: Variables that hold the secrets of the sinks: they are none of its business.
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
            try:
                process = subprocess.Popen(
                    self.argv,
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                raise AlertError(f"{self.argv[0]} cannot be run: {error.strerror}") from None
            code = self._finished(process, json.dumps(dict(message.document)).encode())
            said.seek(0)
            complaint = said.read(SAID_BYTES).decode(errors="replace")
        if code:
            secrets = [os.environ[name] for name in self.hidden if os.environ.get(name)]
            told = scrubbed(complaint, secrets)
            raise AlertError(f"{self.argv[0]} ended with {code}" + (f": {told}" if told else ""))

    def _finished(self, process: subprocess.Popen[bytes], document: bytes) -> int:
        try:
            process.communicate(document, timeout=self.timeout)
        except subprocess.TimeoutExpired:
            # It was not waited for yet, so its pid, and the group of that number, are its own.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(REAP_SECONDS)
            raise AlertError(f"{self.argv[0]} was killed: not done within {self.timeout:g} s") from None
        return process.returncode
