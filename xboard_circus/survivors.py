"""Find on which ports workers still answer though their circusd does not."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from xboard_circus.core.headlines import Answering
from xboard_circus.core.names import is_backend
from xboard_circus.host import procs
from xboard_circus.host.sockets import for_client
from xboard_circus.probe import probe_url

ASKED_WITHIN = 3.0


class Served(NamedTuple):
    """The address of a watcher, and its last known workers."""

    host: str
    port: int
    live_path: str | None
    workers: Collection[procs.Identity]


def served(watchers: Iterable[Mapping[str, Any]]) -> Iterator[Served]:
    """Yield the backends on TCP ports among the *watchers* of circusd's last state."""
    for each in watchers:
        port, live_path = each["port"], each["options"].get("health.live_path")
        if port is not None and is_backend(each):
            known = [(worker["pid"], worker["started"]) for worker in each["workers"]]
            workers = [procs.Identity(pid, started) for pid, started in known if pid and started]
            yield Served(port["host"], port["port"], live_path, workers)


def serving_on(watchers: Iterable[Served]) -> list[Answering]:
    """Return what each port answers, with how many of its workers are alive."""
    found = []
    for each in watchers:
        alive, host = sum(procs.is_running(*worker) for worker in each.workers), for_client(each.host)
        url = f"http://{f'[{host}]' if ':' in host else host}:{each.port}{each.live_path or '/'}"
        status = probe_url(url, timeout=ASKED_WITHIN).status if alive else None
        found.append(Answering(each.port, 0 if status is None else alive, (each.live_path and status) or 200))
    return found
