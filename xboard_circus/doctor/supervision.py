"""Examine whether circusd runs and answers, and the state of its watchers."""

from collections.abc import Collection, Iterable, Iterator

from xboard_circus.checks.findings import Finding, bad, good, warning
from xboard_circus.core.names import is_helper
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.core.verdict import Word, headline, is_scaled_to_zero
from xboard_circus.doctor.case import Case
from xboard_circus.host import listeners


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for circusd, for each watcher of the ini, and for what an earlier circusd left running."""
    left = listeners.orphans(case.instance_id)
    if left:
        what = f"still running of an earlier circusd: pid {', '.join(str(holder.pid) for holder in left)}"
        cure = "`xboard-circus start` takes over from workers that serve, and ends them when its own are up"
        if case.snapshot is not None:  # as in each restart; `clean` would end all of the backend
            yield warning(what, "circusd ends them when its own workers are up; until then they serve")
        else:
            yield bad(what, cure)
    if case.instance is None:
        return
    if case.snapshot is None:
        what = case.trouble or f"circusd of {case.config_file} does not run"
        cure = "" if case.trouble else "`xboard-circus start` starts it"
        yield bad(what, cure if case.circusd is None else "`xboard-circus restart` ends it and starts another")
        return
    yield good(f"runs, pid {case.snapshot.circusd['pid']}, and answers at {case.snapshot.circusd['endpoint']}")
    # In lower case, as in circusd.
    off = {watcher.name.lower() for watcher in case.instance.config.watchers if not watcher.autostart}
    yield from watchers(case.snapshot.watchers, off)


def watchers(found: Iterable[WatcherEntry], off: Collection[str] = ()) -> Iterator[Finding]:
    """Yield the state of each watcher, and of each plugin that does not run; *off*: watchers with autostart off."""
    for watcher in found:
        name, has_none = watcher["name"], is_scaled_to_zero(watcher)
        if not is_helper(name):
            yield of_watcher(watcher, is_off=name.lower() in off)
        elif watcher["status"] != "active" or has_none:
            how, state = ("incr", "has no process") if has_none else ("start", f"is {watcher['status']}")
            hint = f"`circusctl {how} {name}` starts it; look into its log first"
            yield bad(f"{name} {state}: hung workers are not noticed", hint)


def of_watcher(watcher: WatcherEntry, *, is_off: bool = False) -> Finding:
    """Return the state of one watcher; *is_off*: circusd does not start it by itself."""
    name, verdict = watcher["name"], watcher["verdict"]
    word = Word(verdict["word"])
    if word is Word.STOPPED and is_off:
        return good(f"{name} is off: its section says autostart = False")
    if not watcher["armed"] and word in (Word.OK, Word.DEPLOYING, Word.UNKNOWN):
        return good(f"{name}: {watcher['status']}, without a guard of ours")
    what = f"{name}: {headline(verdict)}"
    if word in (Word.OK, Word.DEPLOYING):
        return good(what)
    is_bad = word.is_outage or word is Word.STOPPED or watcher["cooldown_until"] is not None
    return (bad if is_bad else warning)(what, verdict["cure"] or "look again in a moment")
