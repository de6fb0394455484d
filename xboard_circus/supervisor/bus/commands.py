"""The commands that circusd understands beside Circus's own: each a few lines over the Supervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.commands.errors import MESSAGE_ERROR
from circus.exc import MessageError

from xboard_circus.core.in_flight import MOST_KEPT
from xboard_circus.core.outage_limit import outages_of
from xboard_circus.core.reason import reason_in, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_names import Health
from xboard_circus.core.state_schema import Judgement, parse_judgements
from xboard_circus.core.worker_phases import Judged
from xboard_circus.host import procs
from xboard_circus.host.request_slots import SLOTS
from xboard_circus.supervisor.bus.requests import who
from xboard_circus.supervisor.leave import leave
from xboard_circus.supervisor.life import evidence
from xboard_circus.supervisor.patches import circus_arbiter
from xboard_circus.supervisor.patches.circus_controller import add_commands
from xboard_circus.supervisor.patches.patch import Patch
from xboard_circus.supervisor.replace import admission, rolling

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Fleet, Worker
    from xboard_circus.supervisor.supervisor import Supervisor
    from xboard_circus.supervisor.watcher import ArmedWatcher

# What is kept of the last few probes, as evidence.
NATIVE_CHARS = 20_000
PROBE_EVIDENCE = ("ok", "health", "latency", "status", "body")
EVENTS_FROM_OUTSIDE = frozenset({"unhealthy", "recovered", "restart", "cooldown", "slow_request", "preflight_failed"})
Props = Mapping[str, Any]
Work = Callable[["Supervisor", Props], Mapping[str, Any] | None]


@dataclass
class OurCommand:
    """A command of ours, with the methods that Circus calls.

    No subclass of Circus's Command: Circus collects those as soon as they are imported, before there is a supervisor.
    """

    supervisor: Supervisor
    name: str
    properties: tuple[str, ...]
    work: Work

    validate = Command.validate

    def execute(self, arbiter: Any, props: Props) -> dict[str, Any]:
        """Return the answer; a refusal with its data, where Circus would send the text alone."""
        try:
            return {**(self.work(self.supervisor, props) or {})}
        except MessageError as error:
            return {"status": "error", "errno": MESSAGE_ERROR, **with_say(str(error))}


def patch(supervisor: Supervisor) -> Patch:
    """Return our commands, to be put into a controller that runs already."""
    ours = [OurCommand(supervisor, name, properties, work) for name, (properties, work) in COMMANDS.items()]
    return add_commands(supervisor.arbiter, ours)


def _armed(supervisor: Supervisor, props: Props) -> ArmedWatcher:
    found = supervisor.armed.get(str(props["name"]))
    if found is None:
        raise MessageError(Say.NO_ARMED_WATCHER(watcher=repr(props["name"])))
    return found


def _report(supervisor: Supervisor, props: Props) -> None:
    """Take what a prober saw in one round."""
    supervisor.report(str(props["plugin"]), procs.Identity(int(props["pid"]), int(props["started"])))
    seen = parse_judgements(props["workers"])
    for armed in supervisor.armed.values():
        for worker in armed.fleet:
            if worker.pid in seen:
                _take_report(armed, worker, seen[worker.pid])


def _take_report(armed: ArmedWatcher, worker: Worker, what: Judgement) -> None:
    now = armed.clock()
    asked_at = now if what["asked_at"] is None else what["asked_at"]
    reason = reason_in(what)
    armed.happen(worker, Judged(asked_at, Health(what["health"]), reason, what["ready"]))
    worker.probe = figures = {**what}
    worker.rss = what["rss"] or worker.rss
    worker.probes.append({"at": now, **{name: figures[name] for name in PROBE_EVIDENCE}, **with_say(reason)})


def _replace(supervisor: Supervisor, props: Props) -> None:
    """Replace a worker that is hung or sick, unless the finding is too old to act on, or that an operator names."""
    armed, identity = _armed(supervisor, props), procs.Identity(int(props["pid"]), int(props["started"]))
    kind, probed_at = str(props["kind"]), float(props["probed_at"])
    if (worker := armed.fleet.find(identity.pid, identity.started)) is not None:
        worker.native = str(props.get("native") or "")[:NATIVE_CHARS]
    admission.replace(armed, identity, kind=kind, probed_at=probed_at, reason=reason_in(props))


def _reload(supervisor: Supervisor, props: Props) -> Mapping[str, Any]:
    """Begin a rolling reload; `xboard_state` reports its progress."""
    return {"reload": rolling.begin(_armed(supervisor, props), by=who(props)).view()}


def _retry(supervisor: Supervisor, props: Props) -> None:
    """Start a held worker now, or all, whatever their slots have failed before."""
    slot = props.get("slot")
    admission.retry(_armed(supervisor, props), slot=None if slot is None else int(slot), by=who(props))


def _leave(supervisor: Supervisor, props: Props) -> Mapping[str, Any]:
    """End circusd; the workers that the next one can take over serve on, but for those of the watchers in `but`."""
    gate = props.get("gate")
    but = [str(name) for name in props.get("but") or ()]
    return {"stays": leave(supervisor, but=but, gate=None if gate is None else int(gate))}


def _event(supervisor: Supervisor, props: Props) -> None:
    """Publish an event of a plugin's on the bus."""
    if props["event"] not in EVENTS_FROM_OUTSIDE:
        raise MessageError(Say.UNKNOWN_EVENT(name=repr(props["event"])))
    watcher = circus_arbiter.registered(supervisor.arbiter, str(props["name"]))
    if watcher is None:
        raise MessageError(Say.NO_ARMED_WATCHER(watcher=repr(props["name"])))
    reason = reason_in(props)
    more = {key: props[key] for key in ("pid", "wid", "cause") if key in props}
    if props["event"] != "slow_request" and (armed := supervisor.armed.get(watcher.name)) is not None:
        armed.note_reason(Say.EVENT(event=Say[f"EVENT_{props['event'].upper()}"](), why=reason))
        if props["event"] == "unhealthy":
            more |= _requests_of(armed.fleet, int(props.get("pid") or 0), armed.clock())
    supervisor.publish(watcher.res_name, props["event"], **with_say(reason), **more)


def _events(supervisor: Supervisor, props: Props) -> Mapping[str, Any]:
    """Return the last events of ours behind a number, for a recorder that missed them on the bus."""
    return supervisor.journal.after(int(props.get("after") or 0))


def _requests_of(fleet: Fleet, pid: int, now: float) -> Mapping[str, Any]:
    """Return what a worker has in flight, or had: one that hangs is killed before or after that is published."""
    worker = fleet.workers.get(pid)
    if worker is None:
        return fleet.last_requests.get(pid, {})
    return evidence.of_live_requests(worker, blames_last=True, now=now, most=MOST_KEPT)


def _requests(supervisor: Supervisor, props: Props) -> Mapping[str, Any]:
    """Return the requests in flight of each worker, also of one that does not answer."""
    chosen = [_armed(supervisor, props)] if props.get("name") else supervisor.armed.values()
    seen = [
        {"watcher": armed.name, "slot": worker.slot, "pid": worker.pid}
        | evidence.of_live_requests(worker, blames_last=False, now=armed.clock(), most=SLOTS)
        for armed in chosen
        for worker in armed.fleet
    ]
    return {"workers": [each for each in seen if each.get("requests") or each.get("requests_unreadable")]}


def _health(supervisor: Supervisor, _: Props) -> Mapping[str, Any]:
    """Return what a container's health check needs: outages of backends, and the address of each backend."""
    watchers = supervisor.view()["watchers"]
    return {
        "outages": [[outage.name, outage.reason] for outage in outages_of(watchers)],
        "backends": [
            [each["name"], port["port"], each["options"]["health.live_path"]]
            for each in watchers
            if each["armed"] and not each["is_page"] and (port := each["port"])
        ],
    }


COMMANDS: dict[str, tuple[tuple[str, ...], Work]] = {
    "xboard_health": ((), _health),
    "xboard_state": ((), lambda supervisor, _: supervisor.view()),
    "xboard_report": (("plugin", "pid", "started", "workers"), _report),
    "xboard_replace": (("name", "pid", "started", "kind", "probed_at", "reason"), _replace),
    "xboard_reload": (("name",), _reload),
    "xboard_retry": (("name",), _retry),
    "xboard_leave": ((), _leave),
    "xboard_event": (("name", "event", "reason"), _event),
    "xboard_events": ((), _events),
    "xboard_requests": ((), _requests),
}
