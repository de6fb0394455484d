"""Ports for the tests, and strangers who sit on them."""

import contextlib
import fcntl
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .processes import Process, process

_given: set[int] = set()
_locks: list[int] = []
LOCKS = Path(tempfile.gettempdir()) / f"xboard-test-ports-{os.getuid()}"


def free_port() -> int:
    """A port that nothing listens on, never given out twice, nor to another process of this user while this one runs.

    From below the range that the kernel takes the ports of outgoing connections from: one from that range may be
    taken by the test's own load client before circusd binds it.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(low - 12_000, low)
        if port not in _given and _is_ours(port) and _is_free(port):
            _given.add(port)
            return port
    raise OSError("no free port found")


def _is_ours(port: int) -> bool:
    """Lock the number for as long as this process lives: a port is bound a second after it was given, and the
    benchmark, or a run of pytest that a test starts, chooses others meanwhile."""
    if not _locks:
        _locks.append(os.open(LOCKS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        fcntl.lockf(_locks[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family) as trial:
                trial.bind((host, port))
        except OSError:
            return False
    return _is_led_here(port)


def _is_led_here(port: int) -> bool:
    """Say whether who connects to *port* comes to its listener: a rule that a container has left leads elsewhere."""
    with socket.socket() as listener, socket.socket() as client:
        # Without a wait for late packets at its end, in which nobody could bind the port.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.settimeout(2)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
            client.connect(("127.0.0.1", port))
        except OSError:
            return False
        return True


def is_refused(port: int) -> bool:
    """Say whether who connects to *port* hears at once that nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return False
    except ConnectionRefusedError:
        return True


STRANGER = """
import socket, sys
host, port, reuse = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if ":" in host:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind((host, port))
listener.listen()
print("listening", flush=True)
sys.stdin.read()  # until its test ends, in whatever way
"""


@contextlib.contextmanager
def stranger(
    port: int, folder: Path, *, host: str = "127.0.0.1", reuse: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A process that listens on *port*, without any mark of ours but those in *env*; *folder* is where it runs."""
    command = [sys.executable, "-I", "-S", "-c", STRANGER, host, str(port), str(reuse)]
    popen = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert popen.stdout is not None
        assert popen.stdout.readline() == "listening\n"
        yield process(popen.pid)
    finally:
        popen.kill()
        popen.wait()
        for pipe in (popen.stdin, popen.stdout):
            if pipe is not None:
                pipe.close()
