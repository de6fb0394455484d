"""Build the state of an unarmed watcher: the same keys as of an armed one, most of them empty.

Such watchers stand beside armed ones in circusd's answer, and alone where circusd has no armed watcher and only
Circus's own commands report it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import State, WatcherEntry, WorkerEntry, parse_state, watcher_entry, worker_entry
from xboard_circus.core.verdict import Word, beside_predecessors, judge, verdict_entry

Replies = Mapping[str, Mapping[str, Any]]
StartTime = Callable[[int], int | None]


def unarmed_watcher(*, options: Mapping[str, object], last_reason: str = "", **known: object) -> WatcherEntry:
    """Return the entry of a watcher; *options* are Circus's, of which only plain values are passed on."""
    plain = {key: value for key, value in options.items() if isinstance(value, (str, int, float))}
    found = watcher_entry(options=plain, **known, **with_say(last_reason, "last_reason"))
    return {**found, "verdict": judge(found)}


def uncreated_watcher(*, name: str, numprocesses: int, why: str, predecessors: int, since: float) -> WatcherEntry:
    """Return the entry of a watcher that Circus could not create, *since* seconds ago; *predecessors* of an earlier
    circusd may serve on.

    It counts as armed, because what is armed gets alerts and a line of its own.
    """
    cause = Say.NOT_CREATED(why=why)
    more = {"status": "stopped", "numprocesses": numprocesses, "workers": [], **with_say(cause, "last_reason")}
    found = watcher_entry(name=name, armed=True, **more)
    verdict = beside_predecessors(verdict_entry(Word.BLOCKED, cause, cure=Say.CURE_NOT_CREATED()), name, predecessors)
    return {**found, "verdict": {**verdict, "since": since}, "incident": {"age": since, "worst": verdict["word"]}}


def unarmed_worker(*, pid: int, started: int | None, wid: int | None, leaves: bool, age: float | None) -> WorkerEntry:
    """Return the entry of one of its processes, which is not probed; *age* is in seconds."""
    return worker_entry(pid=pid, started=started, wid=wid, slot=wid or 0, phase="leaving" if leaves else "up", age=age)


def stock_state(
    circusd: Mapping[str, Any], statuses: Mapping[str, str], infos: Replies, options: Replies, start_time: StartTime
) -> State:
    """Build the state of a circusd that has only Circus's own commands, from its replies to them."""
    watchers = []
    for name, status in sorted(statuses.items()):
        workers = [_stock_worker(int(pid), info, start_time) for pid, info in infos.get(name, {}).items()]
        more = {"numprocesses": options[name].get("numprocesses", 0), "workers": workers}
        watchers.append(unarmed_watcher(name=name, status=status, options=options[name], **more))
    return parse_state({"circusd": circusd, "watchers": watchers})


def _stock_worker(pid: int, info: Mapping[str, Any] | str, start_time: StartTime) -> WorkerEntry:
    # For a process that has just ended, Circus returns a sentence instead of the figures.
    figures = info if isinstance(info, Mapping) else {}
    return unarmed_worker(
        pid=pid, started=start_time(pid), wid=figures.get("wid"), leaves=not figures, age=figures.get("age")
    )
