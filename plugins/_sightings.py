"""Convert the answers of probes into observations, and the verdict on them into a report for circusd. No effects."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from xboard_circus.core.health import Observation, Round, Worker
from xboard_circus.core.in_flight import named
from xboard_circus.core.reason import key_of, reason_in, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import Health, WorkerState
from xboard_circus.core.state_schema import PathReport, ProbeFigures, WatcherEntry, WorkerEntry, WorkerReport
from xboard_circus.probe import Outcome, UrlAnswer, WorkerAnswer

FIRST_CHARS = 200

WHOLE: Worker = (0, 0)
"""Stands for all workers of a watcher if the probe does not show which of them answered."""

# A held worker has no socket yet; probing a leaving one would only work against the operator.
_NOT_PROBED = frozenset({"held", "leaving"})
_UNJUDGED = frozenset({WorkerState.STARTING.value, WorkerState.DRAINING.value})


class Sighting(NamedTuple):
    """Result of one probe.

    Attributes:
        asked_at: When the probe began, in seconds of the monotonic clock.
        is_clear: It shows something about the worker, good or bad.
        figures: Figures that circusd shows beside the health.
        report: The worker's own report, empty without one.
    """

    observation: Observation
    asked_at: float
    is_clear: bool = True
    figures: Mapping[str, Any] = {}
    report: WorkerReport = WorkerReport()


class ProbeRound(NamedTuple):
    """One round of the watcher *view*: the sightings, and the verdict."""

    view: WatcherEntry
    seen: Mapping[Worker, Sighting]
    verdict: Round


def is_probed(view: WatcherEntry) -> bool:
    """Return whether a watcher runs and can be probed."""
    return view["armed"] and view["status"] == "active" and view["probe"] != "none"


def probed(view: WatcherEntry) -> list[WorkerEntry]:
    """Return the workers of a watcher that are probed."""
    return [worker for worker in view["workers"] if worker["phase"] not in _NOT_PROBED]


def key(worker: WorkerEntry) -> Worker:
    """Return pid and start time of a worker."""
    return worker["pid"], worker["started"] or 0


def up_workers(view: WatcherEntry) -> dict[Worker, int]:
    """Return the workers that circusd knows as up, because they reported it, and their slots."""
    return {key(worker): worker["slot"] for worker in view["workers"] if worker["ready_for"] is not None}


def url_key(view: WatcherEntry) -> Worker:
    """Return which worker a URL shows the health of: the only one, otherwise `WHOLE`."""
    workers = view["workers"]
    return key(workers[0]) if len(workers) == 1 and view["numprocesses"] == 1 else WHOLE


def worker_sighting(answer: WorkerAnswer) -> Sighting:
    """Return the sighting in the *answer* of a worker."""
    if answer.outcome is not Outcome.REPORT:
        # An unclear answer is not judged: a prober without a free descriptor, for example, reaches no worker.
        is_clear = answer.outcome is Outcome.SILENCE
        seen = Observation(not is_clear, not is_clear, reason=answer.reason, beats=answer.beats)
        return Sighting(seen._replace(is_stopped=answer.is_stopped), answer.asked_at, is_clear)
    report = answer.report
    live, ready = report.get("live"), report.get("ready")
    failed = [path for path in (live, ready) if path is not None and path["ok"] is False]
    # The ready path may name the dependency that the live path lacks.
    naming = (path for path in failed if key_of(reason_in(path)) == Say.STATUS_SAYING.name)
    failing = next(naming, failed[0] if failed else None)
    files_full = report.get("files_full") or 0
    leaks = files_full > 0 and 2 * (report.get("connections") or 0) < files_full
    observation = Observation(
        answered=True,
        starting=report.get("state") in _UNJUDGED,
        # A path that refuses this request answers, which is enough for `live`.
        # A worker that has leaked its descriptors is as good as one whose live path fails: another one helps.
        live=False if leaks else True if live is not None and live["refused"] else _ok(live),
        ready=_ok(ready),
        pool_full=(report.get("threads_used") or 0) >= (report.get("threads_limit") or 0) > 0,
        files_full=0 if leaks else files_full,
        reason=Say.FOUND_FILES_FULL(n=files_full) if leaks else "" if failing is None else reason_in(failing),
    )
    shown = {name: report.get(name) for name in ProbeFigures.__annotations__} | {"latency": round(answer.latency, 5)}
    if failing is not None:
        shown |= {"status": failing["status"], "body": failing["body"][:FIRST_CHARS]}
    return Sighting(observation, answer.asked_at, figures=shown, report=report)


def url_sighting(answer: UrlAnswer, asked_at: float) -> Sighting:
    """Return the sighting in the *answer* of ``health.url``; a server that refuses to answer is sick, not hung."""
    reason = "" if answer.ok else Say.OF_URL(why=answer.reason)
    shown = {"latency": round(answer.latency, 5), "status": None if answer.ok else answer.status, "body": answer.body}
    return Sighting(Observation(answered=True, live=answer.ok, reason=reason), asked_at, figures=shown)


def judgements(finding: ProbeRound) -> dict[str, dict[str, Any]]:
    """Return by pid what is reported to circusd of each probed worker: a `Judgement` as JSON."""
    seen, verdict = finding.seen, finding.verdict
    if WHOLE in seen:
        # Several workers behind one URL: each gets the health of all.
        well, reason = seen[WHOLE].observation.is_success, verdict.reasons[WHOLE]
        why = "" if well else Say.OF_NOBODY_KNOWS_WHOM(why=reason)
        one = _judgement(seen[WHOLE], verdict.healths[WHOLE], why, well) | {"asked_at": None}
        return {str(worker["pid"]): one for worker in probed(finding.view)}
    up, found = up_workers(finding.view), {}
    for worker, each in seen.items():
        health = verdict.healths[worker] if each.is_clear else Health.UNKNOWN
        # A starting worker has no socket yet, which is no trouble.
        reason = verdict.reasons[worker] if each.is_clear or worker in up else ""
        ready = None if health is Health.UNKNOWN else worker not in verdict.not_ready
        found[str(worker[0])] = _judgement(each, health, reason, ready)
    return found


def _judgement(seen: Sighting, health: Health, reason: str, ready: bool | None) -> dict[str, Any]:
    is_judged = seen.is_clear and not seen.observation.starting
    return {
        "health": health.value,
        **with_say(reason),
        "ready": ready,
        "asked_at": seen.asked_at,
        "ok": seen.observation.is_success if is_judged else None,
        **seen.figures,
    }


def _ok(path: PathReport | None) -> bool | None:
    return None if path is None else path["ok"]


MOST_IN, MOST = 60.0, 20
"""So many events of a watcher in so many seconds: a worker may report whatever it likes."""


class SlowEvents:
    """Choose which slow requests, of those that workers report, are published: each once, and few of them.

    *now* is when this begins: what is older was published before.
    """

    def __init__(self, now: float) -> None:
        self._began_at = now
        self._until: dict[str, dict[Worker, float]] = {}
        self._published: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST))

    def of(self, finding: ProbeRound, now: float) -> Iterator[tuple[Worker, str]]:
        """Yield the worker and the sentence of each slow request that is new in a round."""
        name = finding.view["name"]
        before, published = self._until.get(name, {}), self._published[name]
        self._until[name] = {worker: before.get(worker, self._began_at) for worker in finding.seen}
        for worker, seen in finding.seen.items():
            for each in seen.report.get("slow") or ():
                if each["at"] > self._until[name][worker] and (len(published) < MOST or now - published[0] > MOST_IN):
                    self._until[name][worker] = each["at"]
                    published.append(now)
                    say = Say.LATE_REQUEST if each["timed_out"] else Say.SLOW_REQUEST
                    yield worker, say(request=named({**each}), where=each["where"])
