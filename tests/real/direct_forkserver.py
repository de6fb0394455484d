"""A forkserver without a circusd, for what thousands of its forks leave behind."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.worker.fork_orders import HERE, LEVEL, ORDERS, READY, SPACE

from .processes import Process, process

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 90.0  # seconds: the machine may be busy
ORDER = json.dumps({"env": {}, "folder": "/proc/self/cwd", "is_down": True, "numbers": [1, 2]}).encode()


def fork_and_let_go(orders: socket.socket) -> None:
    """Have a worker forked, and let it end in place of beginning."""
    assert answer_to_an_order(orders) == HERE


def answer_to_an_order(orders: socket.socket) -> bytes:
    """Order a worker; return what is answered, and let a worker end in place of beginning."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull, "wb") as null:
        ours.settimeout(PATIENCE)
        socket.send_fds(orders, [ORDER], [theirs.fileno(), null.fileno(), null.fileno()])
        theirs.close()
        return ours.recv(16)


@contextlib.contextmanager
def direct_forkserver(folder: Path, python: str = sys.executable) -> Iterator[tuple[socket.socket, Process]]:
    """Run a forkserver without a circusd."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), LEVEL: "server", SPACE: "-" * 64}
    env[ORDERS] = str(theirs.fileno())
    command = [python, "-m", "xboard_circus.worker", "backend:app"]
    popen = subprocess.Popen(command, cwd=folder, env=env, pass_fds=(theirs.fileno(),))
    try:
        with ours:
            theirs.close()
            ours.settimeout(PATIENCE)
            assert ours.recv(16) == READY
            yield ours, process(popen.pid)
        assert popen.wait(PATIENCE) == 0, "it ends when nobody can order any more"
    finally:
        popen.kill()
        popen.wait()
