"""From the answers of probes to what is judged, and from the verdict to what circusd is told. No effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xboard_circus.core.health import Observation, Round, Worker
from xboard_circus.core.sentences import Say
from xboard_circus.core.states import WorkerState
from xboard_circus.probe import Outcome, UrlAnswer, WorkerAnswer

View = Mapping[str, Any]
"""A watcher, or a worker, as `xboard_state` shows it."""

FIRST_CHARS = 200

WHOLE: Worker = (0, 0)
"""The place of a whole watcher in its WatcherHealth, where nobody can tell which of its workers answered."""

# What circusd has told to wait, to drain or to stop answers as it can; probing it would only fight the operator.
_NOT_ASKED = frozenset({WorkerState.WAITING.value, WorkerState.DRAINING.value, WorkerState.STOPPING.value})
_UNJUDGED = frozenset({WorkerState.STARTING.value, WorkerState.DRAINING.value})
# Of a worker's report, for the tables that people look at.
_PASSED_ON = ("uptime", "lag", "threads_used", "threads_limit", "requests_active", "requests_served", "rss", "version")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one probe brought in: what is judged, when it was asked, and what is shown.

    Attributes:
        asked_at: When the probe began, in seconds of the monotonic clock.
        status: What a path that fails answered with, and *body* how that answer begins.
        clear: Something was learned of the worker; if not, it is neither to blame nor cleared.
    """

    observation: Observation
    asked_at: float
    clear: bool = True
    latency: float | None = None
    status: int | None = None
    body: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One round of one watcher; times are seconds of the monotonic clock."""

    view: View
    began_at: float
    ended_at: float
    seen: Mapping[Worker, Sighting]


def is_probed(view: View) -> bool:
    """Return whether a watcher runs and has anything that can be asked."""
    return bool(view.get("armed")) and view.get("status") == "active" and view.get("probe") in ("private", "url")


def asked(view: View) -> list[View]:
    """Return the workers of a watcher that are to be asked."""
    return [worker for worker in view["workers"] if worker.get("state") not in _NOT_ASKED]


def key(worker: View) -> Worker:
    """Return pid and start time of a worker."""
    return int(worker["pid"]), int(worker["started"])


def ready_workers(view: View) -> set[Worker]:
    """Return the workers that circusd knows as ready: they said so themselves, to it."""
    return {key(worker) for worker in view["workers"] if worker.get("ready_for") is not None}


def url_key(view: View) -> Worker:
    """Return whose health a URL tells: that of the only worker, else that of the whole watcher."""
    workers = view["workers"]
    return key(workers[0]) if len(workers) == 1 and view.get("numprocesses") == 1 else WHOLE


def worker_sighting(answer: WorkerAnswer) -> Sighting:
    """Return what is judged of a worker's *answer*."""
    if answer.outcome is Outcome.UNCLEAR:
        # Not judged, as little as one that says that it is starting: a prober out of descriptors reaches nobody.
        return Sighting(Observation(answered=True, starting=True, reason=answer.reason), answer.asked_at, clear=False)
    if answer.outcome is Outcome.SILENCE:
        return Sighting(Observation(answered=False, reason=answer.reason), answer.asked_at)
    report = answer.report
    live, ready = _part(report, "live"), _part(report, "ready")
    failing = live if live.get("ok") is False else ready if ready.get("ok") is False else {}
    observation = Observation(
        answered=True,
        starting=report.get("state") in _UNJUDGED,
        live=_claim(live),
        ready=_claim(ready),
        pool_full=_number(report.get("threads_used")) >= _number(report.get("threads_limit")) > 0,
        reason=str(failing.get("reason") or ""),
    )
    status, body = failing.get("status"), str(failing.get("body") or "")[:FIRST_CHARS]
    return Sighting(
        observation,
        answer.asked_at,
        latency=answer.latency,
        status=status if isinstance(status, int) else None,
        body=body,
        report=report,
    )


def url_sighting(answer: UrlAnswer, asked_at: float) -> Sighting:
    """Return what is judged of the *answer* of ``health.url``; a server that refuses to answer is sick, not wedged."""
    reason = "" if answer.ok else Say.OF_URL(why=answer.reason)
    return Sighting(
        Observation(answered=True, live=answer.ok, reason=reason),
        asked_at,
        latency=answer.latency,
        status=None if answer.ok else answer.status,
        body=answer.body,
    )


def reported(finding: Finding, verdict: Round) -> dict[str, dict[str, Any]]:
    """Return by pid what circusd is told of each worker that was asked."""
    if WHOLE in finding.seen:
        return _url_reported(finding, verdict)
    known_ready = ready_workers(finding.view)
    workers = {}
    for worker, seen in finding.seen.items():
        state = _state(verdict.states[worker], seen, worker in known_ready)
        workers[str(worker[0])] = {
            "state": state.value,
            # That the socket of a beginner is not there yet is no news.
            "reason": verdict.reasons[worker] if seen.clear or worker in known_ready else "",
            "ready": seen.clear and worker not in verdict.not_ready and state is not WorkerState.STARTING,
            "asked_at": seen.asked_at,
            "latency": _rounded(seen.latency),
            **_evidence(seen),
            **{name: seen.report[name] for name in _PASSED_ON if name in seen.report},
        }
    return workers


def _state(judged: WorkerState, seen: Sighting, is_ready: bool) -> WorkerState:
    if not seen.clear and is_ready:
        return WorkerState.READY  # as far as anybody knows
    if judged is WorkerState.READY and seen.report.get("state") == WorkerState.SPARE.value:
        return WorkerState.SPARE
    return judged


def _url_reported(finding: Finding, verdict: Round) -> dict[str, dict[str, Any]]:
    """Return the same for several workers behind one address: each is as well as all of them."""
    seen, reason = finding.seen[WHOLE], verdict.reasons[WHOLE]
    well = seen.observation.is_success
    told = {
        "state": WorkerState.READY.value,
        "reason": "" if well else Say.OF_NOBODY_KNOWS_WHOM(why=reason),
        "ready": well,
        "latency": _rounded(seen.latency),
        **_evidence(seen),
    }
    return {str(worker["pid"]): told for worker in asked(finding.view)}


def _evidence(seen: Sighting) -> dict[str, Any]:
    """Return what is kept of a probe for the day on which somebody asks; *ok* is None for what is not judged."""
    ok = None if not seen.clear or seen.observation.starting else seen.observation.is_success
    return {"ok": ok, "status": seen.status, "body": seen.body}


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = report.get(name)
    return part if isinstance(part, dict) else {}


def _claim(part: Mapping[str, Any]) -> bool | None:
    return None if part.get("ok") is None else bool(part["ok"])


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _rounded(latency: float | None) -> float | None:
    return None if latency is None else round(latency, 5)
