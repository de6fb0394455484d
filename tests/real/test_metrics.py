"""The metrics, scraped by a real Prometheus, and the alert rules that come with it."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from xboard_circus.dashboard.tokens import load

from .free_ports import free_port
from .harness import BUNDLE, Circusd, Watcher, circusd, eventually, kill
from .parts import find, needs
from .visitor import Visitor, page

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
DASHBOARD = DEPLOY.parent / "grafana" / "xboard.json"

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: xboard
    authorization: {{credentials_file: {token}}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Circusd, Visitor]]:
    options = {"health.period": 0.5, "health.live_path": "/live", "restart.cooldown": 600}
    with circusd(tmp_path_factory.mktemp("metrics"), watchers=[Watcher(options=options), page()], plugins=BUNDLE) as c:
        c.wait_ready()
        visitor = Visitor(c.watchers["dashboard"].port)
        eventually(lambda: visitor.get("/healthz").status == 200)
        visitor.log_in(c.folder)
        yield c, visitor


def samples(visitor: Visitor) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(visitor.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_every_figure_of_the_backend_is_there(running: tuple[Circusd, Visitor]) -> None:
    c, visitor = running

    def complete() -> dict[str, Any] | None:
        found = samples(visitor)
        pids = {labels["pid"] for labels, _ in found.get("xboard_worker_cpu_seconds_total", [])}
        latencies = {labels["pid"] for labels, _ in found.get("xboard_worker_probe_duration_seconds", [])}
        wanted = {str(pid) for pid in c.workers()}
        return found if wanted <= pids and wanted <= latencies else None

    found = eventually(complete)
    of_web = {"server": "local", "watcher": "web"}
    assert ({**of_web, "state": "up"}, 2.0) in found["xboard_workers"]
    assert ({**of_web, "verdict": "ok"}, 1.0) in found["xboard_watcher_verdict"]
    assert ({**of_web, "verdict": "down"}, 0.0) in found["xboard_watcher_verdict"]
    assert ({**of_web, "state": "bound"}, 1.0) in found["xboard_watcher_port_state"]
    assert ({**of_web, "cause": "crash"}, 0.0) in found["xboard_worker_restarts_total"]
    assert (of_web, 0.0) in found["xboard_watcher_cooldown_seconds"]
    assert (of_web, 0.0) in found["xboard_watcher_output_lost_bytes_total"]
    assert ({"server": "local"}, 1.0) in found["xboard_circusd_up"]
    assert ({"server": "local"}, 0.0) in found["xboard_circusd_follows_loss"]
    assert ({**of_web, "state": "waiting"}, 0.0) in found["xboard_watcher_port_state"]
    for name in (
        "xboard_worker_loop_lag_seconds",
        "xboard_worker_requests_total",
        "xboard_worker_resident_memory_bytes",
        "xboard_worker_requests_in_progress",
        "xboard_prober_round_age_seconds",
        "xboard_circusd_state_age_seconds",
        "xboard_circusd_uptime_seconds",
        "xboard_watcher_budget_used",
        "xboard_http_in_flight",
        "xboard_circusd_cpu_seconds_total",
        "xboard_circusd_resident_memory_bytes",
        "xboard_plugin_cpu_seconds_total",
        "xboard_plugin_resident_memory_bytes",
    ):
        assert found[name], name


def test_promtool_finds_nothing_to_say(running: tuple[Circusd, Visitor]) -> None:
    needs("promtool")
    text = running[1].get("/metrics").text

    checked = promtool("check", "metrics", given=text)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_rules_hold_what_they_promise(tmp_path: Path) -> None:
    needs("promtool")
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY, folder)
    (folder / "xboard.token").touch()

    for arguments in (
        ("check", "rules", "--lint=all", "--lint-fatal", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ):
        checked = promtool(*arguments, folder=folder)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    for name in ("prometheus.yml", "prometheus-compose.yml", "prometheus-kubernetes.yml"):
        assert promtool("check", "config", name, folder=folder).returncode == 0


def test_every_metric_of_the_rules_exists(running: tuple[Circusd, Visitor]) -> None:
    named = set(re.findall(r"\bxboard_\w+", (DEPLOY / "rules.yml").read_text()))

    eventually(lambda: named <= set(samples(running[1])), every=0.5, what="each of them is there")


# The dashboard for Grafana


def queries() -> list[str]:
    """Every query of the dashboard, with what Grafana puts in the place of its variables."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [each["expr"] for each in dashboard["annotations"]["list"]]
    return [
        re.sub(r"\$__rate_interval", "1m", each).replace("$server", ".*").replace("$watcher", ".*") for each in found
    ]


def test_every_metric_of_the_dashboard_exists(running: tuple[Circusd, Visitor]) -> None:
    c, visitor = running
    c.get("/")
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    texts = [*queries(), *(str(each["query"]) for each in variables)]
    named = {name for text in texts for name in re.findall(r"\bxboard_\w+", text)}
    assert len(named) > 10

    eventually(lambda: named <= set(samples(visitor)), every=0.5, what="each of them is there")


def test_prometheus_takes_every_query_of_the_dashboard(running: tuple[Circusd, Visitor], tmp_path: Path) -> None:
    needs("prometheus")
    with prometheus(tmp_path, "global: {}") as address:
        eventually(lambda: asked(address, "vector(1)"), every=0.2)

        assert [asked(address, query) for query in queries()] == [[]] * len(queries())


def test_the_dashboard_has_what_grafana_needs() -> None:
    """Given no Grafana here, then it has what an import reads: panels side by side, each query with its source."""
    dashboard = json.loads(DASHBOARD.read_text())
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    cells: set[tuple[int, int]] = set()

    assert (dashboard["schemaVersion"] >= 36, dashboard["uid"], dashboard["title"]) == (True, *["xboard-circus"] * 2)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        taken = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, f"{panel['title']} lies on another"
        cells |= taken
        assert panel["type"] in ("timeseries", "stat")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in (panel, *panel["targets"]):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert {*re.findall(r"\$(\w+)", target["expr"])} <= variables | {"__rate_interval"}


def promtool(*arguments: str, folder: Path | None = None, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [find("promtool") or "promtool", *arguments]
    return subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=60)


@contextlib.contextmanager
def prometheus(folder: Path, config: str) -> Iterator[str]:
    """A Prometheus of the test's own; yields its address."""
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    command = [
        find("prometheus") or "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        popen = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        popen.terminate()
        try:
            popen.wait(90)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def asked(address: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers to a query; OSError while it starts."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def test_a_real_prometheus_scrapes_them_with_the_reader_s_token(
    running: tuple[Circusd, Visitor], tmp_path: Path
) -> None:
    """Given Prometheus with the reader's token and our rules, then it has the figures, and sees a killed worker."""
    needs("prometheus")
    c, visitor = running
    token = tmp_path / "xboard.token"
    token.touch(0o600)
    token.write_text(load(c.folder).reader)
    config = CONFIG.format(rules=DEPLOY / "rules.yml", token=token, port=visitor.port)

    with prometheus(tmp_path, config) as address:
        ready = 'xboard_workers{watcher="web",state="up"}'
        eventually(lambda: asked(address, 'up{job="xboard"}')[0]["value"][1] == "1", every=0.2)
        eventually(lambda: asked(address, ready)[0]["value"][1] == "2", every=0.2)
        kill(c.workers()[0])
        killed = 'sum(xboard_worker_restarts_total{watcher="web",cause="killed from outside"})'
        eventually(lambda: asked(address, killed)[0]["value"][1] == "1", every=0.2)
        rate = 'rate(xboard_worker_cpu_seconds_total{watcher="web"}[30s])'
        eventually(lambda: asked(address, rate), every=0.2, what="there are two samples of one worker")

        def percentile() -> float:
            c.get("/")  # a rate takes a growth that Prometheus sees
            buckets = 'rate(xboard_http_request_duration_seconds_bucket{watcher="web"}[30s])'
            slow = f"histogram_quantile(0.95, sum by (le) ({buckets}))"
            return float(asked(address, slow)[0]["value"][1])

        eventually(lambda: 0 < percentile() < 30, every=0.5, what="a percentile of the latencies")
        counted = 'sum(xboard_http_requests_total{watcher="web",method="GET",status="2xx"})'
        assert float(asked(address, counted)[0]["value"][1]) > 0

    assert load(c.folder).reader not in (tmp_path / "prometheus.log").read_text()


def test_a_wrong_token_scrapes_nothing(running: tuple[Circusd, Visitor]) -> None:
    c, visitor = running
    guest = Visitor(visitor.port)

    assert guest.get("/metrics", Authorization=f"Bearer {'x' * 43}").status == 401
    assert guest.get("/metrics", Authorization="Basic eDp5").status == 401
    # A scraper with an old token must lock nobody out.
    for _ in range(30):
        guest.get("/metrics", Authorization=f"Bearer {'x' * 43}")
    Visitor(visitor.port).log_in(c.folder)
    assert guest.get("/metrics", Authorization=f"Bearer {load(c.folder).reader}").status == 200


LIES = [
    '{"pid": 7, "threads_limit": 1%s, "threads_used": "text", "lag": NaN, "rss": -Infinity}' % ("0" * 400),
    '{"pid": [], "state": {}, "live": {"ok": false, "reason": "\\ud800", "body": "\\ud800"}, "ready": 5}',
    '{"pid": 7, "live": {"ok": false, "say": {"key": "NO_ANSWER_WITHIN", "fields": {"timeout": 1%s}}}}' % ("0" * 400),
    '{"pid": 7, "live": {"ok": false, "say": %s}}' % ('{"fields": ' * 900 + "{}" + "}" * 900),
    "[" * 30_000,
    '{"pid": 7, "live": {"ok": false, "reason": "%s"}}' % ("x" * 60_000),
]


@contextlib.contextmanager
def liar(path: str) -> Iterator[list[str]]:
    """Answer on the private socket at *path* in the place of its worker; yield the lies that were told."""
    Path(path).unlink()
    told: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(4096)
                        lie = LIES[len(told) // 2 % len(LIES)] if len(told) % 2 else LIES[0]  # never sick for long
                        connection.sendall(f"HTTP/1.0 200 OK\r\n\r\n{lie}".encode())
                        told.append(lie)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield told
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(90)


def test_a_worker_that_lies_spoils_nothing_for_the_rest(running: tuple[Circusd, Visitor]) -> None:
    """Given one that answers its probes with nonsense, when its sibling hangs, then that one is replaced as always."""
    c, visitor = running
    lying, sibling = c.wait_ready()
    with liar(c.worker(lying)["socket"]) as told:
        kill(sibling, signal.SIGSTOP)
        eventually(lambda: sibling not in c.workers())
        eventually(lambda: [pid for pid in c.ready() if pid != lying])
        eventually(lambda: len(told) > 2 * len(LIES), what="each lie was told")
        successor = next(pid for pid in c.ready() if pid != lying)

        assert [event.pid for event in c.failures() if event.message["cause"] == "unhealthy"] == [sibling]
        assert c.status_json()["watchers"]
        eventually(
            lambda: (
                str(successor)
                in {labels["pid"] for labels, _ in samples(visitor)["xboard_worker_probe_duration_seconds"]}
            )
        )
        assert "Traceback" not in c.log("circusd") + c.log("dashboard")
