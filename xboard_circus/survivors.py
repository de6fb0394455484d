"""Find the ports on which workers still answer though their circusd does not."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from xboard_circus.host import procs
from xboard_circus.host.sockets import for_client
from xboard_circus.probe import probe_url

ASKED_WITHIN = 1.0


class Served(NamedTuple):
    """The address of a watcher, and its last known workers."""

    host: str
    port: int
    live_path: str | None
    workers: Collection[procs.Identity]


def serving_on(watchers: Iterable[Served]) -> list[tuple[int, int]]:
    """Return the ports that answer, each with how many of its workers are alive."""
    found = []
    for each in watchers:
        alive, host = sum(procs.is_running(*worker) for worker in each.workers), for_client(each.host)
        url = f"http://{f'[{host}]' if ':' in host else host}:{each.port}{each.live_path or '/'}"
        if alive and probe_url(url, timeout=ASKED_WITHIN).status is not None:
            found.append((each.port, alive))
    return found
