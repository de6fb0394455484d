"""Whether circusd runs and answers, and how its watchers are."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from circus.util import to_bool

from xboard_circus.core.states import nobody_wanted
from xboard_circus.doctor.case import Case
from xboard_circus.doctor.diagnosis import Diagnosis, bad, good, warning
from xboard_circus.host import listeners
from xboard_circus.instance import Instance
from xboard_circus.snapshot import Snapshot, Watcher

TOPIC = "circusd"
HELPER_PREFIX = "plugin:"


def look(case: Case) -> Iterator[Diagnosis]:
    """Yield a line for circusd, for each watcher of the ini, and for what an earlier circusd left running."""
    left = listeners.orphans(case.instance_id)
    if left:
        pids = ", ".join(str(holder.pid) for holder in left)
        what = f"{len(left)} processes of an earlier circusd still run: pid {pids}"
        yield bad(TOPIC, what, "`xboard-circus clean` ends them, and so does the next start")
    if case.instance is None:
        return
    if case.snapshot is None:
        if case.circusd is not None:
            yield bad(TOPIC, case.trouble, "`xboard-circus restart` ends it and starts another")
        elif case.trouble:
            yield bad(TOPIC, case.trouble, "")
        else:
            yield bad(TOPIC, f"circusd of {case.config_file} does not run", "`xboard-circus start` starts it")
        return
    circusd = case.snapshot.circusd
    yield good(TOPIC, f"runs, pid {circusd.pid}, and answers at {circusd.endpoint}")
    yield from watchers(case.snapshot, _off(case.instance))


def _off(instance: Instance) -> set[str]:
    """Return the watchers that the ini leaves for somebody to start, in small letters as circusd has them."""
    return {
        watcher.name.lower()
        for watcher in instance.config.watchers
        if not to_bool(watcher.given.get("autostart", "True"))
    }


def watchers(snapshot: Snapshot, off: Collection[str] = ()) -> Iterator[Diagnosis]:
    """Yield how each watcher is, and of a plugin only where it does not run; *off*: who is not started by itself."""
    for watcher in snapshot.watchers:
        if not watcher.name.startswith(HELPER_PREFIX):
            yield of_watcher(watcher, is_off=watcher.name.lower() in off)
        elif watcher.status != "active" or watcher.wants_nobody:
            how = "incr" if watcher.wants_nobody else "start"
            state = "has no process" if watcher.wants_nobody else f"is {watcher.status}"
            hint = f"`circusctl {how} {watcher.name}` starts it; look into its log first"
            yield bad(TOPIC, f"{watcher.name} {state}: hung workers are not noticed", hint)


def of_watcher(watcher: Watcher, *, is_off: bool = False) -> Diagnosis:
    """Return how one watcher is; *is_off*: circusd does not start it by itself."""
    serving = f"{watcher.name}: {watcher.serving} of {watcher.numprocesses} workers ready"
    reason = f": {watcher.last_reason}" if watcher.last_reason else ""
    if watcher.status == "stopped" and is_off:
        return good(TOPIC, f"{watcher.name} is off: its section says autostart = False")
    if watcher.status == "stopped":
        return bad(TOPIC, f"{watcher.name} is stopped", f"`circusctl start {watcher.name}` starts it")
    if watcher.wants_nobody:
        what, _, hint = nobody_wanted(watcher.name).partition(": ")
        return bad(TOPIC, f"{watcher.name}: {what}", hint)
    if watcher.cooldown_until is not None:
        left = f"{watcher.cooldown_until:.0f} s"
        hint = f"mend that, then `xboard-circus restart {watcher.name}`; else the next try is in {left}"
        return bad(TOPIC, f"{serving}, it fails again and again and cools down{reason}", hint)
    if not watcher.armed:
        return good(TOPIC, f"{watcher.name}: {watcher.status}, without a guard of ours")
    if watcher.serving == 0 < watcher.numprocesses:
        return bad(TOPIC, f"{serving}{reason}", f"`xboard-circus logs {watcher.name}` tells more")
    if watcher.serving < watcher.numprocesses:
        return warning(TOPIC, f"{serving}{reason}", "look again in a moment")
    return good(TOPIC, serving)
