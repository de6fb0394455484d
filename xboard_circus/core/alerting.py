"""Decide what is broken, since when, and when it is well again. No effects; *now* is seconds of one clock.

An event opens an incident at once and is counted in it. The state of circusd opens incidents that no event reported,
and ends them. So neither a lost event nor a restart of the plugin leaves an incident open, or unreported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from xboard_circus.core.durations import seconds
from xboard_circus.core.in_flight import with_requests
from xboard_circus.core.names import CIRCUSD, is_helper, stops_for_good
from xboard_circus.core.reason import Reason, key_of, one_line, reason_in
from xboard_circus.core.sentences import Say, state_named
from xboard_circus.core.state_schema import WatcherEntry, WorkerEntry
from xboard_circus.core.verdict import Word, is_scaled_to_zero, serving

LOOP_FAILURES = 3
"""This many failures of one worker within its window are a crash loop, even before it cools down."""

CONFIRMED_AFTER = 2.0
"""Seconds for which the state has to show a trouble before it counts without its event, which may be late."""

TROUBLED = frozenset({"sick", "hung"})


class Severity(Enum):
    """How bad a trouble is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Trouble(Enum):
    """What an incident is about; each watcher has at most one incident of each trouble."""

    RESTART = "restart"
    UNHEALTHY = "unhealthy"
    CRASH_LOOP = "crash_loop"
    PORT_REFUSED = "port_refused"
    DOWN = "down"
    PORT_SHARED = "port_shared"
    OUTPUT_LOST = "output_lost"
    POISON = "poison"
    SILENT = "silent"
    LOST = "lost"

    @property
    def severity(self) -> Severity:
        if self is Trouble.RESTART:
            return Severity.INFO
        is_warning = self not in (Trouble.PORT_REFUSED, Trouble.DOWN, Trouble.SILENT, Trouble.LOST)
        return Severity.WARNING if is_warning else Severity.CRITICAL


Key = tuple[str, Trouble]
_OWN_EVENTS = (Trouble.UNHEALTHY, Trouble.PORT_REFUSED, Trouble.PORT_SHARED, Trouble.OUTPUT_LOST, Trouble.POISON)
_TROUBLES = {"cooldown": Trouble.CRASH_LOOP, **{each.value: each for each in _OWN_EVENTS}}


class AlertRules(NamedTuple):
    """Rules for when a state becomes an incident, and when that is over.

    Attributes:
        down_after: Seconds without a worker that is up, or without an answer of circusd.
        recover_after: Seconds for which it must be well; trouble that returns within them is the same incident.
    """

    down_after: float = 30.0
    recover_after: float = 30.0


@dataclass(frozen=True)
class Incident:
    """One trouble of one watcher, from its first sign to its end.

    Attributes:
        count: How often it was reported since it began; the repeats are folded into one incident.
        clear_since: Since when it looks well again, None while it does not.
        ending: Why it is over; "" while it is not.
        is_well: It is over because it is well again, not because the watcher was stopped.
    """

    watcher: str
    trouble: Trouble
    opened_at: float
    reason: str
    count: int = 1
    clear_since: float | None = None
    ending: str = ""
    is_well: bool = True

    @property
    def key(self) -> Key:
        return self.watcher, self.trouble

    @property
    def severity(self) -> Severity:
        return self.trouble.severity


class Alerting:
    """Track the incidents of one circusd.

    >>> alerting = Alerting(AlertRules(recover_after=5))
    >>> alerting.event("web", "port_refused", {"reason": "nginx has it"}, now=0)
    >>> [incident.reason for incident in alerting.open.values()]
    ['nginx has it']
    >>> from xboard_circus.core.unarmed import unarmed_watcher, unarmed_worker
    >>> worker = unarmed_worker(pid=7, started=1, wid=1, leaves=False, age=5.0)
    >>> well = unarmed_watcher(name="web", status="active", numprocesses=1, options={}, workers=[worker])
    >>> [[over.ending for over in alerting.observe([well], now=now)] for now in (1, 6)]
    [[], ['1 of 1 workers up']]
    """

    def __init__(self, rules: AlertRules, *, restored: Iterable[Incident] = ()) -> None:
        self.rules = rules
        self.open: dict[Key, Incident] = {incident.key: incident for incident in restored}
        self._bad_since: dict[Key, float] = {}
        self._past: list[Incident] = []
        self._stopped: set[str] = set()

    def event(self, watcher: str, event: str, data: Mapping[str, Any], now: float) -> None:
        """Take an event that circusd published."""
        if event == "command" and (for_good := stops_for_good(data)) is not None:
            self._stopped = self._stopped | {watcher} if for_good else self._stopped - {watcher}
        trouble = _trouble_of(event, data)
        if trouble is Trouble.RESTART and (watcher, Trouble.CRASH_LOOP) in self.open:
            trouble = Trouble.CRASH_LOOP
        if trouble is not None:
            about = "poison" if trouble is Trouble.POISON and event == "restart" else "reason"
            reason = reason_in(data, about) or trouble.value
            if trouble is not Trouble.POISON:  # that names its request itself
                reason = with_requests(reason, data)
            # A cooldown or poison follows the death that caused it, which was counted already.
            self._raise(watcher, trouble, reason, now, again=int(event not in ("cooldown", "poison")))

    def observe(self, views: Iterable[WatcherEntry], now: float) -> list[Incident]:
        """Compare the incidents with the watchers in circusd's state; return the incidents that are over."""
        by_name = {view["name"]: view for view in views if not is_helper(view["name"])}
        over, self._past = self._past, []
        self._bad_since = {key: since for key, since in self._bad_since.items() if key[0] in by_name}
        for name, view in by_name.items():
            self._look(name, view, now)
        for key, incident in list(self.open.items()):
            shown = by_name.get(incident.watcher)
            given_up = _given_up(incident, shown, for_good=incident.watcher in self._stopped)
            if ending := given_up or self._ending(incident, shown, now):
                del self.open[key]
                over.append(replace(incident, ending=ending, is_well=not given_up))
        return over

    def lost(self, reason: str, now: float) -> None:
        """Note that circusd ended without a stop request; silence before that is the same incident."""
        trouble = Trouble.SILENT if (CIRCUSD, Trouble.SILENT) in self.open else Trouble.LOST
        self._raise(CIRCUSD, trouble, one_line(reason), now)

    def lost_before(self, reason: str, now: float, *, at: float, was_reported: bool) -> None:
        """Note that the circusd before this one was lost at *at*; that is over by now.

        *was_reported*: a plugin saw it, and may have opened the incident.
        """
        for trouble in (Trouble.LOST, Trouble.SILENT):
            if (CIRCUSD, trouble) in self.open:
                if not was_reported:
                    self._raise(CIRCUSD, trouble, one_line(reason), now)
                return
        why = one_line(reason)
        self._past.append(Incident(CIRCUSD, Trouble.LOST, min(at, now), why, ending=why))

    def unanswered(self, why: str, now: float) -> None:
        """Note that circusd did not answer; a later loss is the same incident."""
        since = self._bad_since.setdefault((CIRCUSD, Trouble.SILENT), now)
        is_open = {(CIRCUSD, Trouble.SILENT), (CIRCUSD, Trouble.LOST)} & self.open.keys()
        if now - since >= self.rules.down_after and not is_open:
            reason = Say.CIRCUSD_SILENT(held=seconds(now - since), why=why)
            self._raise(CIRCUSD, Trouble.SILENT, reason, now, opened_at=since)

    def _look(self, name: str, view: WatcherEntry, now: float) -> None:
        """Open incidents that no event reports, such as the loss of the last worker that is up."""
        found = _shown(view)
        if (name, Trouble.PORT_REFUSED) in self.open or Trouble.PORT_REFUSED in found:
            # The taken port is the cause of the same outage.
            found.pop(Trouble.DOWN, None)
        for trouble in Trouble:
            key = name, trouble
            if trouble not in found:
                self._bad_since.pop(key, None)
                continue
            since = self._bad_since.setdefault(key, now)
            wait = self.rules.down_after if trouble is Trouble.DOWN else CONFIRMED_AFTER
            if now - since >= wait and key not in self.open:
                why = found[trouble]
                if trouble is Trouble.DOWN:
                    say = Say.NONE_UP_FOR_SAYING if why else Say.NONE_UP_FOR
                    why = say(held=seconds(now - since), why=why)
                self._raise(name, trouble, one_line(why), now, opened_at=since)

    def _ending(self, incident: Incident, view: WatcherEntry | None, now: float) -> str:
        """Return why the incident is over, "" while it is not."""
        if incident.trouble is Trouble.SILENT:
            return Say.CIRCUSD_ANSWERS()
        if view is not None and _holds(incident.trouble, view):
            if incident.clear_since is not None:
                self.open[incident.key] = replace(incident, clear_since=None, count=incident.count + 1)
            return ""
        since = now if incident.clear_since is None else incident.clear_since
        if now - since >= self.rules.recover_after:
            if view is None:  # of circusd itself
                return Say.CIRCUSD_ANSWERS()
            return Say.SO_MANY_UP(n=serving(view), total=view["numprocesses"])
        self.open[incident.key] = replace(incident, clear_since=since)
        return ""

    def _raise(
        self, watcher: str, trouble: Trouble, reason: str, now: float, *, opened_at: float | None = None, again: int = 1
    ) -> None:
        if (known := self.open.get((watcher, trouble))) is None:
            self.open[watcher, trouble] = Incident(watcher, trouble, now if opened_at is None else opened_at, reason)
        else:
            self.open[watcher, trouble] = replace(known, reason=reason, count=known.count + again, clear_since=None)


def _trouble_of(event: str, data: Mapping[str, Any]) -> Trouble | None:
    if event == "restart" and data.get("poison"):
        return Trouble.POISON
    if event == "restart" and data.get("cause") != "commanded":
        is_loop = isinstance(failures := data.get("failures"), int) and failures >= LOOP_FAILURES
        return Trouble.CRASH_LOOP if is_loop else Trouble.RESTART
    return _TROUBLES.get(event)


def _shown(view: WatcherEntry) -> dict[Trouble, str]:
    """Return the troubles that the state shows, each with its reason."""
    port, found = view["port"], {}
    if port is not None and port["state"] == "refused":
        found[Trouble.PORT_REFUSED] = reason_in(port) or Say.PORT_IS_HELD()
    if port is not None and port["state"] == "bound" and port["reason"]:
        found[Trouble.PORT_SHARED] = reason_in(port)
    if (troubled := next((each for each in view["workers"] if each["health"] in TROUBLED), None)) is not None:
        found[Trouble.UNHEALTHY] = reason_in(troubled) or state_named(troubled["health"])
    if (output := view["output"]) is not None and output["reason"]:
        found[Trouble.OUTPUT_LOST] = reason_in(output)
    if (poison := view["poison"]) is not None:
        found[Trouble.POISON] = reason_in(poison)
    if view["cooldown_until"] is not None:
        found[Trouble.CRASH_LOOP] = reason_in(view, "last_reason") or Say.WAITING_COOLING()
    if _is_down(view):
        where, name = (view["verdict"], "cause") if _is_scaled_to_zero(view) else (view, "last_reason")
        found[Trouble.DOWN] = reason_in(where, name)
    return found


def _is_overloaded(worker: WorkerEntry) -> bool:
    """Return whether a worker is overloaded; how long it has to be before that is a trouble, its event decides."""
    reason = reason_in(worker)
    found = reason.fields.get("found") if isinstance(reason, Reason) and reason.key == Say.FOUND.name else reason
    return worker["health"] == "busy" and isinstance(found, str) and key_of(found) == Say.FOUND_OVERLOADED.name


def _holds(trouble: Trouble, view: WatcherEntry) -> bool:
    """Return whether the state still shows the trouble."""
    if trouble is Trouble.DOWN:
        # A start after a deploy is no recovery yet.
        return _is_down(view) or (view["verdict"]["word"] == "deploying" and not serving(view))
    if trouble is Trouble.PORT_REFUSED:
        return view["port"] is not None and view["port"]["state"] not in ("bound", "none")
    if trouble is Trouble.UNHEALTHY and any(map(_is_overloaded, view["workers"])):
        return True
    if trouble not in (Trouble.RESTART, Trouble.CRASH_LOOP, Trouble.UNHEALTHY):
        return trouble in _shown(view)
    if serving(view) < view["numprocesses"]:  # the successor of an unhealthy one may not come up
        return True
    if trouble is Trouble.UNHEALTHY:
        return trouble in _shown(view)
    if trouble is Trouble.RESTART:
        return False
    held = float(view["options"].get("restart.reset_after") or 0)
    up_for = [worker["ready_for"] for worker in view["workers"] if worker["ready_for"] is not None]
    return view["cooldown_until"] is not None or any(each < held for each in up_for)


def _given_up(incident: Incident, view: WatcherEntry | None, *, for_good: bool) -> str:
    """Return why the watcher is stopped on purpose, "" while it is not. *for_good*: by an operator."""
    if incident.watcher == CIRCUSD and incident.trouble in (Trouble.SILENT, Trouble.LOST):
        return ""
    if view is None:
        return Say.NO_SUCH_WATCHER()
    if _is_scaled_to_zero(view) and incident.trouble is not Trouble.DOWN:
        return Say.NONE_WANTED_NOW()
    # The restart limiter stops an unarmed watcher in a crash loop as well, for its cooldown.
    is_limited = incident.trouble is Trouble.CRASH_LOOP and not view["armed"] and not for_good
    is_stopped = view["status"] == "stopped" and view["verdict"]["word"] == "stopped"
    return Say.WATCHER_STOPPED() if is_stopped and not is_limited else ""


def _is_down(view: WatcherEntry) -> bool:
    """Return whether no worker is up; False for an unarmed watcher, which may start on demand."""
    return view["armed"] and (Word(view["verdict"]["word"]).is_outage or _is_scaled_to_zero(view))


def _is_scaled_to_zero(view: WatcherEntry) -> bool:
    """Return whether an operator has scaled an active armed watcher to zero."""
    return view["armed"] and is_scaled_to_zero(view)
