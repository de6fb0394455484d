"""Deaths, reloads and incidents as spans and logs of OpenTelemetry, to a receiver of OTLP in this process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .alert_servers import HookServer, hook_server
from .harness import eventually, kill
from .test_alerts import SOON, alerting, plugin_log, secret


def spans(collector: HookServer) -> list[tuple[str, dict[str, Any], float]]:
    """The spans that were taken, in their order: name, attributes, seconds from begin to end."""
    found = []
    for got in collector.taken:
        if got.path != "/v1/traces":
            continue
        request = ExportTraceServiceRequest.FromString(got.body)
        for span in request.resource_spans[0].scope_spans[0].spans:
            values = {each.key: each.value for each in span.attributes}
            told = {key: getattr(value, str(value.WhichOneof("value"))) for key, value in values.items()}
            told["id"] = span.span_id
            found.append((span.name, told, (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9))
    return found


def logs(collector: HookServer) -> list[Any]:
    """The log records that were taken, in their order."""
    bodies = [got.body for got in collector.taken if got.path == "/v1/logs"]
    requests = map(ExportLogsServiceRequest.FromString, bodies)
    return [log for request in requests for log in request.resource_logs[0].scope_logs[0].log_records]


def test_deaths_reloads_and_incidents_are_spans_and_logs(tmp_path: Path) -> None:
    """Given a collector that fails at first, when a worker is killed and the watcher reloaded, then the death is a span
    as long as the worker lived, the reload and the incident are spans, and none is lost or sent twice; to an address of
    logs go records with the same ids."""
    with hook_server("503", "hang", opened=False) as collector:
        url = secret(tmp_path, "collector", f"http://localhost:{collector.port}/v1/traces")
        section = {"type": "otlp", "url_file": url, "timeout": 2, "min_severity": "info"}
        of_logs = {
            **section,
            "url_file": secret(tmp_path, "log-collector", f"http://localhost:{collector.port}/v1/logs"),
        }
        with alerting(tmp_path, {"traces": section, "logs": of_logs}) as c:
            victim = c.workers()[0]
            kill(victim, signal.SIGKILL)
            eventually(lambda: "alert:traces: not delivered" in plugin_log(c), timeout=SOON, what="it was tried")
            collector.open()
            c.wait_ready()
            assert c.run_cli("reload").returncode == 0
            wanted = {"worker", "reload", "incident"}
            eventually(lambda: {name for name, _, _ in spans(collector)} >= wanted, timeout=90, what="all came")
            eventually(lambda: "recovered" in str(spans(collector)), timeout=90, what="the incident is over")
            eventually(lambda: "recovered" in str(logs(collector)), timeout=90, what="it is logged, too")

            def reload_is_logged() -> bool:
                (made,) = (each["id"] for name, each, _ in spans(collector) if name == "reload")
                return made in {each.span_id for each in logs(collector) if each.severity_text == "INFO"}

            eventually(reload_is_logged, timeout=90, what="so is the reload")
            taken, records = spans(collector), logs(collector)

    ((_, death, lived),) = [each for each in taken if each[1].get("xboard.pid") == victim]
    assert (death["xboard.watcher"], death["xboard.cause"]) == ("web", "killed from outside")
    assert death["xboard.signal"] == "SIGKILL"
    assert abs(lived - death["xboard.lived"]) < 0.01
    ((_, reload, took),) = [each for each in taken if each[0] == "reload"]
    assert reload["xboard.state"] == "done"
    assert took > 0
    events = [told["xboard.event"] for name, told, _ in taken if name == "incident"]
    assert (events[0], events[-1]) == ("problem", "recovered")
    assert len({got.body for got in collector.taken}) == len(collector.taken)
    (log,) = [each for each in records if each.span_id == death["id"]]
    assert (log.severity_text, log.body.string_value) == ("ERROR", "killed from outside by SIGKILL")
    assert {"web"} == {each.value.string_value for each in log.attributes if each.key == "xboard.watcher"}
