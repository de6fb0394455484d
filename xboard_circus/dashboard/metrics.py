"""The cached states as Prometheus reads them. A scrape asks nobody: it costs circusd nothing, and never waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xboard_circus.core.causes import Cause
from xboard_circus.core.states import PortState
from xboard_circus.core.verdict import Word, word_of, worker_words
from xboard_circus.dashboard.hub import Hub
from xboard_circus.dashboard.poller import Server

CONTENT_TYPE = CONTENT_TYPE_LATEST
_WORKER = ["server", "watcher", "slot", "pid"]

# (name, help, how it is found in what the page is shown of a worker)
_OF_WORKERS: tuple[tuple[str, str, Callable[[Any], float | None]], ...] = (
    ("xboard_worker_resident_memory_bytes", "Resident memory of a worker.", lambda each: each["rss"]),
    ("xboard_worker_age_seconds", "Time since a worker was started.", lambda each: each["age"]),
    ("xboard_worker_probe_duration_seconds", "How long the last probe of a worker took.", lambda each: each["latency"]),
    ("xboard_worker_loop_lag_seconds", "How late a worker's event loop was.", lambda each: each["probe"]["lag"]),
    (
        "xboard_worker_threads_used",
        "Threads of a worker's pool that are at work.",
        lambda each: each["probe"]["threads_used"],
    ),
    (
        "xboard_worker_threads_limit",
        "Threads that a worker's pool may have.",
        lambda each: each["probe"]["threads_limit"],
    ),
    (
        "xboard_worker_requests_in_progress",
        "Requests that a worker is at.",
        lambda each: each["probe"]["requests_active"],
    ),
)


class States(Collector):
    """Yields a family for each figure, of all servers together."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        servers = list(self._hub.servers.values())
        yield from _of_servers(servers)
        watchers = [
            (server.id, watcher) for server in servers if server.told is not None for watcher in server.told["watchers"]
        ]
        yield from _of_watchers(watchers)
        yield from _of_workers(watchers, {server.id: server for server in servers})


def exposition(hub: Hub) -> bytes:
    """Return what `/metrics` answers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(States(hub))
    return generate_latest(registry)


def _of_servers(servers: list[Server]) -> Iterator[Metric]:
    up = GaugeMetricFamily("xboard_circusd_up", "Whether circusd answered the last question.", labels=["server"])
    age = GaugeMetricFamily(
        "xboard_circusd_state_age_seconds",
        "Age of the figures of a circusd, which keep their last value while it does not answer.",
        labels=["server"],
    )
    info = GaugeMetricFamily(
        "xboard_circusd_info", "The circusd that answered last; always 1.", labels=["server", "endpoint", "version"]
    )
    uptime = GaugeMetricFamily("xboard_circusd_uptime_seconds", "How long circusd has run.", labels=["server"])
    lost = GaugeMetricFamily(
        "xboard_circusd_follows_loss",
        "Whether the circusd before this one was killed or crashed.",
        labels=["server"],
    )
    probed = GaugeMetricFamily(
        "xboard_prober_round_age_seconds", "Time since a prober's last round.", labels=["server", "plugin"]
    )
    for server in servers:
        up.add_metric([server.id], float(server.is_reachable))
        if server.told is None:
            continue
        since = server.age() or 0.0
        age.add_metric([server.id], since)
        circusd = server.told["circusd"]
        info.add_metric([server.id, server.endpoint, str(circusd.get("version") or "")], 1)
        if circusd.get("uptime") is not None:
            uptime.add_metric([server.id], circusd["uptime"])
        lost.add_metric([server.id], float(bool(circusd.get("lost"))))
        for prober in server.told["probers"]:
            # It has aged with the answer that told of it.
            probed.add_metric([server.id, prober["plugin"]], prober["round_age"] + since)
    yield from (up, age, info, uptime, lost, probed)


def _of_watchers(watchers: list[tuple[str, Any]]) -> Iterator[Metric]:
    labels = ["server", "watcher"]
    wanted = GaugeMetricFamily("xboard_watcher_processes_wanted", "How many workers there are to be.", labels=labels)
    active = GaugeMetricFamily("xboard_watcher_active", "Whether a watcher is active, not stopped.", labels=labels)
    verdict = GaugeMetricFamily("xboard_watcher_verdict", "1 for the verdict.", labels=[*labels, "verdict"])
    states = GaugeMetricFamily("xboard_workers", "Workers by state.", labels=[*labels, "state"])
    ends = CounterMetricFamily(
        "xboard_worker_restarts",
        "Workers that ended and left their place to another, by cause.",
        labels=[*labels, "cause"],
    )
    restarts = CounterMetricFamily("xboard_worker_failures", "Ends that counted as a failure.", labels=labels)
    cooldown = GaugeMetricFamily(
        "xboard_watcher_cooldown_seconds",
        "Time until a cooling slot is tried again; 0: none cools.",
        labels=labels,
    )
    used = GaugeMetricFamily("xboard_watcher_budget_used", "How much of the restart budget is used.", labels=labels)
    limit = GaugeMetricFamily("xboard_watcher_budget_limit", "How large the restart budget is.", labels=labels)
    port = GaugeMetricFamily("xboard_watcher_port_state", "1 for the state the port is in.", labels=[*labels, "state"])
    for server, each in watchers:
        at = [server, each["name"]]
        wanted.add_metric(at, each["numprocesses"])
        active.add_metric(at, float(each["status"] == "active"))
        for word in Word:
            verdict.add_metric([*at, word.value], float(each["verdict"]["word"] == word.value))
        found = [word_of(worker) for worker in each["workers"]]
        for state in sorted(worker_words()):
            states.add_metric([*at, state], found.count(state))
        if not each["armed"]:
            continue
        for cause in sorted({*(cause.value for cause in Cause), *each["ends"]}):
            ends.add_metric([*at, cause], each["ends"].get(cause, 0))
        restarts.add_metric(at, each["restarts"])
        cooldown.add_metric(at, each["cooldown_until"] or 0.0)
        if each["budget"]:
            used.add_metric(at, each["budget"]["used"])
            limit.add_metric(at, each["budget"]["limit"])
        if each["port"]:
            for state in sorted({*(state.value for state in PortState), each["port"]["state"]}):
                port.add_metric([*at, state], float(state == each["port"]["state"]))
    yield from (wanted, active, verdict, states, ends, restarts, cooldown, used, limit, port)


def _of_workers(watchers: list[tuple[str, Any]], servers: dict[str, Server]) -> Iterator[Metric]:
    families = [GaugeMetricFamily(name, text, labels=_WORKER) for name, text, _ in _OF_WORKERS]
    served = CounterMetricFamily("xboard_worker_requests", "Requests that a worker has answered.", labels=_WORKER)
    cpu = CounterMetricFamily("xboard_worker_cpu_seconds", "Processor time that a worker has used.", labels=_WORKER)
    for server, watcher in watchers:
        used = (servers[server].told or {}).get("cpu_seconds", {})
        for each in watcher["workers"]:
            labels = [server, watcher["name"], str(each["slot"]), str(each["pid"])]
            for family, (_, _, find) in zip(families, _OF_WORKERS, strict=True):
                if (value := find(each)) is not None:
                    family.add_metric(labels, value)
            if each["probe"]["requests_served"] is not None:
                served.add_metric(labels, each["probe"]["requests_served"])
            if each["pid"] in used:
                cpu.add_metric(labels, used[each["pid"]])
    yield from (*families, served, cpu)
