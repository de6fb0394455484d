"""A way to the circusd of another host: ssh forwards a port of ours, and is started again when it ends."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import subprocess
import threading
from collections.abc import Iterator

from xboard_circus.checks.file_rules import split_endpoint
from xboard_circus.errors import XboardError

log = logging.getLogger("uvicorn.error")

AGAIN_AFTER = 2.0
# No question could be answered: nobody sits before this ssh.
_SSH = ["ssh", "-N", "-oBatchMode=yes", "-oExitOnForwardFailure=yes", "-oServerAliveInterval=10"]
_SERVER = re.compile(r"((?:[\w.-]+@)?\w[\w.-]*)(?::(\d{1,5}))?", re.ASCII)


@contextlib.contextmanager
def tunnel(endpoint: str, server: str) -> Iterator[str]:
    """Yield the endpoint at which that of the ssh server ``user@host:port`` is reached while this lasts."""
    address, match = split_endpoint(endpoint), _SERVER.fullmatch(server)
    if address is None or match is None:
        what = f"--ssh {server} --endpoint {endpoint}"
        raise XboardError(f"{what}: write --ssh user@host or user@host:port, and --endpoint tcp://HOST:PORT")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        *_SSH,
        *(["-p", match[2]] if match[2] else []),
        "-L",
        f"127.0.0.1:{port}:{address[0]}:{address[1]}",
        match[1],
    ]
    running = _Running(words)
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        running.end()


class _Running:
    """One ssh after the other."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._run, daemon=True, name="ssh").start()

    def end(self) -> None:
        with self._lock:
            self._ending.set()
            if self._popen is not None:
                self._popen.terminate()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                with self._lock:
                    if self._ending.is_set():
                        return
                    self._popen = subprocess.Popen(self._words, stdin=subprocess.DEVNULL)
                log.warning("ssh ended with %s", self._popen.wait())
            except OSError as error:
                log.error("ssh cannot be started: %s", error)
            self._ending.wait(AGAIN_AFTER)
