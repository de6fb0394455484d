"""Write the page on verdicts: each case of `core.verdict.judge` with its sentence, the next step and the cure."""

from collections.abc import Iterator, Mapping
from typing import Any

from xboard_circus.core.durations import span
from xboard_circus.core.headlines import VERDICTS, Answering, gone
from xboard_circus.core.reason import data_of, reason_in
from xboard_circus.core.sentences import Say, as_said
from xboard_circus.core.state_schema import watcher_entry, worker_entry
from xboard_circus.core.verdict import Preparation, Word, judge
from xboard_circus.translations import translated

HEADS = {
    "en": ("verdict", "shown as", "cause", "what happens next", "cure"),
    "zh": ("判断", "显示为", "原因", "接下来", "对策"),
}
CRASH = Say.EXITED_STARTING(code=1)
SILENT = Say.HUNG(why=Say.FOUND_SILENCE(times=Say.TIMES_MANY(n=3)))
FAILED = Say.STATUS_SAYING(status=503, why=as_said("database: no answer"))
STRANGER = Say.PORT_HELD(
    holders=Say.HOLDER(facts=[Say.FACT_COMMAND(pid=812, command="nginx")], whose=Say.WHOSE_STRANGER())
)
UP: Mapping[str, Any] = {"phase": "up", "health": "ok", "ready": True, "ready_for": 90.0, "age": 91.0}
HELD: Mapping[str, Any] = {"phase": "held", "held_by": "cooldown", "next_try": 108.0}


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield the word, the cause, what is next and the cure of each case, the worst first."""
    found = [*_of_watchers()]
    order = [word.value for word in reversed(Word)]
    yield from map(_of_circusd, (True, False))
    age = Say.HEAD_BEGUN(age=span(12.0), at="15:04:10")
    out = Say.HEAD_NOTHING_SERVES_BY(watcher="web", age=age, by="xboard-circus stop, user root")
    yield "nothing_serves", out, Say.NEXT_NOTHING(), Say.CURE_START(watcher="web")
    yield from sorted(found, key=lambda row: order.index(row[0]))
    ended = Say.RELOAD_ENDED_SAYING(
        state=Say.STATE_FAILED(), n=0, total=2, why=Say.NOT_IMPORTED(why="ImportError: ...")
    )
    yield "reload_failed", ended, Say.NEXT_NOTHING(), Say.CURE_RELOAD(watcher="web")


def _of_circusd(is_dead: bool) -> tuple[str, str, str, str]:
    line = gone(
        age=60.0, why=Say.FOUND_SILENCE(times=Say.TIMES_MANY(n=3)), is_dead=is_dead, serving_on=[Answering(8000, 2)]
    )
    first, second, *_ = map(reason_in, line["lines"])
    return "circusd_lost", first, second, f"`{line['command']}`"


def _of_watchers() -> Iterator[tuple[str, str, str, str]]:
    bound = {"host": "127.0.0.1", "port": 8000, "state": "bound", "reason": "", "say": None}
    taken = {**bound, "state": "refused", "reason": STRANGER, "say": data_of(STRANGER)}
    facts = [Say.FACT_COMMAND(pid=812, command="nc -l")]
    all_shared = [
        Say.PORT_SHARED(holders=Say.HOLDER(facts=facts, whose=whose))
        for whose in (Say.WHOSE_HEIR(), Say.WHOSE_HANDED(giver="web"))
    ]
    full = Say.DISK_FULL(error="No space left on device", used="20 GiB", size="20 GiB", mount="/srv", free="0 B")
    losses = [Say.OUTPUT_LOST(file="logs/web.log", error=error) for error in (full, "Permission denied")]
    unready = Say.FOUND(found=Say.FOUND_NOT_READY(), why=FAILED)
    ended = Say.POISON(request="POST /report", n=3, held=span(80), id="7f3a")
    poison = {"reason": ended, "say": data_of(ended)}
    looping = {"budget": {"used": 5, "limit": 5}, "last_failure": CRASH}
    yield _row([UP, UP])
    yield _row([], status="stopped")
    yield _row([], numprocesses=0)
    yield _row([{"phase": "starting", "age": 1.0}, UP])
    yield _row([UP, UP], reload={"state": "running", "done": 1, "total": 2, "reason": "", "say": None})
    yield _row([{**UP, "health": "unknown"}] * 2)
    yield _row([{**UP, "health": "hung", "reason": SILENT}, UP])
    yield _row([{**UP, "health": "sick", "reason": Say.SICK(why=FAILED)}], numprocesses=1)
    yield _row([HELD, UP], **looping)
    yield _row([{**UP, "health": "busy", "ready": False, "reason": Say.FOUND_OVERLOADED()}, UP])
    yield _row([{**UP, "ready": False, "reason": unready}, UP])
    refused = Say.FOUND(found=Say.FOUND_NOT_READY(), why=Say.PROBE_REFUSED_PATH(status=404))
    yield _row([{**UP, "ready": False, "reason": refused}, UP])
    yield _row([HELD, UP], poison=poison)
    yield _row([HELD, UP], port=taken, port_retry_in=10.0)
    yield from (_row([UP, UP], port={**bound, "reason": shared, "say": data_of(shared)}) for shared in all_shared)
    for lost in losses:
        yield _row([UP, UP], output={"lost": 9, "file": "logs/web.log", "reason": lost, "say": data_of(lost)})
    yield _row([{**UP, "health": "sick", "reason": Say.SICK(why=FAILED)}] * 2)
    yield _row([HELD, HELD], **looping)
    yield _row([{"phase": "starting", "age": 1.0}] * 2, **looping)
    yield _row([], start_retry_in=10.0, last_failure=CRASH)
    yield _row([{**HELD, "held_by": "port"}] * 2, port=taken, port_retry_in=10.0)
    unknown = Say.PORT_HELD(holders=Say.HOLDER(facts=[Say.FACT_UNKNOWN()], whose=Say.WHOSE_UNKNOWN()))
    hidden = {**taken, "reason": unknown, "say": data_of(unknown)}
    yield _row([{**HELD, "held_by": "port"}] * 2, port=hidden, port_retry_in=10.0)
    reason = "/srv/shop/x.sock: No such file or directory"
    unix = {**taken, "host": "/srv/shop/x.sock", "port": 0, "reason": reason, "say": None}
    yield _row([{**HELD, "held_by": "port"}] * 2, port=unix, port_retry_in=10.0)
    why = Say.BEFORE_NO_START(why=Say.BEFORE_EXITED(code=1))
    yield _row([], before=Preparation(why, Say.CURE_BEFORE(watcher="web"), retry_in=30.0))
    yield _row([{**UP, "health": "hung"}] * 2, budget={"used": 1, "limit": 5})


def _row(
    workers: list[Mapping[str, Any]], *, before: Preparation | None = None, **known: Any
) -> tuple[str, str, str, str]:
    entries = [{**worker_entry(pid=70 + n), "slot": n, **each} for n, each in enumerate(workers, 1)]
    facts = {**watcher_entry(name="web", workers=[]), "armed": True, "probe": "private", "status": "active"}
    facts |= {"numprocesses": 2, "options": {"health.startup_timeout": 60.0}, "last_failure": ""}
    verdict = judge({**facts, "workers": entries, **known}, before)  # type: ignore[arg-type]
    return verdict["word"], *(reason_in(verdict, name) for name in ("cause", "next", "cure"))


def table(language: str) -> list[tuple[str, ...]]:
    """Return the rows of the table in docs/verdicts.md or its twin, the first of them the head."""
    found = [HEADS[language]]
    for word, *texts in rows():
        shown = translated(VERDICTS[word](), language)
        found.append((f"`{word}`", shown, *(translated(each, language) for each in texts)))
    return found
