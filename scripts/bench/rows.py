"""Define the rows. Each starts its own rivals, and gives a value with a note, or the reason why there is none.

An "until ready" ends when the new worker's app has started; an "until answered" when a request is. A rival that never
gets there within the bound has the value None.
"""

import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench.loads import Loads, requests_a_second
from bench.measuring import Found, Row
from bench.rivals import BARE, CLI, FAKE, MEASURED, OURS, RIVAL, UVICORN_WORKERS
from bench.running import HERE, Never, Rival, Running, answer, answering_pids, cpu, cpu_with_children, pss
from tests.real.processes import Process, open_files, process

HANG = "/hang"
NAMED_WITHIN = 3.0
YES_OR_NO = "yes or no"
RECOVERY = 30.0
APP_KILLS = 10
RELOADS, WARM_UP, FORKS = 20, 50, 10_000  # of ours alone: what is left of many?
IDLE_SECONDS = 15.0
DOWN_SECONDS = 3.0
SETTLED = 3.0
BURST = 40
BURSTS, APART = 5, 0.2
SIDE_BY_SIDE = 6  # of the rivals that wait for a hang to be noticed
IN_KILLS = 4  # the same of those that wait for the next kill
FORKSERVER_STAGES = ("uvicorn", "starlette", "forks")
STAGES = (
    "Python begins",
    "Circus is imported, and reads its file",
    "the forkserver is forked from circusd, and leaves it",
    "it imports uvicorn and our worker, as circusd does our hook",
    "it imports FastAPI, and looks for what a fork would share",
    "a worker is forked, and starts the app",
    "it answers",
)
"""What one start consists of, in turn; those of the forkserver begin with what it imports, or does."""
ROLES = {"resource_tracker": "resource tracker", "circus.plugins": "plugin process", "circus.circusd": "circusd"}
ROLES |= {"httpok": "httpok", "supervisord": "supervisord", "gunicorn": "master", "pm2": "pm2", "systemd": "systemd"}
ROLES |= dict.fromkeys(("-m uvicorn", "-m hypercorn", "-m granian"), "parent")
"""What a process other than a worker is, by a part of its command; the first counts."""


class Size(NamedTuple):
    """Size of the rows that take long."""

    kills: int
    apart: float  # seconds
    loop: float  # seconds
    reloads: int
    workers: tuple[int, ...]  # memory is measured with these
    rivals: list[str]  # the same


FULL = Size(kills=6, apart=10, loop=30, reloads=3, workers=(2, 4, 8), rivals=MEASURED)
SMOKE = Size(kills=2, apart=1, loop=6, reloads=1, workers=(2, 3), rivals=[OURS])


def kills(rival: Rival, workers: int, number: int = 1, apart: float = 0) -> list[Found]:
    """Kill the worker that was started last, again and again, to find the cost of a failure that comes back."""
    with Running(rival, workers) as it:
        found: list[Found] = []
        while len(found) < number:
            serving = it.serving()
            victim = max(serving, key=lambda pid: serving[pid])
            at = kill(victim)
            try:
                found.append(Found(_until_back(it, victim) - at))
            except Never as never:
                found += [Found(None, f"kill {len(found) + 1}: {never}")] * (number - len(found))
            time.sleep(max(0, at + apart - time.monotonic()) if len(found) < number else 0)
        return found


def kill(pid: int) -> float:
    """Kill a worker of ours; return when."""
    at = time.monotonic()
    process(pid).signal(signal.SIGKILL)
    return at


def _until_back(it: Running, victim: int) -> float:
    """Return when all are ready again; with one worker, when a request is answered."""
    if it.workers == 1:
        return _until_answered(it)
    it.until(lambda: len(set(it.serving()) - {victim}) >= it.workers, RECOVERY, f"{it.workers} workers ready")
    return max(it.serving().values())


def kills_at_level_app(rival: Rival) -> list[Found]:
    """Return the median of ten kills of a worker that is forked with the app, each when the last one is forgotten.

    The forkserver has given its libraries back then, which it does a second after an order.
    """
    with Running(rival, 1, level="app", reset=3) as it:
        times = []
        for _ in range(APP_KILLS):
            it.until(lambda: it.query_circusd("xboard_state")["watchers"][0]["budget"]["used"] == 0, RECOVERY, "calm")
            at = kill(min(it.serving()))
            times.append(_until_answered(it, every=0.001) - at)
        return [Found(statistics.median(times), f"{APP_KILLS} kills: {min(times):.3f} to {max(times):.3f}")]


def _until_answered(it: Running, *, every: float = 0.003) -> float:
    """Send requests again and again, as a client does that retries after a refusal."""
    it.until(lambda: answer(it.port, "/") is not None, RECOVERY, "an answer", every=every)
    return time.monotonic()


def hang(rival: Rival, workers: int) -> list[Found]:
    with Running(rival, workers) as it:
        threading.Thread(target=answer, args=(it.port, HANG), daemon=True).start()
        it.until(lambda: bool(it.recorded("hung")), 10, "the hang")
        pid, at = it.recorded("hung")[0]
        try:
            it.until(lambda: len(set(it.serving()) - {pid}) >= workers, RECOVERY, f"{workers} workers ready")
            back = Found(max(it.serving().values()) - at)
        except Never as never:
            back = Found(None, str(never), never.word)
        with suppress(Never):
            it.until(lambda: it.has_written(HANG), NAMED_WITHIN, "its request is named")
            return [back, Found(None, word="yes")]
        return [back, Found(None, word="no")]


def reload_under_load(rival: Rival, workers: int, reloads: int, level: str = "server") -> list[Found]:
    assert rival.reload is not None
    with Running(rival, workers, level=level) as it, Loads(it.port) as loads:
        time.sleep(1)  # load before, on connections that are open when the reload begins
        times = []
        for _ in range(reloads):
            old, at = set(it.serving()), time.monotonic()
            rival.reload(it)
            it.until(lambda old=old: len(set(it.serving()) - old) >= workers, 60, f"{workers} new workers")
            it.until(lambda old=old: not old & set(it.serving()), 60, "the end of the old workers")
            times.append(time.monotonic() - at)
            time.sleep(1)
        loads.stop()
        return [*loads.lost(), Found(loads.worst), Found(statistics.median(times))]


def forks(_: Rival) -> list[Found]:
    """Return how much more a forkserver has after thousands of forks: KiB, descriptors, processes."""
    import psutil

    from tests.real.direct_forkserver import direct_forkserver, fork_and_let_go

    def has() -> tuple[float, int, int]:
        return server.memory / 1024, len(open_files(server.pid)), len(psutil.Process(server.pid).children())

    with tempfile.TemporaryDirectory(dir="/tmp") as folder, direct_forkserver(Path(folder)) as (orders, server):
        has_after = []
        for number in (WARM_UP, WARM_UP, FORKS):  # twice: after its first rest it reads again what it has given back
            for _ in range(number):
                fork_and_let_go(orders)
            time.sleep(SETTLED)  # until it has waited for what it forked last
            has_after.append(has())
        _, before, after = has_after
        return [Found(now - was, f"{was:,.0f} before") for was, now in zip(before, after, strict=True)]


def crash_loop(rival: Rival, seconds: float) -> list[Found]:
    with Running(rival, 2, env={"BENCH_DIE_AFTER": "0.3"}, start=False) as it:
        at = it.start()
        while time.monotonic() < at + seconds:  # the measurement itself
            time.sleep(0.1)
        starts = it.recorded("ready")
        last = max((recorded_at for _, recorded_at in starts), default=at) - at
        spent = Found(60 / seconds * sum(map(cpu_with_children, it.processes())))
        if it.exit_code is not None:  # a rival that has ended costs nothing, and that is no merit
            spent = Found(None, f"exit code {it.exit_code}", "ended")
        return [Found(len(starts), f"the last after {last:.1f} s"), spent]


def orphan_at_start(rival: Rival) -> list[Found]:
    with Running(rival, 2) as it:
        orphans = set(it.serving())
        it.kill_supervisor()
        time.sleep(1)
        left = len(orphans & set(it.serving()))
        at = it.start()
        it.until(lambda: bool(set(it.serving()) - orphans), 20, "a new worker")
        it.until(lambda: (answer(it.port, "/") or "") not in {"", *map(str, orphans)}, 20, "an answer by a new one")
        answered = time.monotonic()
        time.sleep(3)  # the orphans drain
        return [Found(answered - at, f"beside {left} orphans, of which {len(orphans & set(it.serving()))} serve on")]


def supervisor_killed(rival: Rival) -> list[Found]:
    with Running(rival, 2) as it, Loads(it.port) as loads:
        time.sleep(1)
        orphans = set(it.serving())
        it.kill_supervisor()
        time.sleep(DOWN_SECONDS)
        at = it.start()
        try:
            it.until(lambda: len(set(it.serving()) - orphans) >= 2, 20, "two new workers")
            back = Found(max(it.serving().values()) - at)
            time.sleep(3)  # the orphans drain
        except Never as never:
            back = Found(None, str(never))
        left = len(orphans & set(it.serving()))
        loads.stop()
        note = f"{left} orphans serve on" if left else ""
        return [*loads.lost(), Found(back.value, ", ".join(filter(None, (back.note, note))))]


def idle(rival: Rival) -> list[Found]:
    # No client waits for anything here, so each probes at its default: we every 2 s, httpok every 5.
    with Running(rival, 2, period=2) as it:
        time.sleep(3)
        others = it.others()
        spent = {found: 60 / IDLE_SECONDS * used for found, used in cpu_over(others, IDLE_SECONDS).items()}
        memory = {found: pss(found) for found in others}
        return [
            Found(sum(memory.values()), ", ".join(f"{_role(found)} {memory[found]:.1f}" for found in others)),
            Found(sum(spent.values()), ", ".join(f"{_role(found)} {spent[found]:.2f}" for found in others)),
        ]


def _role(found: Process) -> str:
    return next((role for part, role in ROLES.items() if part in found.command), found.command[:40])


def throughput(rival: Rival) -> list[Found]:
    with Running(rival, 2) as it:
        return [requests_a_second(it.port, kept=kept) for kept in (True, False)]


def start(rival: Rival) -> list[Found]:
    with Running(rival, 2, start=False) as it:
        at = it.start()
        return [Found(_until_answered(it) - at)]


def stages(rival: Rival) -> list[Found]:
    """Return how long each stage of a start takes, in ms; the note is how much of that its process was on a core."""
    with Running(rival, 2, start=False) as it:
        shutil.copy(HERE / "settings" / "record_stages.py", it.folder / "sitecustomize.py")
        began = it.start()
        answered = _until_answered(it)
        first: dict[int, dict[str, tuple[float, float]]] = {}  # what each process reached, when, with what CPU time
        for pid, what, *reached in map(str.split, (it.folder / "stages").read_text().splitlines()):
            first.setdefault(int(pid), {}).setdefault(what, (float(reached[0]), float(reached[1])))
        circusd, forkserver = first[it.supervisor.pid], next(each for each in first.values() if "uvicorn" in each)
        times, used = zip(circusd["begins"], circusd["forks"], *map(forkserver.get, FORKSERVER_STAGES), strict=True)
        ends = [began, *times, min(it.serving().values()), answered]
        on_core = [used[0], used[1] - used[0], used[2], used[3] - used[2], used[4] - used[3]]
        notes = [*(f"{1000 * seconds:.0f} on a core" for seconds in on_core), "", ""]
        return [Found(1000 * (end - begin), note) for (begin, end), note in zip(pairwise(ends), notes, strict=True)]


def start_all(rival: Rival, workers: int) -> list[Found]:
    with Running(rival, workers, start=False) as it:
        at = it.start()
        it.until(lambda: len(it.serving()) >= workers, 60, f"{workers} workers ready")
        _until_answered(it)
        return [Found(max(it.serving().values()) - at)]


def memory(rival: Rival, sizes: tuple[int, ...], heavy: str = "", level: str = "server") -> list[Found]:
    """Return the PSS of all processes with each number of workers, and that of one more worker."""
    totals = []
    for workers in sizes:
        with Running(rival, workers, level=level, period=2, env={"BENCH_IMPORT": heavy}) as it:
            time.sleep(SETTLED)
            totals.append(sum(map(pss, it.processes())))
    return [*map(Found, totals), Found((totals[-1] - totals[0]) / (sizes[-1] - sizes[0]))]


def burst(rival: Rival) -> list[Found]:
    """Return the median of some bursts of connections: how many of them does one worker get?"""
    with Running(rival, 4) as it:
        most = []
        for _ in range(BURSTS):
            time.sleep(APART)  # until all have noticed that the connections of the last burst are closed
            most.append(Counter(answering_pids(it.port, BURST)).most_common(1)[0][1])
        return [Found(100 * statistics.median(most) / BURST, f"of {BURST}: {', '.join(map(str, most))}")]


def probing(_: Rival, number: int) -> list[Found]:
    with Running(RIVAL[FAKE], number, start=False) as it:
        it.start()
        sockets = it.folder / "run"
        it.until(lambda: len(list(sockets.rglob("*.ready"))) >= number, 60, "all workers ready", every=0.2)
        time.sleep(5)  # their first rounds
        helpers = {_role(found): found for found in it.others() if "fake_worker" not in found.command}
        both = [helpers["plugin process"], helpers["circusd"]]
        spent = cpu_over(both, 10)
        return [Found(100 * spent[found] / 10, f"PSS {pss(found):.1f} MiB") for found in both]


def cpu_over(processes: list[Process], seconds: float) -> dict[Process, float]:
    """Wait, and return the processor time that each of *processes* has spent in *seconds*."""
    before, at = {found: cpu(found) for found in processes}, time.monotonic()
    time.sleep(seconds)
    scale = seconds / (time.monotonic() - at)
    return {found: scale * (cpu(found) - before[found]) for found in processes}


Lines = tuple[tuple[str, str], ...]
IDLE = "all that is no worker, idle with 2 workers"
UP = "command until {} workers are ready"
KILL_OF_TWO = "one of two workers killed: until two are ready"
KILL_OF_ONE = "the only worker killed: until answered"


def lost(what: str) -> Lines:
    return ((f"{what}: lost, keep-alive", "requests"), (f"{what}: lost, new connections", "requests"))


def kills_row(name: str, title: str, workers: int, size: Size) -> Row:
    """Return a row for one life, with its times listed and no median: the last beside the first shows a back-off."""
    lines = tuple((f"{title}, kill {n + 1} of {size.kills}, {size.apart:g} s apart", "s") for n in range(size.kills))
    measure = partial(kills, workers=workers, number=size.kills, apart=size.apart)
    return Row(name, lines, measure, runs=1, at_once=IN_KILLS)


def hang_row(title: str, back: str, workers: int) -> Row:
    lines = ((f"{title}: {back}", "s"), (f"{title}: its request is named in log or record", YES_OR_NO))
    return Row(f"hang-{workers}", lines, partial(hang, workers=workers), at_once=SIDE_BY_SIDE)


def reload_row(name: str, title: str, workers: int, reloads: int) -> Row:
    return Row(name, reload_lines(title), partial(reload_under_load, workers=workers, reloads=reloads))


def reload_lines(title: str) -> Lines:
    return (*lost(title), (f"{title}: worst latency", "s"), (f"{title}: time of one", "s"))


def many_reloads_row(level: str) -> Row:
    lines = reload_lines(f"{RELOADS} rolling reloads under load, worker.preload = {level}")
    measure = partial(reload_under_load, workers=2, reloads=RELOADS, level=level)
    return Row(f"reloads-{level}", lines, measure, [OURS], runs=1)


def memory_rows(name: str, app: str, size: Size, heavy: str = "") -> list[Row]:
    """Return the row of all rivals, and our own with the app imported once, as `gunicorn --preload` does."""

    def row(name: str, title: str, level: str, rivals: list[str]) -> Row:
        title = f"{title}: PSS"
        each = ((f"{title} with {workers} workers", "MiB") for workers in size.workers)
        measure = partial(memory, sizes=size.workers, heavy=heavy, level=level)
        return Row(name, (*each, (f"{title} of one more", "MiB")), measure, rivals, runs=1)

    title = f"all processes, {app}"
    return [
        row(name, title, "server", size.rivals),
        row(f"{name}-app", f"{title}, worker.preload = app", "app", [OURS]),
    ]


def probing_row(number: int) -> Row:
    title = f"probing {number} workers every 2 s"
    lines = ((f"{title}: prober", "% of a core"), (f"{title}: circusd", "% of a core"))
    return Row(f"probing-{number}", lines, partial(probing, number=number), [OURS], runs=1)


def rows(size: Size) -> list[Row]:
    loop = f"app dies 0.3 s after its start, in {size.loop:g} s"
    of_app = f"{KILL_OF_ONE}, worker.preload = app, median of {APP_KILLS}"
    lost_meanwhile = lost(f"kill -9 of the supervisor under load, started again {DOWN_SECONDS:g} s later")
    back = ("from that second start until two new workers are ready", "s")
    many = f"{FORKS:,} forks of one forkserver"
    left = ((f"{many}: its memory grows by", "KiB"), (f"{many}: left open", "files"), (f"{many}: left", "processes"))
    kinds = tuple((f"throughput, {kind}", "requests/s") for kind in ("keep-alive", "new connections"))
    return [
        Row("start", (("command to first /health answer", "s"),), start, [*MEASURED, BARE, CLI]),
        Row("stages", tuple((f"a start, stage by stage: {stage}", "ms") for stage in STAGES), stages, [OURS]),
        *(Row(f"start-{n}", ((UP.format(n), "s"),), partial(start_all, workers=n)) for n in (2, 8)),
        Row("crash-2", ((KILL_OF_TWO, "s"),), partial(kills, workers=2)),
        Row("crash-1", ((KILL_OF_ONE, "s"),), partial(kills, workers=1)),
        kills_row("kills-2", KILL_OF_TWO, 2, size),
        kills_row("kills-1", KILL_OF_ONE, 1, size),
        Row("crash-app", ((of_app, "s"),), kills_at_level_app, [OURS]),
        hang_row("one of two workers hangs", "until two are ready", 2),
        hang_row("the only worker hangs", "until it is replaced", 1),
        reload_row("reload", f"{size.reloads} rolling reloads under load", 2, size.reloads),
        reload_row("reload-4", "4 workers reloaded under load", 4, 1),
        *map(many_reloads_row, ("server", "app")),
        Row("forks", left, forks, [OURS], runs=1),
        Row("crash-loop", ((loop, "starts"), (loop, "CPU s/min")), partial(crash_loop, seconds=size.loop), runs=1),
        Row("orphan", (("orphans on the port at start: until a new worker answers", "s"),), orphan_at_start),
        Row("supervisor-killed", (*lost_meanwhile, back), supervisor_killed),
        Row("idle", ((f"{IDLE}: PSS", "MiB"), (f"{IDLE}: processor time", "CPU s/min")), idle, runs=1),
        *memory_rows("memory", "plain app", size),
        *memory_rows("memory-heavy", "app that imports pandas", size, heavy="pandas"),
        Row("burst", ((f"{BURST} connections at once to 4 workers: share of one worker", "%"),), burst),
        Row("throughput", kinds, throughput, [OURS, UVICORN_WORKERS]),
        *(probing_row(number) for number in (10, 50, 200)),
    ]
