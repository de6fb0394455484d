"""From the answers of probes to what is judged, and from the verdict to what circusd is told. No effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xboard_circus.core.health import Observation, Round, Worker
from xboard_circus.core.reason import data_of, reason_in
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import Judgement, PathReport, WatcherEntry, WorkerEntry, WorkerReport
from xboard_circus.core.states import Health, WorkerState
from xboard_circus.probe import Outcome, UrlAnswer, WorkerAnswer

FIRST_CHARS = 200

WHOLE: Worker = (0, 0)
"""The place of a whole watcher in its WatcherHealth, where nobody can tell which of its workers answered."""

# A worker that is held has no socket yet; probing one that leaves would only fight the operator.
_NOT_ASKED = frozenset({"held", "leaving"})
_UNJUDGED = frozenset({WorkerState.STARTING.value, WorkerState.DRAINING.value})


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
    report: WorkerReport = field(default_factory=WorkerReport)


@dataclass(frozen=True, slots=True)
class ProbeRound:
    """One round of one watcher; times are seconds of the monotonic clock."""

    view: WatcherEntry
    began_at: float
    ended_at: float
    seen: Mapping[Worker, Sighting]


def is_probed(view: WatcherEntry) -> bool:
    """Return whether a watcher runs and has anything that can be asked."""
    return view["armed"] and view["status"] == "active" and view["probe"] != "none"


def asked(view: WatcherEntry) -> list[WorkerEntry]:
    """Return the workers of a watcher that are to be asked."""
    return [worker for worker in view["workers"] if worker["phase"] not in _NOT_ASKED]


def key(worker: WorkerEntry) -> Worker:
    """Return pid and start time of a worker."""
    return worker["pid"], worker["started"] or 0


def up_workers(view: WatcherEntry) -> set[Worker]:
    """Return the workers that circusd knows as up: they reported that themselves, to it."""
    return {key(worker) for worker in view["workers"] if worker["ready_for"] is not None}


def url_key(view: WatcherEntry) -> Worker:
    """Return whose health a URL tells: that of the only worker, else that of the whole watcher."""
    workers = view["workers"]
    return key(workers[0]) if len(workers) == 1 and view["numprocesses"] == 1 else WHOLE


def worker_sighting(answer: WorkerAnswer) -> Sighting:
    """Return what is judged of a worker's *answer*."""
    if answer.outcome is Outcome.UNCLEAR:
        # Not judged, as little as one that says that it is starting: a prober out of descriptors reaches nobody.
        return Sighting(Observation(answered=True, starting=True, reason=answer.reason), answer.asked_at, clear=False)
    if answer.outcome is Outcome.SILENCE:
        return Sighting(Observation(answered=False, reason=answer.reason), answer.asked_at)
    report = answer.report
    live, ready = report.get("live"), report.get("ready")
    failing = next((part for part in (live, ready) if part is not None and part["ok"] is False), None)
    observation = Observation(
        answered=True,
        starting=report.get("state") in _UNJUDGED,
        live=True
        if live is not None and live["refused"]
        else _claim(live),  # the app answers, which is all that it has to show
        ready=_claim(ready),
        pool_full=(report.get("threads_used") or 0) >= (report.get("threads_limit") or 0) > 0,
        reason="" if failing is None else reason_in(failing),
    )
    return Sighting(
        observation,
        answer.asked_at,
        latency=answer.latency,
        status=None if failing is None else failing["status"],
        body="" if failing is None else failing["body"][:FIRST_CHARS],
        report=report,
    )


def url_sighting(answer: UrlAnswer, asked_at: float) -> Sighting:
    """Return what is judged of the *answer* of ``health.url``; a server that refuses to answer is sick, not hung."""
    reason = "" if answer.ok else Say.OF_URL(why=answer.reason)
    return Sighting(
        Observation(answered=True, live=answer.ok, reason=reason),
        asked_at,
        latency=answer.latency,
        status=None if answer.ok else answer.status,
        body=answer.body,
    )


def reported(finding: ProbeRound, verdict: Round) -> dict[str, Judgement]:
    """Return by pid what is reported to circusd of each worker that was asked."""
    if WHOLE in finding.seen:
        return _url_reported(finding, verdict)
    up = up_workers(finding.view)
    workers = {}
    for worker, seen in finding.seen.items():
        health = verdict.healths[worker] if seen.clear else Health.UNKNOWN
        # That the socket of a beginner is not there yet is no news.
        reason = verdict.reasons[worker] if seen.clear or worker in up else ""
        ready = None if health is Health.UNKNOWN else worker not in verdict.not_ready
        workers[str(worker[0])] = _judgement(seen, health, reason, ready=ready, asked_at=seen.asked_at)
    return workers


def _url_reported(finding: ProbeRound, verdict: Round) -> dict[str, Judgement]:
    """Return the same for several workers behind one address: each is as well as all of them."""
    seen, reason = finding.seen[WHOLE], verdict.reasons[WHOLE]
    well = seen.observation.is_success
    why = "" if well else Say.OF_NOBODY_KNOWS_WHOM(why=reason)
    told = _judgement(seen, verdict.healths[WHOLE], why, ready=well, asked_at=None)
    return {str(worker["pid"]): told for worker in asked(finding.view)}


def _judgement(seen: Sighting, health: Health, reason: str, *, ready: bool | None, asked_at: float | None) -> Judgement:
    report = seen.report
    return {
        "health": health.value,
        "reason": reason,
        "say": data_of(reason),
        "ready": ready,
        "asked_at": asked_at,
        "ok": None if not seen.clear or seen.observation.starting else seen.observation.is_success,
        "latency": _rounded(seen.latency),
        "status": seen.status,
        "body": seen.body,
        "lag": report.get("lag"),
        "threads_used": report.get("threads_used"),
        "threads_limit": report.get("threads_limit"),
        "requests_active": report.get("requests_active"),
        "requests_served": report.get("requests_served"),
        "rss": report.get("rss"),
    }


def _claim(part: PathReport | None) -> bool | None:
    return None if part is None else part["ok"]


def _rounded(latency: float | None) -> float | None:
    return None if latency is None else round(latency, 5)
