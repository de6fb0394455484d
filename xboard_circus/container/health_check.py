"""Check the health of a container: circusd answers, every watcher serves, and the backend answers on its port.

Docker runs this every ten seconds, and counts a late check as failed. So it imports little: with the modules that read
the ini file it took 12 s at a load average of 40, while the backend answered in one.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zmq

from xboard_circus.host import sockdiag

WITHIN = 3.0
RECORDS = "*/circusd.json"
"""In the runtime folder: circusd's records with its endpoint, see `host.runtime`."""


def look(ini: Path) -> int:
    """Print what is wrong, or that nothing is; return 1 or 0."""
    problems = list(_problems(ini))
    print("; ".join(problems) or "healthy", flush=True)
    return 1 if problems else 0


def circusd_answers(ini: Path) -> bool:
    """Query the circusd of *ini*; return whether it answers within `WITHIN` seconds."""
    endpoint = _endpoint(ini)
    return endpoint is not None and _answer_of_circusd(endpoint) is not None


def _problems(ini: Path) -> Iterator[str]:
    if (endpoint := _endpoint(ini)) is None:
        yield f"circusd of {ini} has not come up"
        return
    if (user := _stranger(endpoint, ini)) is not None:
        yield f"a process of user {user} listens at {endpoint}, and it is not believed to be circusd"
        return
    if (answer := _answer_of_circusd(endpoint)) is None:
        yield f"no answer from circusd at {endpoint} within {WITHIN:g} s"
        return
    if answer.get("status") == "error":
        yield f"circusd at {endpoint}: {answer.get('reason')}"
    yield from (f"{name} does not serve: {reason}" for name, reason in answer.get("outages", ()))
    for name, port, live_path in answer.get("backends", ()):
        path = live_path or "/"
        if port and (problem := _fault_of_backend(port, path, needs_success=bool(live_path))):
            yield f"{name} at port {port}, {path}: {problem}"


def _endpoint(ini: Path) -> str | None:
    """Return the endpoint of the circusd of *ini*, from its record."""
    for file in Path(os.environ.get("XBOARD_RUNTIME_DIR", "/tmp/xboard")).glob(RECORDS):
        record = json.loads(file.read_bytes())
        if os.path.realpath(record["config_file"]) == os.path.realpath(ini):
            return str(record["endpoint"])
    return None


def _stranger(endpoint: str, ini: Path) -> int | None:
    """Return the uid of a listener at a TCP endpoint that is not circusd's user, root or the ini's owner."""
    address = urlsplit(endpoint)
    if address.scheme != "tcp" or sys.platform != "linux":
        return None
    places = (address.hostname, "127.0.0.1", "0.0.0.0", "::")
    users = {each.uid for each in sockdiag.listening(address.port or 0) if str(each.address) in places}
    return min(users - {0, os.geteuid(), ini.stat().st_uid}, default=None)


def _answer_of_circusd(endpoint: str) -> dict[str, Any] | None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as circusd:
        circusd.linger = 0
        circusd.connect(endpoint)
        circusd.send_json({"id": "health", "command": "xboard_health", "properties": {}})
        if not circusd.poll(int(WITHIN * 1000)):
            return None
        answer: Any = circusd.recv_json()
        return answer if isinstance(answer, dict) else {}


def _fault_of_backend(port: int, path: str, *, needs_success: bool) -> str:
    """Send a request as an outside client would; return what is wrong, or "".

    A redirect or a refusal is an answer, too: the app may want another host name, https or a login.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), WITHIN) as backend:
            backend.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
            status = backend.makefile("rb").readline(100).split()[1:2]
    except OSError as error:
        return str(error) or type(error).__name__
    if not status:
        return "no answer"
    return f"answered {status[0].decode()}" if needs_success and status[0] >= b"500" else ""
