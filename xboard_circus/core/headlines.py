"""Say in one line for each trouble what is wrong, since when, why, what comes next and what to do.

The page, the terminal and an alert begin with these lines. All of it is in the state; nothing here reads a clock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypedDict

from xboard_circus.core.durations import roughly, span
from xboard_circus.core.history import WHOLE_WATCHER, Figures, shown
from xboard_circus.core.names import is_backend, is_helper
from xboard_circus.core.reason import Reason, key_of, reason_in, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import ReloadEntry, VerdictEntry, WatcherEntry
from xboard_circus.core.verdict import Word, held_by_budget, serving

Aged = Callable[[float], str]
_NAMED = (
    *(Say.VERDICT_OK, Say.VERDICT_DEGRADED, Say.VERDICT_DOWN, Say.VERDICT_LOOPING, Say.VERDICT_BLOCKED),
    *(Say.VERDICT_DEPENDENCY, Say.VERDICT_DEPLOYING, Say.VERDICT_RELOAD_FAILED, Say.VERDICT_CIRCUSD_LOST),
)
VERDICTS = {each.name.removeprefix("VERDICT_").lower(): each for each in _NAMED}
VERDICTS |= {"unknown": Say.FACT_UNKNOWN, "stopped": Say.STATE_STOPPED, "nothing_serves": Say.STATE_STOPPED}
"""The words of verdicts, and of what is shown in place of one."""

OF_WORKERS_THAT_WERE_UP = {
    each.name
    for each in (Say.POISON, Say.KILLED, Say.KILLED_PERHAPS_OOM, Say.OOM_KILLED, Say.DIED, Say.EXITED, Say.HUNG)
}
"""Reasons of a crash loop that are of no start."""

FAILED_RELOAD = 3600.0
"""Seconds for which a reload that failed is news."""


class Headline(TypedDict, total=False):
    """One line: *lines* are its sentences, each as `with_say` gives it, the most important first.

    Attributes:
        word: A verdict, "nothing_serves" where all backends are stopped, "reload_failed", "circusd_lost" for a circusd
            that does not answer, or "ok" where all is well.
        watcher: "" for all of them.
        slot: The held worker that is tried next, and can be started now, as others that are held.
        command: What to run, where that is the cure or names what has to be stopped.
    """

    word: str
    watcher: str
    lines: list[dict[str, Any]]
    slot: int | None
    command: str


class Recent(TypedDict):
    """What the history and the ledger add: by watcher the requests a second and the p95, where they are known."""

    watchers: Mapping[str, tuple[float, float | None]]
    trouble_age: float | None


def recent_of(figures: Mapping[str, Mapping[int, Figures]], trouble_age: float | None) -> Recent:
    """Return that by the last *figures* of each watcher."""
    known = {name: shown(slots[WHOLE_WATCHER]) for name, slots in figures.items() if WHOLE_WATCHER in slots}
    traffic = {name: (each["requests"] or 0.0, each["p95"]) for name, each in known.items()}
    return {"watchers": traffic, "trouble_age": trouble_age}


def headlines(
    watchers: Sequence[WatcherEntry], *, aged: Callable[..., str], elapsed: float = 0.0, traffic: Recent | None = None
) -> list[Headline]:
    """Return a line for each watcher with news, the worst first; that all is well before those that are just stopped.

    Args:
        aged: What is said of a trouble so many seconds old, by HEAD_SINCE or another sentence with its fields.
        elapsed: Seconds since circusd gave this state.
    """
    backends = list(filter(is_backend, watchers))
    is_out = all(each["verdict"]["word"] == Word.STOPPED.value for each in backends)
    of_each = (_of_watcher(each, elapsed, aged, is_out=is_out and each in backends) for each in watchers)
    found = sorted(chain.from_iterable(of_each), key=lambda pair: -pair[0])
    is_news = any(rank is not Word.STOPPED.rank for rank, _ in found)
    return [*([] if is_news else [_fine(watchers, traffic)]), *(line for _, line in found)]


def headline_of(watcher: WatcherEntry, elapsed: float = 0.0, aged: Aged = span) -> str:
    """Return what is wrong with a watcher, and since when."""
    verdict, incident = watcher["verdict"], watcher["incident"]
    is_outage = Word(verdict["word"]).is_outage
    say = Say.HEAD_DOWN if is_outage else VERDICTS[verdict["word"]]
    age = aged((verdict["since"] if is_outage or incident is None else incident["age"]) + elapsed)
    n, total = serving(watcher), watcher["numprocesses"]
    return Say.HEAD_TROUBLE(verdict=say(), age=age, watcher=watcher["name"], n=n, total=total)


def lines_of(watcher: WatcherEntry, elapsed: float = 0.0, aged: Aged = span) -> list[str]:
    """Return what is wrong with a watcher and since when, why, what is next and what to do."""
    return [headline_of(watcher, elapsed, aged), *_explained(watcher["verdict"], elapsed)]


def is_troubled(watcher: WatcherEntry) -> bool:
    """Return whether a person should look at a watcher; of one that is not armed no incident is known."""
    return watcher["incident"] is not None


def has_failed_lately(reload: ReloadEntry, elapsed: float = 0.0) -> bool:
    """Return whether a reload is news because it failed: not once the last worker of the code before it has ended."""
    return reload["state"] == "failed" and reload["old"] > 0 and (reload["age"] or 0.0) + elapsed < FAILED_RELOAD


class Answering(NamedTuple):
    """What a port answers without its circusd.

    Attributes:
        alive: How many of its workers are alive; 0 where nothing answers.
        status: What its live path answers; 200 where it has none.
    """

    port: int
    alive: int
    status: int = 200


def gone(
    *, age: float | None, why: str, is_dead: bool | None, serving_on: Sequence[Answering] | None, aged: Aged = span
) -> Headline:
    """Return the line on a circusd that does not answer.

    Args:
        age: Seconds since its last answer.
        is_dead: Its process has ended; None where that is not known, as on another host.
        serving_on: Its ports, as far as they were asked; None where none may be.
    """
    say = Say.GONE_NEVER if age is None else Say.GONE if is_dead else Say.GONE_SILENT
    lines = [say(age=aged(age or 0.0), why=why)]
    answering = [each for each in serving_on or () if each.alive]
    if is_dead and serving_on is not None and not answering:
        lines.append(Say.GONE_ALL())
    elif mute := [f":{each.port}" for each in serving_on or () if not each.alive]:
        lines.append(Say.GONE_MUTE(ports=", ".join(mute)))
    for port, alive, status in answering:
        lines.append((Say.GONE_FAILS if status >= 500 else Say.GONE_SERVES)(n=alive, port=port, status=status))
    # A restart kills one that is silent, and its workers serve on.
    command = f"xboard-circus {'doctor' if is_dead is None else 'start' if is_dead else 'restart'}"
    lines.append(Say.HEAD_RUN(command=command))
    return circusd_line(lines, command=command)


def circusd_line(lines: Sequence[str], *, command: str = "") -> Headline:
    """Return the line on a circusd that does not run, or does not answer."""
    return _headline("circusd_lost", lines, command=command)


def _of_watcher(
    watcher: WatcherEntry, elapsed: float, aged: Callable[..., str], *, is_out: bool
) -> Iterator[tuple[int, Headline]]:
    verdict, reload = watcher["verdict"], watcher["reload"]
    word = Word(verdict["word"])
    if is_troubled(watcher) or (word is Word.DEPLOYING and not watcher["is_page"]):
        lines = lines_of(watcher, elapsed, aged)
        cure = reason_in(verdict, "cure")
        command = str(cure.fields.get("command", "")) if isinstance(cure, Reason) else ""
        yield word.rank, _headline(word.value, lines, watcher, command=command)
    elif is_out:
        cause, stopped_for = reason_in(verdict, "cause"), verdict["since"] + elapsed
        if by := cause.fields.get("by") if isinstance(cause, Reason) else None:
            head = Say.HEAD_NOTHING_SERVES_BY(watcher=watcher["name"], age=aged(stopped_for, Say.HEAD_BEGUN), by=by)
        else:
            head = Say.HEAD_NOTHING_SERVES(watcher=watcher["name"], age=aged(stopped_for))
        yield Word.DOWN.rank + 1, _headline("nothing_serves", [head, *_explained(verdict, elapsed)], watcher)
    elif word is Word.STOPPED and not is_helper(watcher["name"]):
        head = Say.HEAD_STOPPED(watcher=watcher["name"], age=aged(verdict["since"] + elapsed))
        yield word.rank, _headline(word.value, [head, *_explained(verdict, elapsed)], watcher)
    elif reload is not None and has_failed_lately(reload, elapsed):
        age, up = aged((reload["age"] or 0.0) + elapsed, Say.HEAD_BEGUN), serving(watcher)
        say = Say.HEAD_RELOAD_FAILED if reload["old"] >= up else Say.HEAD_RELOAD_FAILED_MIXED
        more = {"old": reload["old"], "total": up}
        head = say(watcher=watcher["name"], age=age, n=len(reload["replaced"]), **more)
        cure = Say.HEAD_DO(cure=Say.CURE_RELOAD(watcher=watcher["name"]))
        lines = [head, Say.HEAD_WHY(why=reason_in(reload)), Say.HEAD_NEXT(next=Say.NEXT_NOTHING()), cure]
        yield Word.UNKNOWN.rank, _headline("reload_failed", lines, watcher)


def _headline(word: str, lines: Sequence[str], watcher: WatcherEntry | None = None, *, command: str = "") -> Headline:
    held = [] if watcher is None else held_by_budget(watcher["workers"])
    name = "" if watcher is None else watcher["name"]
    slot = held[0]["slot"] if held else None
    return {"word": word, "watcher": name, "lines": list(map(with_say, lines)), "slot": slot, "command": command}


def _explained(verdict: VerdictEntry, elapsed: float) -> Iterator[str]:
    """Yield why, what is next and what to do; without how many are up, which the line has already.

    It does not have that workers of an earlier circusd serve.
    """
    cause, next_, cure = (reason_in(verdict, name) for name in ("cause", "next", "cure"))
    why: str = cause
    if isinstance(cause, Reason) and cause.key not in ("PREDECESSORS_SERVE", "SAID", "SAID_BY"):
        why = cause.fields.get("why", "")
    cure = cure or (cause.fields.get("cure", "") if isinstance(cause, Reason) else "")
    if why or verdict["word"] == "deploying":
        fails = verdict["word"] == "looping" and key_of(why) not in OF_WORKERS_THAT_WERE_UP
        yield (Say.HEAD_FAILS if fails else Say.HEAD_WHY)(why=why or cause)
    if next_ and verdict["next_in"] is not None:
        wait = verdict["next_in"] - elapsed
        yield Say.HEAD_NEXT_AT_ONCE(next=next_) if wait < 1 else Say.HEAD_NEXT_IN(next=next_, wait=span(wait))
    elif next_:
        yield Say.HEAD_NEXT(next=next_)
    if cure:
        yield Say.HEAD_DO(cure=cure)


def _fine(watchers: Sequence[WatcherEntry], traffic: Recent | None) -> Headline:
    running = [each for each in watchers if is_backend(each) and each["verdict"]["word"] != Word.STOPPED.value]
    workers = sum(map(serving, running))
    facts = [
        Say.FINE_BACKEND() if len(running) == 1 else Say.FINE_BACKENDS(n=len(running)),
        Say.FINE_WORKER() if workers == 1 else Say.FINE_WORKERS(n=workers),
    ]
    if traffic is not None:
        known = [figures for each in running if (figures := traffic["watchers"].get(each["name"])) is not None]
        p95 = max((each for _, each in known if each is not None), default=None)
        facts += [Say.FINE_RATE(n=rate_text(sum(rate for rate, _ in known)))] if known else []
        facts += [] if p95 is None else [Say.FINE_P95(value=latency_text(p95))]
        age = traffic["trouble_age"]
        facts.append(Say.FINE_NO_TROUBLE() if age is None else Say.FINE_TROUBLE(age=roughly(age)))
    return _headline("ok", [Say.HEAD_FINE(facts=facts)])


def rate_text(value: float) -> str:
    """Format requests a second.

    >>> rate_text(0.0), rate_text(0.52), rate_text(41.3)
    ('0', '0.5', '41')
    """
    return f"{value:.0f}" if value >= 10 or not value else f"{value:.1f}"


def latency_text(seconds: float) -> str:
    """Format a latency.

    >>> latency_text(0.0123), latency_text(2.5)
    ('12 ms', '2.5 s')
    """
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
