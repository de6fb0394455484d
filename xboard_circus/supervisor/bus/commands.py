"""The commands that circusd understands beside Circus's own: each a few lines over the Supervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from circus.commands.base import Command
from circus.commands.errors import MESSAGE_ERROR
from circus.exc import MessageError

from xboard_circus.core.reason import reason_in, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import Judgement, ProbeFigures, State, parse_judgements
from xboard_circus.core.states import Health
from xboard_circus.core.worker import Judged
from xboard_circus.host import procs
from xboard_circus.supervisor.bus.requests import who
from xboard_circus.supervisor.patches import circus_arbiter
from xboard_circus.supervisor.patches.circus_controller import add_commands, watch_command
from xboard_circus.supervisor.patches.patch import Patch
from xboard_circus.supervisor.replace import admission, rolling

if TYPE_CHECKING:
    from xboard_circus.supervisor.fleet import Worker
    from xboard_circus.supervisor.supervisor import Supervisor
    from xboard_circus.supervisor.watcher import ArmedWatcher

# What is shown of a probe, beside health and reason.
PROBE_FIGURES = tuple(ProbeFigures.__annotations__)
# What is kept of the last few probes, as evidence.
PROBE_EVIDENCE = ("ok", "health", "latency", "status", "body")
EVENTS_FROM_OUTSIDE = frozenset({"unhealthy", "recovered", "restart", "cooldown"})


def patch(supervisor: Supervisor) -> Patch:
    """Return our commands, to be put into a controller that runs already."""
    ours = [kind() for kind in _Ours.__subclasses__()]
    for command in ours:
        command._supervisor = supervisor
    return add_commands(supervisor.arbiter, ours)


def refusals_with_data(arbiter: Any) -> list[Patch]:
    """Return what lets each command of ours answer a refusal with its data; Circus itself would send the text alone.

    To be put in after `Requests`, which has to see the exception.
    """
    known = circus_arbiter.commands(arbiter)
    return [watch_command(command, _with_data) for command in known.values() if isinstance(command, _Ours)]


def _with_data(execute: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def answered(arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        try:
            return execute(arbiter, props)
        except MessageError as error:
            return {"status": "error", "errno": MESSAGE_ERROR, **with_say(str(error))}

    return answered


def _armed(supervisor: Supervisor, name: object) -> ArmedWatcher:
    found = supervisor.armed.get(str(name))
    if found is None:
        raise MessageError(Say.NO_ARMED_WATCHER(watcher=repr(name)))
    return found


class _Ours(Command):  # type: ignore[misc]
    """A command of ours. Circus knows it as soon as it is imported, before there is a supervisor."""

    _supervisor: Supervisor | None = None

    @property
    def supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise MessageError(Say.NOTHING_ARMED())
        return self._supervisor


def _take_report(armed: ArmedWatcher, worker: Worker, what: Judgement) -> None:
    now = armed.clock()
    asked_at = now if what["asked_at"] is None else what["asked_at"]
    reason = reason_in(what)
    armed.happen(worker, Judged(asked_at, Health(what["health"]), reason, what["ready"]))
    figures: Mapping[str, Any] = what
    worker.probe = {name: figures[name] for name in PROBE_FIGURES}
    worker.rss = what["rss"] or worker.rss
    worker.probes.append({"at": now, **{name: figures[name] for name in PROBE_EVIDENCE}, **with_say(reason)})


class StateCommand(_Ours):
    """Tell the state of every watcher and worker."""

    name = "xboard_state"

    def execute(self, arbiter: Any, props: dict[str, Any]) -> State:
        return self.supervisor.view()


class ReportCommand(_Ours):
    """Take what a prober saw in one round, and tell it the state for its next one if it wants that."""

    name = "xboard_report"
    properties: ClassVar[list[str]] = ["plugin", "pid", "started", "workers"]

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        sender = procs.Identity(int(props["pid"]), int(props["started"]))
        self.supervisor.report(str(props["plugin"]), sender)
        seen = parse_judgements(props["workers"])
        for armed in self.supervisor.armed.values():
            for worker in armed.fleet:
                if worker.pid in seen:
                    _take_report(armed, worker, seen[worker.pid])
        return {**self.supervisor.view()} if props.get("state") else {}


class ReplaceCommand(_Ours):
    """Replace a worker that is hung or sick, unless the finding is too old to act on, or that an operator names."""

    name = "xboard_replace"
    properties: ClassVar[list[str]] = ["name", "pid", "started", "kind", "probed_at", "reason"]

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        admission.replace(
            _armed(self.supervisor, props["name"]),
            pid=int(props["pid"]),
            started=int(props["started"]),
            kind=str(props["kind"]),
            probed_at=float(props["probed_at"]),
            reason=reason_in(props),
        )
        return {}


class ReloadCommand(_Ours):
    """Begin a rolling reload; `xboard_state` tells how it goes."""

    name = "xboard_reload"
    properties: ClassVar[list[str]] = ["name"]

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        begun = rolling.begin(_armed(self.supervisor, props["name"]), by=who(props))
        return {"reload": begun.view()}


class RetryCommand(_Ours):
    """Start a held worker now, whatever its slot has failed before."""

    name = "xboard_retry"
    properties: ClassVar[list[str]] = ["name", "slot"]

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        admission.retry(_armed(self.supervisor, props["name"]), slot=int(props["slot"]), by=who(props))
        return {}


class EventCommand(_Ours):
    """Publish an event of a plugin's on the bus."""

    name = "xboard_event"
    properties: ClassVar[list[str]] = ["name", "event", "reason"]

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        if props["event"] not in EVENTS_FROM_OUTSIDE:
            raise MessageError(Say.UNKNOWN_EVENT(name=repr(props["event"])))
        watcher = self._get_watcher(arbiter, str(props["name"]))
        armed = self.supervisor.armed.get(watcher.name)
        more = {key: props[key] for key in ("pid", "wid", "cause") if key in props}
        reason = reason_in(props)
        if armed is not None:
            armed.note_reason(Say.EVENT(event=Say[f"EVENT_{props['event'].upper()}"](), why=reason))
            armed.publish(props["event"], reason=reason, **more)
        else:
            self.supervisor.publish(watcher, props["event"], reason=reason, **more)
        return {}


class EventsCommand(_Ours):
    """Tell the last events of ours behind a number, for whoever was not on the bus in time."""

    name = "xboard_events"

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        return self.supervisor.journal.after(int(props.get("after") or 0))
