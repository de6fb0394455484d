"""Export the cached states to Prometheus. A scrape sends circusd no query, so it never waits."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from xboard_circus.core.causes import Cause
from xboard_circus.core.history import rows_of
from xboard_circus.core.route_counts import BOUNDS, FIRST_BUCKET, MICROSECONDS, STATUSES
from xboard_circus.core.state_names import PortState
from xboard_circus.core.state_schema import TrafficReport
from xboard_circus.core.verdict import Word, word_of, worker_words
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.poller import Server
from xboard_circus.dashboard.settings import LOCAL

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Figures by the values of the family's own labels.
Figures = Mapping[tuple[str, ...], float]


def _by(names: Iterable[str], figure: Callable[[str], float]) -> Figures:
    return {(name,): figure(name) for name in sorted(names)}


def _verdict(watcher: Any) -> Figures:
    return _by((word.value for word in Word), watcher["verdict"]["word"].__eq__)


def _workers(watcher: Any) -> Figures:
    return _by(worker_words(), Counter(map(word_of, watcher["workers"])).__getitem__)


def _ends(watcher: Any) -> Figures:
    ends = watcher["ends"]
    return _by({*(cause.value for cause in Cause), *ends}, lambda cause: ends.get(cause, 0)) if watcher["armed"] else {}


def _port(watcher: Any) -> Figures:
    state = (watcher["port"] or {}).get("state")
    return _by({*(each.value for each in PortState), state}, state.__eq__) if state else {}


def _in_flight(watcher: Any) -> Figures:
    known = [active for each in watcher["workers"] if (active := each["probe"]["requests_active"]) is not None]
    return {(): sum(known)} if known else {}


def _armed(name: str) -> Callable[[Any], Figures]:
    return lambda watcher: {(): watcher[name] or 0.0} if watcher["armed"] else {}


def _in(name: str) -> Callable[[Any], Figures]:
    return lambda server: server[name]


_OUTPUT_LOST, _PLUGIN = "Output of workers that no log could take since circusd started.", ("plugin",)
# name: (help, place or function of the figures, further labels); _total makes a counter
_Families = Mapping[str, tuple[str, str | Callable[[Any], Figures], tuple[str, ...]]]
_SERVER: _Families = {
    "xboard_circusd_up": ("Whether circusd answered the last poll.", "up", ()),
    "xboard_circusd_state_age_seconds": ("Age of the figures, which stay while circusd does not answer.", "age", ()),
    "xboard_circusd_info": ("The circusd that answered last; always 1.", _in("info"), ("endpoint", "version")),
    "xboard_circusd_uptime_seconds": ("How long circusd has run.", "circusd.uptime", ()),
    "xboard_circusd_follows_loss": ("Whether the circusd before this one was killed or crashed.", "lost", ()),
    "xboard_circusd_cpu_seconds_total": ("Processor time that circusd has used.", "circusd.cpu_seconds", ()),
    "xboard_circusd_resident_memory_bytes": ("Resident memory of circusd.", "circusd.rss", ()),
    "xboard_plugin_cpu_seconds_total": ("Processor time that a plugin process has used.", _in("cpu_seconds"), _PLUGIN),
    "xboard_plugin_resident_memory_bytes": ("Resident memory of a plugin process.", _in("rss"), _PLUGIN),
    "xboard_prober_round_age_seconds": ("Time since a prober's last round.", _in("rounds"), _PLUGIN),
}
_WATCHER: _Families = {
    "xboard_watcher_processes_wanted": ("How many workers there are to be.", "numprocesses", ()),
    "xboard_watcher_active": ("Whether a watcher is active, not stopped.", "active", ()),
    "xboard_watcher_verdict": ("1 for the verdict.", _verdict, ("verdict",)),
    "xboard_workers": ("Workers by state.", _workers, ("state",)),
    "xboard_worker_restarts_total": ("Workers that ended and were followed by another, by cause.", _ends, ("cause",)),
    "xboard_worker_failures_total": ("Ends that counted as a failure.", _armed("restarts"), ()),
    "xboard_watcher_cooldown_seconds": ("Time until a cooling slot's next try, or 0.", _armed("cooldown_until"), ()),
    "xboard_watcher_budget_used": ("How much of the restart budget is used.", "budget.used", ()),
    "xboard_watcher_budget_limit": ("How large the restart budget is.", "budget.limit", ()),
    "xboard_watcher_output_lost_bytes_total": (_OUTPUT_LOST, "output.lost", ()),
    "xboard_http_in_flight": ("Requests in flight in all workers of a watcher.", _in_flight, ()),
    "xboard_watcher_port_state": ("1 for the state the port is in.", _port, ("state",)),
}
_WORKER: _Families = {
    "xboard_worker_resident_memory_bytes": ("Resident memory of a worker.", "rss", ()),
    "xboard_worker_age_seconds": ("Time since a worker was started.", "age", ()),
    "xboard_worker_probe_duration_seconds": ("How long the last probe of a worker took.", "latency", ()),
    "xboard_worker_loop_lag_seconds": ("How late a worker's event loop was.", "probe.lag", ()),
    "xboard_worker_threads_used": ("Busy threads of a worker's pool.", "probe.threads_used", ()),
    "xboard_worker_threads_limit": ("Threads that a worker's pool may have.", "probe.threads_limit", ()),
    "xboard_worker_requests_in_progress": ("Requests in flight in a worker.", "probe.requests_active", ()),
    "xboard_worker_requests_total": ("Requests that a worker has answered.", "probe.requests_served", ()),
    "xboard_worker_cpu_seconds_total": ("Processor time that a worker has used.", "cpu_seconds", ()),
}


class States(Collector):
    """Yield a family for each figure, of all servers together."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        servers = [((server.id,), server) for server in list(self._hub.servers.values())]
        states = [(at, each) for at, server in servers for each in (server.state or {}).get("watchers", ())]
        watchers = [((*at, each["name"]), {**each, "active": each["status"] == "active"}) for at, each in states]
        found = [(at, each) for at, watcher in watchers for each in watcher["workers"]]
        workers = [((*at, str(each["slot"]), str(each["pid"])), each) for at, each in found]
        yield from _families(_SERVER, ["server"], [(at, _of_server(server)) for at, server in servers])
        yield from _families(_WATCHER, ["server", "watcher"], watchers)
        yield from _families(_WORKER, ["server", "watcher", "slot", "pid"], workers)
        totals = self._hub.evidence.totals()
        yield from _traffic([(at, totals[at[-1]].traffic) for at, _ in watchers if at[0] == LOCAL and at[-1] in totals])


def exposition(hub: Hub) -> bytes:
    """Return the answer to `/metrics`. It reads from a disk, and formats thousands of lines: to be run in a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(States(hub))
    return generate_latest(registry)


def _of_server(server: Server) -> dict[str, Any]:
    if server.state is None:
        return {"up": server.is_reachable, "info": {}, "rounds": {}, "cpu_seconds": {}, "rss": {}}
    age, circusd = server.age() or 0.0, server.state["circusd"]
    used = [((each["plugin"],), each) for each in server.state["probers"]]
    own = {"up": server.is_reachable, "age": age, "circusd": circusd, "lost": bool(circusd.get("lost"))}
    own["info"] = {(server.endpoint, str(circusd.get("version") or "")): 1}
    own["rounds"] = {key: each["round_age"] + age for key, each in used}  # they have aged with their answer
    for name in ("cpu_seconds", "rss"):
        own[name] = {key: each[name] for key, each in used if each.get(name) is not None}
    return own


def _traffic(watchers: Iterable[tuple[tuple[str, ...], TrafficReport]]) -> Iterator[Metric]:
    """Yield the counts of each watcher's workers by route, also of ended ones: nothing decreases."""
    labels = ["server", "watcher", "method", "route"]
    requests = CounterMetricFamily("xboard_http_requests", "Requests that were answered.", labels=[*labels, "status"])
    durations = HistogramMetricFamily(
        "xboard_http_request_duration_seconds", "Time from a request to the end of its answer.", labels=labels
    )
    bounds = [*map(floatToGoString, BOUNDS), "+Inf"]
    for at, traffic in watchers:
        for name, row in rows_of(traffic).items():
            of_route = [*at, *name.split(" ", 1)]
            for status, count in zip(STATUSES, row, strict=False):
                if count:
                    requests.add_metric([*of_route, status], count)
            buckets = zip(bounds, accumulate(row[FIRST_BUCKET:]), strict=True)
            durations.add_metric(of_route, [*buckets], row[MICROSECONDS] / 1e6)
    yield requests
    yield durations


def _families(table: _Families, labels: list[str], items: Iterable[tuple[tuple[str, ...], Any]]) -> Iterator[Metric]:
    for name, (text, find, further) in table.items():
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(name, text, labels=[*labels, *further])
        for at, item in items:
            for values, figure in (_at(item, find) if isinstance(find, str) else find(item)).items():
                family.add_metric([*at, *values], float(figure))
        yield family


def _at(item: Any, path: str) -> Figures:
    for name in path.split("."):
        item = (item or {}).get(name)
    return {} if item is None else {(): item}
