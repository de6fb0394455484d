"""Tell a record as a person would: what happened, when, why, what speaks for it, who asked, and what came next.

Pure: the records come in, the text goes out. What processes wrote is shown as text, made harmless line by line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from xboard_circus.core.lost import BACK, HOST_RESTARTED, LOST
from xboard_circus.core.reasons import one_line, seconds, span
from xboard_circus.ledger.record import Record
from xboard_circus.ledger.story import DEATHS, death_of, followers, successor

LOG_LINES = 12
LONGEST_LINE = 500
WHO = {
    "probe": "our prober found it so, circusd acted",
    "recycle": "the worker's limits in circus.ini (worker.max_rss, max_requests, max_age)",
    "reload": "a rolling reload",
    "health.startup_timeout": "circusd, by health.startup_timeout",
    "handover": "circusd, which took the port over from an earlier one",
}
HAPPENED = {
    "cooldown": "A worker of {watcher} is cooling down",
    "unhealthy": "{watcher} was found unhealthy",
    "recovered": "{watcher} has recovered",
    "port_refused": "The port of {watcher} could not be had",
    "port_freed": "The port of {watcher} was freed",
    "kept": "A worker of {watcher} was to be replaced, and was kept",
    "reload_begin": "A rolling reload of {watcher} began",
    "reload_end": "A rolling reload of {watcher} ended",
    "replace": "A worker of {watcher} is being replaced",
    "reap": "A process of {watcher} ended",
    "command": "Somebody gave {watcher} a command",
    LOST: "{watcher} was lost",
    BACK: "{watcher} is back",
    HOST_RESTARTED: "The host was restarted",
}


def explain(record: Record, history: Sequence[Record] = (), *, now: float | None = None) -> str:
    """Return the text of ``why`` for *record*.

    Args:
        history: Records around it, in the order in which they were stored, for what came next.
        now: By the wall clock, for how long ago it was; without it only the time is told.
    """
    lines = [_headline(record, now)]
    lines += [f"  {title + ':':<9} {text}" for title, text in _facts(record, history)]
    for title, block in _blocks(record.data):
        lines += [f"  {title}:", *(f"    {line}" for line in block)]
    return "\n".join(lines)


def when(time: float) -> str:
    """Return a wall-clock time in the zone of this host."""
    return datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def _span(value: float) -> str:
    """Return a time span as a person says it, short ones with their fraction."""
    return seconds(max(value, 0.0)) if value < 60 else span(value)


def _headline(record: Record, now: float | None) -> str:
    if record.kind in DEATHS:
        who = "A process" if record.wid is None else f"Worker {record.wid}"
        pid = f" (pid {record.pid})" if record.pid is not None else ""
        what = f"{who} of {record.watcher}{pid} {_ended(record)}"
    else:
        what = HAPPENED.get(record.kind, "{watcher}: " + record.kind.replace("_", " ")).format(watcher=record.watcher)
    reason = one_line(record.reason) or record.cause or f"no reason was told{_exit(record.data)}"
    ago = "" if now is None else f", {_span(max(0.0, now - record.time))} ago"
    return f"{one_line(what)}: {reason}\n  when:     {when(record.time)}{ago}"


def _ended(record: Record) -> str:
    verbs = {
        "crash": "crashed",
        "exited": "exited",
        "failed start": "failed to start",
        "cannot be run": "could not be run",
        "port conflict": "could not have its port",
        "killed from outside": "was killed from outside",
        "out of memory": "was killed by the kernel for want of memory",
        "unhealthy": "was replaced",
        "commanded": "was told to end",
    }
    return verbs.get(record.cause or "", "ended")


def _facts(record: Record, history: Sequence[Record]) -> Iterator[tuple[str, str]]:
    data = record.data
    if record.cause:
        yield "cause", f"{record.cause}{_exit(data)}"
    if who := _who(record):
        yield "asked by", who
    if isinstance(data.get("lived"), (int, float)):
        ready = data.get("ready_for")
        served = f", ready for {_span(ready)}" if isinstance(ready, (int, float)) else ", and never was ready"
        yield "lived", f"{_span(data['lived'])}{served}"
    if isinstance(data.get("rss"), int):
        yield "memory", f"{data['rss'] / 2**20:.0f} MiB when last seen"
    if isinstance(budget := data.get("budget"), Mapping):
        before, after, limit = (budget.get(name) for name in ("before", "after", "limit"))
        counted = f"{before} of {limit} failures of all workers before, {after} after"
        yield "budget", counted if before != after else f"{after} of {limit} failures of all workers, without this one"
    yield from (("next", text) for text in _next(record, history))


def _exit(data: Mapping[str, Any]) -> str:
    if data.get("signal"):
        return f" (signal {one_line(str(data['signal']))})"
    return f" (exit code {data['exit_code']})" if isinstance(data.get("exit_code"), int) else ""


def _who(record: Record) -> str:
    by = str(record.data.get("by") or "")
    if by:
        return WHO.get(by, one_line(by))
    if record.cause in ("killed from outside", "out of memory"):
        return "nobody in here: the signal came from outside of circusd"
    return "nobody: it ended by itself" if record.kind in DEATHS else ""


def _next(record: Record, history: Sequence[Record]) -> Iterator[str]:
    if record.kind not in DEATHS | {"unhealthy", LOST}:
        return
    if told := record.data.get("next"):
        yield one_line(str(told))
    for other in followers(record, history):
        later = _span(max(0.0, other.time - record.time))
        yield f"{later} later: {other.kind.replace('_', ' ')}: {one_line(other.reason)}"
    if record.kind == LOST and not followers(record, history) and "successor" not in record.data:
        yield "none has taken its place yet: `xboard-circus start`, unless somebody watches it"
    if record.kind not in DEATHS:
        return
    found = successor(record, history)
    if found is None:
        yield "nothing has taken its place yet" if record.kind == "restart" else "nothing was to take its place"
        return
    after = found.time - record.time
    end = death_of(found.pid, found, history)
    if found.kind == "spawn" or (end is not None and end is found):
        yield (
            f"pid {found.pid} was started in its place" if found.kind == "spawn" else f"pid {found.pid} took its place"
        )
    else:
        yield f"pid {found.pid} took its place and was ready {_span(abs(after))} {'later' if after >= 0 else 'before'}"
    if end is not None:
        yield f"pid {end.pid} ended {_span(max(0.0, end.time - record.time))} later: {one_line(end.reason)}"


def _blocks(data: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    probes = data.get("probes")
    if isinstance(probes, list) and probes:
        yield "last probes", [_probe(probe) for probe in probes if isinstance(probe, Mapping)]
    stack = _lines(data.get("stack"))
    log = _lines(data.get("log"))
    if stack and stack[0] in log:
        log = log[: log.index(stack[0])]
    if log:
        yield "last lines of its log", log[-LOG_LINES:]
    if stack:
        yield "its stacks when it was ended", stack


def _probe(probe: Mapping[str, Any]) -> str:
    age = probe.get("age")
    before = f"{seconds(age)} before" if isinstance(age, (int, float)) else "before"
    ok = probe.get("ok")
    facts = ["not judged" if ok is None else "ok" if ok else "failed"]
    if isinstance(probe.get("latency"), (int, float)):
        facts.append(f"{probe['latency'] * 1000:.1f} ms")
    if probe.get("reason"):
        facts.append(one_line(str(probe["reason"])))
    if probe.get("body"):
        facts.append(f"the answer began {one_line(str(probe['body']))!r}")
    return f"{before}: {', '.join(facts)}"


def _lines(text: object) -> list[str]:
    """Return the lines of a log, none of which can move a cursor; they keep their indentation."""
    if not isinstance(text, str):
        return []
    lines = (line[:LONGEST_LINE].replace("\t", "    ").rstrip() for line in text.splitlines())
    return ["".join(char if char.isprintable() else " " for char in line) for line in lines if line]
