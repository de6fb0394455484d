"""Send deaths, reloads and incidents as spans or log records to a collector of OpenTelemetry (OTLP over HTTP).

The SDK's own batches are not used: an alert waits in the queue of its section, also over a restart, until it is taken.
Nor is its exporter, which reads an answer without end into memory, for as long as that lasts, and follows redirects.
A log record is made of the messages of the protocol, which are stable; those of the SDK are not.
"""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import xboard_circus
from xboard_circus.alerts.extras import installed_by
from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError, Secret
from xboard_circus.alerts.shapes import WebhookRequest
from xboard_circus.alerts.webhook import post
from xboard_circus.core.in_flight import requests_in
from xboard_circus.core.reason import reason_in
from xboard_circus.ledger.record import Record

EVENTS = {"restart": "worker", "end": "worker", "reload_end": "reload"}
"""Events that are spans of their own, by the name of their span; incidents are the alerts themselves."""
LOGS = "/v1/logs"
"""The end of an address to which log records are sent in place of spans."""
ERROR, INFO = (17, "ERROR"), (9, "INFO")
"""Severities of a log record."""
_LASTED = {"worker": "lived", "reload": "took"}
_SHOWN = ("cause", "exit_code", "signal", "slot", "lived", "ready_for", "rss", "wait", "blames", "state", "cut")
_OF_INCIDENT = ("event", "kind", "severity", "watcher", "reason", "count", "seconds", "done", "next", "note")


def message_of(record: Record, host: str) -> Message:
    """Return the message of an event in `EVENTS`."""
    name, data = EVENTS[record.kind], record.data
    lasted = data.get(_LASTED[name])
    shown = {"watcher": record.watcher, "pid": record.pid, "reason": str(record.reason), "by": reason_in(data, "by")}
    shown |= {key: data.get(key) for key in _SHOWN} | {"cause": record.cause}
    if requests := requests_in(data):
        shown["request"] = f"{requests[0].get('method')} {requests[0].get('route')}"
    document: dict[str, Any] = {"id": uuid.uuid4().hex, "span": name, "host": host, "time": record.time}
    document["since"] = record.time - (lasted if isinstance(lasted, (int, float)) else 0.0)
    known = {key: value for key, value in shown.items() if isinstance(value, (str, int, float)) and value != ""}
    failed = record.cause not in (None, "commanded") or data.get("state") == "failed"
    document |= {"attributes": known, "failed": failed}
    return Message(document["id"], f"{name} of {record.watcher}", str(record.reason), document)


def incident_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of an alert in the form of `message_of`."""
    times = {name: datetime.fromisoformat(document[name]).timestamp() for name in ("since", "time")}
    shown = {name: document.get(name) for name in _OF_INCIDENT}
    attributes = {key: value for key, value in shown.items() if isinstance(value, (str, int, float))}
    failed = document.get("event") in ("problem", "reminder")
    return {**document, **times, "span": "incident", "attributes": attributes, "failed": failed}


@dataclass(frozen=True)
class OtlpSink:
    """Send each message as one span, or log record; the headers are those of OTEL_EXPORTER_OTLP_HEADERS."""

    url: Secret
    timeout: float = 10.0
    ca_file: Path | None = None
    takes_events = True

    @property
    def place(self) -> str:
        return f"OTLP, its address from {self.url}"

    def deliver(self, message: Message) -> None:
        """POST the span or log record; it has *timeout* seconds."""
        try:
            from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
            from opentelemetry.util.re import parse_env_headers
        except ImportError:
            raise AlertError(f"OpenTelemetry is not installed: {installed_by('otel')}") from None
        url = self.url.read()
        is_log = url.partition("?")[0].endswith(LOGS)
        signal = "LOGS" if is_log else "TRACES"
        names = (f"OTEL_EXPORTER_OTLP_{signal}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
        given = next(filter(None, map(os.environ.get, names)), "")
        headers = {"content-type": "application/x-protobuf", **parse_env_headers(given, liberal=True)}
        sent = encode_spans([span_of(message.document)])
        body = (log_of(sent, message.text) if is_log else sent).SerializeToString()
        request = WebhookRequest(url, body, headers)
        post(request, "json", secrets=[url, given], timeout=self.timeout, ca_file=self.ca_file, is_proxied=True)


def span_of(document: Mapping[str, Any]) -> Any:
    """Return the span of a document, with the same ids in each try."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import StatusCode

    class Ids(IdGenerator):
        def generate_trace_id(self) -> int:
            return int(document["id"], 16)

        def generate_span_id(self) -> int:
            return int(document["id"][:16], 16)

    facts = document if "span" in document else incident_of(document)
    resource = {"service.name": "xboard-circus", "service.version": xboard_circus.__version__}
    resource["host.name"] = str(facts.get("host"))
    provider = TracerProvider(resource=Resource.create(resource), id_generator=Ids(), shutdown_on_exit=False)
    attributes = {f"xboard.{name}": value for name, value in facts["attributes"].items()}
    since, until = (int(facts[name] * 1e9) for name in ("since", "time"))
    span = provider.get_tracer("xboard_circus").start_span(facts["span"], start_time=since, attributes=attributes)
    span.set_status(StatusCode.ERROR if facts["failed"] else StatusCode.OK)
    span.end(until)
    return span


def log_of(spans: Any, text: str) -> Any:
    """Return the request with a log record in place of the one span in *spans*, with its time, attributes and ids."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    (found,) = spans.resource_spans
    (span,) = found.scope_spans[0].spans
    severity = ERROR if span.status.code == Status.STATUS_CODE_ERROR else INFO
    request, at = ExportLogsServiceRequest(), span.end_time_unix_nano
    log: dict[str, Any] = dict(zip(("severity_number", "severity_text"), severity, strict=True))
    log |= {"time_unix_nano": at, "observed_time_unix_nano": at, "trace_id": span.trace_id, "span_id": span.span_id}
    log["attributes"] = [*span.attributes, {"key": "xboard.span", "value": {"string_value": span.name}}]
    scope = request.resource_logs.add(resource=found.resource).scope_logs.add(scope=found.scope_spans[0].scope)
    scope.log_records.add(body={"string_value": text}, **log)
    return request
