"""Check the health of a container: circusd answers, every watcher serves, and the backend answers on its port."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.config import WatcherConfig, is_backend, is_dashboard
from xboard_circus.core.outage_limit import outages_of
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance

CIRCUSD_WITHIN = 3.0
BACKEND_WITHIN = 3.0


def look(ini: Path) -> int:
    """Print what is wrong, or that nothing is; return 1 or 0."""
    try:
        instance = Instance(ini)
        problems = [*_of_circusd(instance), *_of_backend(instance)]
    except XboardError as error:
        problems = [str(error)]
    print("; ".join(problems) or "healthy", flush=True)
    return 1 if problems else 0


def _of_circusd(instance: Instance) -> Iterator[str]:
    try:
        with instance.client() as client:
            state = client.state(deadline=CIRCUSD_WITHIN)
    except (CircusdGone, CommandRefused) as error:
        yield str(error)
        return
    pages = [watcher.name for watcher in instance.config.watchers if is_dashboard(watcher)]
    for outage in outages_of(state["watchers"], pages=pages):
        yield f"{outage.name} does not serve: {outage.reason}"


def _of_backend(instance: Instance) -> Iterator[str]:
    """Ask every backend on its public port, as a client from outside would."""
    for watcher in filter(is_backend, instance.config.watchers):
        for port in _ports(instance, watcher):
            path = watcher.options.health.live_path or "/"
            status = _status(port, path)
            # Without a live path any answer will do: nobody has said where a 2xx is to be had.
            if isinstance(status, str) or (watcher.options.health.live_path and not 200 <= status < 300):
                yield f"{watcher.name} at port {port}, {path}: {status}"


def _ports(instance: Instance, watcher: WatcherConfig) -> list[int]:
    sockets = [instance.config.socket(name) for name in watcher.sockets_used]
    ports = [socket.port for socket in sockets if socket is not None and socket.port]
    return [*ports, watcher.options.port.port] if watcher.options.port.port else ports


def _status(port: int, path: str) -> int | str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BACKEND_WITHIN)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
