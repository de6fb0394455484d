"""The commands that circusd understands beside Circus's own: each a few lines over the Supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from circus.commands.base import Command
from circus.exc import MessageError

from xboard_circus.core.sentences import Say
from xboard_circus.core.states import WorkerState
from xboard_circus.host import procs
from xboard_circus.supervisor import replacing, rolling_reload
from xboard_circus.supervisor.requests import who

if TYPE_CHECKING:
    from xboard_circus.supervisor.armed import ArmedWatcher
    from xboard_circus.supervisor.supervisor import Supervisor

# What is shown of a probe, beside state and reason.
PROBE_FIGURES = ("latency", "lag", "threads_used", "threads_limit", "requests_active", "requests_served", "rss")
# What is kept of the last few probes, as evidence.
PROBE_EVIDENCE = ("ok", "state", "latency", "reason", "status", "body")
EVENTS_FROM_OUTSIDE = frozenset({"unhealthy", "recovered", "restart", "cooldown"})


def register(arbiter: Any, supervisor: Supervisor) -> None:
    """Put our commands into a controller that runs already: it copied its list when it was built."""
    for kind in (State, Report, Replace, Reload, Event, Events):
        command = kind()
        command.supervisor = supervisor
        arbiter.ctrl.commands[kind.name] = command


def _armed(supervisor: Supervisor, name: object) -> ArmedWatcher:
    found = supervisor.armed.get(str(name))
    if found is None:
        raise MessageError(Say.NO_ARMED_WATCHER(watcher=repr(name)))
    return found


class State(Command):  # type: ignore[misc]
    """Tell the state of every watcher and worker."""

    name = "xboard_state"
    supervisor: Supervisor

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        return self.supervisor.view()


class Report(Command):  # type: ignore[misc]
    """Take what a prober saw in one round, and tell it the state for its next one if it wants that."""

    name = "xboard_report"
    properties: ClassVar[list[str]] = ["plugin", "pid", "started", "workers"]
    supervisor: Supervisor

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        sender = procs.Identity(int(props["pid"]), int(props["started"]))
        self.supervisor.report(str(props["plugin"]), sender)
        seen = {int(pid): what for pid, what in props["workers"].items()}
        for armed in self.supervisor.armed.values():
            for spawned in armed.live.values():
                if spawned.pid in seen:
                    what = seen[spawned.pid]
                    spawned.judged(
                        WorkerState(what["state"]),
                        str(what.get("reason") or ""),
                        ready=what.get("ready"),
                        asked_at=float(what.get("asked_at", armed.clock())),
                    )
                    spawned.probe = {name: what.get(name) for name in PROBE_FIGURES}
                    spawned.rss = what.get("rss") or spawned.rss
                    spawned.probes.append({"at": armed.clock(), **{name: what.get(name) for name in PROBE_EVIDENCE}})
        return self.supervisor.view() if props.get("state") else {}


class Replace(Command):  # type: ignore[misc]
    """Replace a worker that is wedged or sick, unless the finding is too old to act on, or that an operator names."""

    name = "xboard_replace"
    properties: ClassVar[list[str]] = ["name", "pid", "started", "kind", "probed_at", "reason"]
    supervisor: Supervisor

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        replacing.replace(
            _armed(self.supervisor, props["name"]),
            pid=int(props["pid"]),
            started=int(props["started"]),
            kind=str(props["kind"]),
            probed_at=float(props["probed_at"]),
            reason=str(props["reason"])[:300],
        )
        return {}


class Reload(Command):  # type: ignore[misc]
    """Begin a rolling reload; `xboard_state` tells how it goes."""

    name = "xboard_reload"
    properties: ClassVar[list[str]] = ["name"]
    supervisor: Supervisor

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        begun = rolling_reload.begin(_armed(self.supervisor, props["name"]), by=who(props))
        return {"reload": begun.view()}


class Event(Command):  # type: ignore[misc]
    """Publish an event of a plugin's on the bus."""

    name = "xboard_event"
    properties: ClassVar[list[str]] = ["name", "event", "reason"]
    supervisor: Supervisor

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        if props["event"] not in EVENTS_FROM_OUTSIDE:
            raise MessageError(Say.UNKNOWN_EVENT(name=repr(props["event"])))
        watcher = self._get_watcher(arbiter, str(props["name"]))
        armed = self.supervisor.armed.get(watcher.name)
        more = {key: props[key] for key in ("pid", "wid", "cause") if key in props}
        reason = str(props["reason"])[:300]
        if armed is not None:
            armed.tell(Say.EVENT(event=props["event"], why=reason))
            armed.publish(props["event"], reason=reason, **more)
        else:
            self.supervisor.publish(watcher, props["event"], reason=reason, **more)
        return {}


class Events(Command):  # type: ignore[misc]
    """Tell the last events of ours behind a number, for whoever was not on the bus in time."""

    name = "xboard_events"
    supervisor: Supervisor

    def execute(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        return self.supervisor.journal.after(int(props.get("after") or 0))
