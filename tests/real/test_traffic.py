"""The traffic of a real backend: counted by route, through every restart."""

import contextlib
import http.client
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

from xboard_circus.core.history import rows_of
from xboard_circus.core.route_counts import STATUSES
from xboard_circus.ledger.history_store import read_points, read_totals

from .harness import BUNDLE, Circusd, Watcher, circusd, eventually, kill
from .visitor import Visitor, page

OPTIONS = {"health.period": 0.5, "health.live_path": "/v1/health"}


def backend(**changes: Any) -> Watcher:
    return Watcher(app="routed_app:app", options=OPTIONS, **changes)


def request(c: Circusd, path: str, method: str = "GET", *, times: int = 1) -> None:
    for _ in range(times):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", c.watchers["web"].port, timeout=30)) as client:
            client.request(method, path)
            client.getresponse().read()


def counted(folder: Path) -> dict[str, dict[str, int]]:
    """The requests by route and status; only what there was."""
    totals = read_totals(folder / "ledger-history.db").get("web")
    rows = rows_of(totals.traffic) if totals is not None else {}
    named = {route: dict(zip(STATUSES, row, strict=False)) for route, row in rows.items()}
    return {route: {status: n for status, n in each.items() if n} for route, each in named.items()}


def total(folder: Path) -> int:
    return sum(n for each in counted(folder).values() for n in each.values())


def rates(folder: Path, slot: int = 0) -> list[float]:
    points = read_points(folder / "ledger-history.db", "web", slot=slot, step=2, since=0, until=2**32)
    return [sum(rate or 0 for rate in figures[: len(STATUSES)]) for _, figures in points]


def test_requests_are_counted_by_route_method_and_status_and_probes_are_not(tmp_path: Path) -> None:
    """Given requests of some kinds, then each is counted for the template of its route, the probes' for none."""
    with circusd(tmp_path, watchers=[backend()], plugins=BUNDLE) as c:
        c.wait_ready()
        request(c, "/v1/items/5", times=20)
        request(c, "/v1/items/0", times=3)
        request(c, "/v1/items/13?secret=x", times=2)
        request(c, "/v1/items", "POST", times=4)
        request(c, "/v1/nothing/0123456789abcdef", times=5)

        expected = {
            "GET /v1/items/{item_id}": {"2xx": 20, "4xx": 3, "5xx": 2},
            "POST /v1/items": {"2xx": 4},
        }
        eventually(lambda: total(tmp_path) == 34)
        found = counted(tmp_path)
        assert {route: each for route, each in found.items() if "items" in route} == expected
        (rest,) = [each for route, each in found.items() if "items" not in route]
        assert rest == {"4xx": 5}
        assert not [secret for secret in ("secret", "0123456789") if secret in str(found)]

        def is_there_a_rate() -> bool:
            """Request once more: a rate takes two looks of the plugin, which may have had its first after all those."""
            request(c, "/v1/items/5")
            return max(rates(tmp_path)) > 0

        eventually(is_there_a_rate)


def test_totals_never_go_down_and_no_rate_is_below_0_whatever_restarts(tmp_path: Path) -> None:
    """Given workers, the plugin and circusd that are replaced one after the other, then the counters go on."""
    with circusd(tmp_path, watchers=[backend()], plugins=BUNDLE) as c:

        def more(ends: Callable[[], object]) -> None:
            c.wait_ready()
            before = total(tmp_path)
            request(c, "/v1/items/5", times=10)
            eventually(lambda: total(tmp_path) >= before + 10, what="the requests are counted")
            ends()
            assert total(tmp_path) >= before + 10

        def reload_workers() -> None:
            old = c.workers()
            c.do("xboard_reload", name="web")
            eventually(lambda: not {*old} & {*c.workers()})

        def kill_plugin() -> None:
            old = c.plugin("xboard").pid
            kill(old)
            eventually(lambda: c.plugin("xboard").pid != old)
            # What is requested before its first round, of workers that it did not see begin, is not counted.
            eventually(lambda: c.plugin("xboard").pid in [each["pid"] for each in c.state()["probers"]])

        def restart_circusd() -> None:
            c.stop()
            c.start_again()

        for ends in (lambda: kill(c.workers()[0]), reload_workers, kill_plugin, restart_circusd):
            more(ends)
        more(lambda: kill(c.workers()[0], signal.SIGTERM))

        assert total(tmp_path) >= 50
        assert all(rate >= 0 for slot in (0, 1, 2) for rate in rates(tmp_path, slot))


def test_a_full_disk_stops_nothing_and_is_said_once(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    """Given a full disk, when requests come, then workers are probed on, and the history goes on when there is room."""
    disk = small_disk("disk", "1m")
    with circusd(tmp_path, watchers=[backend()], plugins=BUNDLE, start=False) as c:
        c.write_ini(plugin__xboard={"ledger.file": str(disk / "ledger.db")})
        c.start_again()
        c.wait_ready()
        request(c, "/v1/items/5", times=5)
        eventually(lambda: total(disk) >= 5)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

        def refused() -> bool:
            request(c, "/v1/items/5", times=2)
            return "history of traffic" in c.log("plugin-xboard")

        eventually(refused, every=0.5, what="the disk takes nothing more")
        hung = c.workers()[0]
        kill(hung, signal.SIGSTOP)
        eventually(lambda: hung not in c.workers(), what="a hung worker is replaced all the same")
        before = total(disk)
        filler.unlink()
        eventually(lambda: total(disk) > before, timeout=90, what="it is written again")

        assert c.log("plugin-xboard").count("points wait in memory") == 1
        assert "Traceback" not in c.log("plugin-xboard")


def test_metrics_count_on_while_workers_are_replaced_and_name_no_secret(tmp_path: Path) -> None:
    """Given requests before and after a reload and a kill, then `/metrics` has all of them, by route, at every time."""
    with circusd(tmp_path, watchers=[backend(), page()], plugins=BUNDLE) as c:
        c.wait_ready()
        visitor = Visitor(c.watchers["dashboard"].port)
        eventually(lambda: visitor.get("/healthz").status == 200)
        visitor.log_in(tmp_path)
        labels = {"server": "local", "watcher": "web", "method": "GET", "route": "/v1/items/{item_id}"}

        def figure(name: str, **more: str) -> float:
            families = text_string_to_metric_families(visitor.get("/metrics").text)
            samples = [each for family in families for each in family.samples if each.name == name]
            return next((each.value for each in samples if each.labels == {**labels, **more}), 0.0)

        def shows(expected: float, status: str = "2xx") -> bool:
            return figure("xboard_http_requests_total", status=status) == expected

        ends: list[Callable[[], object]] = [
            lambda: c.do("xboard_reload", name="web"),
            lambda: kill(c.workers()[0]),
            lambda: None,
        ]
        for expected, end in zip((10, 20, 30), ends, strict=True):
            request(c, "/v1/items/5?token=hunter2hunter2", times=10)
            eventually(partial(shows, expected))
            end()
            assert shows(expected)
            eventually(lambda: (c.watcher()["reload"] or {}).get("state") != "running" and len(c.ready()) == 2)
        request(c, "/v1/items/13", times=3)

        eventually(lambda: shows(3, "5xx"))
        assert figure("xboard_http_request_duration_seconds_count") == 33
        assert figure("xboard_http_request_duration_seconds_bucket", le="+Inf") == 33
        assert "hunter2" not in visitor.get("/metrics").text


def test_the_page_has_the_history_of_a_slot_across_restarts_of_its_worker_and_of_the_page(tmp_path: Path) -> None:
    """Given requests, a killed worker and a page that is replaced, then the curves go on, with a mark where it died."""
    with circusd(tmp_path, watchers=[backend(), page()], plugins=BUNDLE) as c:
        c.wait_ready()
        visitor = Visitor(c.watchers["dashboard"].port)
        eventually(lambda: visitor.get("/healthz").status == 200)
        visitor.log_in(tmp_path)

        def found(**query: object) -> Any:
            return visitor.get(f"/api/traffic?{urlencode({'watcher': 'web', **query})}").json

        def memory_known() -> int:
            return len([rss for rss in found(slot=1)["series"]["rss"] if rss])

        def sees_requests() -> bool:
            request(c, "/v1/items/5", times=5)
            shown = found()["series"]
            return max((rate or 0) for rate in shown["requests"]) > 0 and max((p or 0) for p in shown["p95"]) > 0

        eventually(sees_requests, every=0.5)
        before = memory_known()
        kill(c.worker(c.by_wid()[1])["pid"])
        old = c.workers("dashboard")
        c.do("xboard_reload", name="dashboard")
        eventually(lambda: not {*old} & {*c.workers("dashboard")}, what="another process serves the page")
        eventually(lambda: memory_known() >= before + 2, what="the curve of the slot goes on")

        deaths = [
            [each["reason"] for each in found(slot=slot)["marks"] if each["mark"] == "crash"] for slot in range(3)
        ]
        assert deaths == [["killed from outside by SIGKILL"], ["killed from outside by SIGKILL"], []]
        assert found(slot=2)["series"]["t"]
        for odd in ({"watcher": "' OR 1"}, {"slot": 10**9}, {"slot": -1}, {"span": -(10**9)}):
            assert found(**odd)["series"]["t"] == [] or "span" in odd
        assert found(span=10**12)["span"] == 7 * 86_400
        assert len(visitor.get("/api/traffic?watcher=web&span=604800").body) < 100_000
