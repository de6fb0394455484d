"""Examine whether circusd runs and answers, and how its watchers are."""

from collections.abc import Collection, Iterator

from xboard_circus.checks.findings import Finding, bad, good, warning
from xboard_circus.core.names import is_helper
from xboard_circus.core.verdict import Word, headline
from xboard_circus.doctor.case import Case
from xboard_circus.host import listeners
from xboard_circus.snapshot import Snapshot, Watcher


def look(case: Case) -> Iterator[Finding]:
    """Yield a line for circusd, for each watcher of the ini, and for what an earlier circusd left running."""
    left = listeners.orphans(case.instance_id)
    if left:
        pids = ", ".join(str(holder.pid) for holder in left)
        what = f"{len(left)} processes of an earlier circusd still run: pid {pids}"
        yield bad(what, "`xboard-circus clean` ends them, and so does the next start")
    if case.instance is None:
        return
    if case.snapshot is None:
        if case.circusd is not None:
            yield bad(case.trouble, "`xboard-circus restart` ends it and starts another")
        elif case.trouble:
            yield bad(case.trouble, "")
        else:
            yield bad(f"circusd of {case.config_file} does not run", "`xboard-circus start` starts it")
        return
    circusd = case.snapshot.circusd
    yield good(f"runs, pid {circusd.pid}, and answers at {circusd.endpoint}")
    # In lower case, as in circusd.
    off = {watcher.name.lower() for watcher in case.instance.config.watchers if not watcher.autostart}
    yield from watchers(case.snapshot, off)


def watchers(snapshot: Snapshot, off: Collection[str] = ()) -> Iterator[Finding]:
    """Yield how each watcher is, and of a plugin only where it does not run; *off*: watchers with autostart off."""
    for watcher in snapshot.watchers:
        if not is_helper(watcher.name):
            yield of_watcher(watcher, is_off=watcher.name.lower() in off)
        elif watcher.status != "active" or watcher.wants_nobody:
            how = "incr" if watcher.wants_nobody else "start"
            state = "has no process" if watcher.wants_nobody else f"is {watcher.status}"
            hint = f"`circusctl {how} {watcher.name}` starts it; look into its log first"
            yield bad(f"{watcher.name} {state}: hung workers are not noticed", hint)


def of_watcher(watcher: Watcher, *, is_off: bool = False) -> Finding:
    """Return how one watcher is; *is_off*: circusd does not start it by itself."""
    verdict = watcher.verdict
    word = Word(verdict["word"])
    if word is Word.STOPPED and is_off:
        return good(f"{watcher.name} is off: its section says autostart = False")
    what = f"{watcher.name}: {headline(verdict)}"
    if word in (Word.OK, Word.DEPLOYING):
        return good(what if watcher.armed else f"{watcher.name}: {watcher.status}, without a guard of ours")
    if not watcher.armed and word is Word.UNKNOWN:
        return good(f"{watcher.name}: {watcher.status}, without a guard of ours")
    hint = verdict["cure"] or "look again in a moment"
    make = bad if word.is_outage or word is Word.STOPPED or watcher.cooldown_until is not None else warning
    return make(what, hint)
