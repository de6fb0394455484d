"""Serve the dashboard under Circus's own switch: circusd runs `main` with the arguments for circus-web."""

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from xboard_circus import config
from xboard_circus.checks.authorship import load_own
from xboard_circus.checks.file_rules import split_endpoint
from xboard_circus.dashboard.__main__ import command_line, serve
from xboard_circus.dashboard.settings import HTTPD, LOCAL, Settings, of_config
from xboard_circus.errors import XboardError
from xboard_circus.host import procs

log = logging.getLogger("uvicorn.error")

AGAIN_AFTER, LOOK_EVERY = 2.0, 0.2
# No user is there to answer a question of ssh's.
_SSH = ["ssh", "-N", "-oBatchMode=yes", "-oExitOnForwardFailure=yes", "-oServerAliveInterval=10"]
_SERVER = re.compile(r"((?:[\w.-]+@)?\w[\w.-]*)(?::(\d{1,5}))?", re.ASCII)


def main() -> None:
    """Serve the dashboard of the circusd that started us, or of the one at --endpoint."""
    parser = command_line("circushttpd", "The dashboard of one circusd.")
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5555", help="where circusd answers (%(default)s)")
    parser.add_argument("--ssh", metavar="USER@HOST:PORT", help="ssh server from which the endpoint is reached")
    given, _ = parser.parse_known_args()
    with contextlib.ExitStack() as stack:

        def settings() -> Settings:
            reached = stack.enter_context(_tunnel(given.endpoint, given.ssh)) if given.ssh else given.endpoint
            return _settings(reached)

        sys.exit(serve(given, settings))


def _settings(endpoint: str) -> Settings:
    """Return the settings from the ini file of the circusd above us; without one there is its endpoint."""
    if (file := procs.config_file_of(os.getppid())) is not None:
        return of_config(load_own(file), watcher=HTTPD, endpoint=endpoint)
    return Settings(folder=Path.cwd(), endpoint=config.absolute(endpoint, Path.cwd()), label=LOCAL, watcher=None)


@contextlib.contextmanager
def _tunnel(endpoint: str, server: str) -> Iterator[str]:
    """Yield an endpoint on this host that ssh forwards to the one that *server* reaches, while this lasts."""
    address, match = split_endpoint(endpoint), _SERVER.fullmatch(server)
    if address is None or match is None:
        what = f"--ssh {server} --endpoint {endpoint}"
        raise XboardError(f"{what}: write --ssh user@host or user@host:port, and --endpoint tcp://HOST:PORT")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    forward = f"127.0.0.1:{port}:{address[0]}:{address[1]}"
    words = [*_SSH, *(["-p", match[2]] if match[2] else []), "-L", forward, match[1]]
    ending = threading.Event()
    keeper = threading.Thread(target=_keep_running, args=(words, ending), daemon=True, name="ssh")
    keeper.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        ending.set()
        keeper.join(AGAIN_AFTER)


def _keep_running(words: list[str], ending: threading.Event) -> None:
    """Run a program again and again until *ending* is set."""
    while not ending.is_set():
        try:
            with subprocess.Popen(words, stdin=subprocess.DEVNULL) as running:
                while running.poll() is None and not ending.wait(LOOK_EVERY):
                    pass
                running.terminate()
            log.warning("%s ended with %s", words[0], running.returncode)
        except OSError as error:
            log.error("%s cannot be started: %s", words[0], error)
        ending.wait(AGAIN_AFTER)


if __name__ == "__main__":
    main()
