"""Explain a record: what happened, when, why, the evidence, the sender of the order, and what came next.

Pure: the records come in, the text goes out. What processes wrote is shown as text, made harmless line by line.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from xboard_circus.core import in_flight
from xboard_circus.core.causes import Cause
from xboard_circus.core.durations import lasted, seconds
from xboard_circus.core.frames import folded
from xboard_circus.core.lost import LOST
from xboard_circus.core.reason import key_of, one_line, reason_in
from xboard_circus.core.sentences import Say, as_said
from xboard_circus.ledger.event_text import Told
from xboard_circus.ledger.record import Record
from xboard_circus.ledger.story import DEATHS, death_of, followers, is_of_the_past, successor

LOG_LINES, LONGEST_LINE = 12, 500
WHO = {"probe": Told.BY_PROBE, "recycle": Told.BY_RECYCLE, "reload": Told.BY_RELOAD}
WHO["health.startup_timeout"] = Told.BY_STARTUP_TIMEOUT
REPLACED = frozenset({Say.THEN_REPLACED.name, Say.THEN_USED_UP_REPLACED.name})
CAUSES = {each.value: each.name for each in Cause}


class Story(NamedTuple):
    """The parts of ``why``: *facts* are (title, sentence), *blocks* (title, lines); a sentence may be a `Reason`."""

    headline: str
    facts: list[tuple[str, str]]
    blocks: list[tuple[str, list[str]]]


def story_of(record: Record, history: Sequence[Record], *, now: float) -> Story:
    """Return the parts of ``why`` for *record*.

    Args:
        history: Records around it, in the order in which they were stored, for what came next.
        now: By the wall clock, for how long ago it was.
    """
    when_ago = Told.WHEN_AGO(moment=when(record.time), age=lasted(now - record.time))
    return Story(_headline(record), [("when", when_ago), *_facts(record, history)], list(_blocks(record.data)))


def text_of(story: Story) -> str:
    """Return a story as the command line prints it."""
    lines = [story.headline]
    lines += [f"  {title + ':':<9} {text}" for title, text in story.facts]
    for title, block in story.blocks:
        lines += [f"  {title}:", *(f"    {line}" for line in block)]
    return "\n".join(lines)


def when(time: float) -> str:
    """Return a wall-clock time in the zone of this host."""
    return datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def _headline(record: Record) -> str:
    reason = one_line(record.reason) or _cause_named(record.cause)
    ended = _with_end(record.data, of_signal=Told.NO_REASON_SIGNAL, of_code=Told.NO_REASON_CODE)
    reason = reason or ended or Told.NO_REASON()
    watcher = one_line(record.watcher)
    if record.kind in DEATHS:
        ending = Told[f"ENDING_{CAUSES.get(record.cause or '', 'UNKNOWN')}"]
        return Told.HEADLINE_OF_END(who=_of_whom(record, watcher), ending=ending(), why=reason)
    happened = _sentence("WHAT", record.kind)
    what = happened(watcher=watcher) if happened is not None else f"{watcher}: {named(record.kind.replace('_', ' '))}"
    return Told.HEADLINE(what=what, why=reason)


def _of_whom(record: Record, watcher: str) -> str:
    slot = record.data.get("slot")  # the number that people see; Circus's own is another after each reload
    if (number := slot if isinstance(slot, int) and slot > 0 else record.wid) is None:
        say = Told.WHO_PROCESS if record.pid is None else Told.WHO_PROCESS_PID
    else:
        say = Told.WHO_WORKER if record.pid is None else Told.WHO_WORKER_PID
    return say(watcher=watcher, n=number, pid=record.pid)


def _with_end(data: Mapping[str, Any], *, of_signal: Told, of_code: Told, **fields: str) -> str:
    """Return the sentence with the signal or the exit code of an end; "" where neither is known."""
    if data.get("signal"):
        return of_signal(signal=data["signal"], **fields)
    return of_code(code=data["exit_code"], **fields) if isinstance(data.get("exit_code"), int) else ""


def _facts(record: Record, history: Sequence[Record]) -> Iterator[tuple[str, str]]:
    data = record.data
    if record.cause:
        named = _cause_named(record.cause)
        yield "cause", _with_end(data, of_signal=Told.WITH_SIGNAL, of_code=Told.WITH_CODE, cause=named) or named
    if who := _who(record):
        yield "asked by", who
    if isinstance(data.get("lived"), (int, float)):
        ready, age = data.get("ready_for"), lasted(data["lived"])
        if isinstance(ready, (int, float)):
            yield "lived", Told.LIVED(age=age, held=lasted(ready))
        else:
            yield "lived", Told.LIVED_UNREADY(age=age)
    if isinstance(data.get("rss"), int):
        yield "memory", Told.MEMORY(mib=f"{data['rss'] / 2**20:.0f}")
    if requests := in_flight.sentence(data):
        yield "requests", requests
    if record.cause == Cause.OUT_OF_MEMORY.value:
        same = [each for each in history if each.cause == record.cause and each.kind in DEATHS]
        if common := in_flight.in_common([each.data for each in same if (each.id or 0) <= (record.id or 0)]):
            yield "requests", common
    if isinstance(budget := data.get("budget"), Mapping):
        before, after, limit = (budget.get(name) for name in ("before", "after", "limit"))
        yield "budget", (Told.BUDGET if before != after else Told.BUDGET_KEPT)(before=before, n=after, total=limit)
    if not record.stored:
        yield "ledger", Told.NOT_STORED()
    yield from (("next", text) for text in _next(record, history))


def named(text: str) -> str:
    """Return the name of a kind or a cause, in quotes where it has more than words: a row may have anything there."""
    return text if text.replace(" ", "_").isidentifier() else as_said(text)


def _cause_named(cause: str | None) -> str:
    name = CAUSES.get(cause or "", "")
    sentence = _sentence("CAUSE", name) or _sentence("ENDING", name)
    return sentence() if sentence else named(one_line(cause or ""))


def _sentence(what: str, name: str) -> Told | None:
    return Told.__members__.get(f"{what}_{name.upper()}")


def _who(record: Record) -> str:
    if by := reason_in(record.data, "by"):
        return WHO[by]() if by in WHO else by
    if record.cause in ("killed from outside", "out of memory"):
        return Told.BY_OUTSIDER()
    # A command's end without an asker is by a signal, which the reason names.
    return Told.BY_NOBODY() if record.kind in DEATHS and record.cause != Cause.COMMANDED.value else ""


def _next(record: Record, history: Sequence[Record]) -> Iterator[str]:
    if record.kind not in DEATHS | {"unhealthy", LOST}:
        return
    found = successor(record, history) if record.kind in DEATHS else None
    is_filled = found is not None and found.kind == "ready" and found.time < record.time  # so that no start is tried
    planned = reason_in(record.data, "next")
    if not is_filled and planned:
        wait = record.data.get("wait")
        at = when(record.time + wait).split()[1] if isinstance(wait, (int, float)) and wait >= 1 else ""
        yield Told.PLANNED(planned=planned, at=at) if at else planned
    for other in followers(record, history):
        if other.kind == "cooldown" and "wait" in record.data:
            continue  # as decided with its end
        later = lasted(other.time - record.time)
        kind = _sentence("KIND", other.kind)
        yield Told.LATER(after=later, kind=kind() if kind else other.kind, why=other.reason)
    if record.kind == LOST and not followers(record, history) and "successor" not in record.data:
        yield Told.NO_CIRCUSD_YET()
    if record.kind not in DEATHS:
        return
    if found is not None:
        yield from _succession(record, found, history)
    elif record.kind != "restart" or record.data.get("surplus"):
        yield Told.NO_SUCCESSOR()
    elif not is_of_the_past(record, history) and key_of(planned) not in REPLACED:
        yield Told.NO_SUCCESSOR_YET()


def _succession(record: Record, found: Record, history: Sequence[Record]) -> Iterator[str]:
    after = found.time - record.time
    end = death_of(found.pid, found, history)
    if found.kind == "spawn" or (end is not None and end is found):
        yield (Told.SUCCESSOR_STARTED if found.kind == "spawn" else Told.SUCCESSOR)(pid=found.pid)
    else:
        say = Told.SUCCESSOR_READY_LATER if after >= 0 else Told.SUCCESSOR_READY_BEFORE
        yield say(pid=found.pid, after=lasted(abs(after)))
    if end is not None:
        yield Told.SUCCESSOR_ENDED(pid=end.pid, after=lasted(end.time - record.time), why=end.reason)


def _blocks(data: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    if isinstance(probes := data.get("probes"), list) and probes:
        yield "last probes", [_probe(probe) for probe in probes if isinstance(probe, Mapping)]
    if len(requests := in_flight.requests_in(data)) > 1:
        yield "requests in flight", [in_flight.named(each) for each in requests]
    stack = _lines(data.get("stack"))
    log = _lines(data.get("log"))
    while log and log[-1] in stack:  # its begin is in none of the last lines where it is long
        log.pop()
    if log:
        yield "last lines of its log", log[-LOG_LINES:]
    if stack:
        yield "its stacks when it was ended", folded(stack)
    if native := _lines(data.get("native")):
        yield "its native frames before that", native


def _probe(probe: Mapping[str, Any]) -> str:
    age, ok = probe.get("age"), probe.get("ok")
    facts: list[str] = [Told.FACT_NOT_JUDGED() if ok is None else Told.FACT_OK() if ok else Told.FACT_FAILED()]
    if isinstance(probe.get("latency"), (int, float)):
        facts.append(f"{probe['latency'] * 1000:.1f} ms")
    if probe.get("reason"):
        facts.append(reason_in(probe))
    if probe.get("body"):
        facts.append(Told.FACT_BODY(body=repr(one_line(str(probe["body"])))))
    if not isinstance(age, (int, float)):
        return Told.PROBED_BEFORE(facts=facts)
    return Told.PROBED(age=seconds(age), facts=facts)


def _lines(text: object) -> list[str]:
    """Return the lines of a log, none of which can move a cursor; they keep their indentation."""
    if not isinstance(text, str):
        return []
    lines = (line[:LONGEST_LINE].replace("\t", "    ").rstrip() for line in text.splitlines())
    return ["".join(char if char.isprintable() else " " for char in line) for line in lines if line]
