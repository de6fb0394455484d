"""What is measured. Each row starts its own rivals, and gives a value with a note, or says why there is none.

An "until ready" ends when the new worker's app has started; an "until answered" when a request is. Who never gets there
within the bound has the value None.
"""

import statistics
import threading
import time
from functools import partial

from bench.measuring import Found, Row
from bench.rivals import BARE, CLI, FAKE, MEASURED, OURS, RIVAL, UVICORN_WORKERS
from bench.running import Never, Rival, Running, answer, cpu, cpu_with_children, kill, pss
from bench.traffic import Loads, requests_a_second
from tests.real.processes import Process

RECOVERY = 30.0
RELOADS = 5
SPARE_KILLS = 10
LOOP_SECONDS = 60.0
IDLE_SECONDS = 15.0
DOWN_SECONDS = 3.0


def crash_of_two(rival: Rival) -> list[Found]:
    with Running(rival, 2) as it:
        victim = min(it.serving())
        at = kill(victim)
        it.until(lambda: len(set(it.serving()) - {victim}) >= 2, RECOVERY, "two workers ready")
        return [Found(max(it.serving().values()) - at)]


def crash_of_one(rival: Rival) -> list[Found]:
    with Running(rival, 1) as it:
        at = kill(min(it.serving()))
        return [Found(_until_answered(it) - at)]


def crashes_beside_a_spare(rival: Rival) -> list[Found]:
    """The median of ten kills, each when the next spare waits and the last kill is forgotten, as the first would be."""
    with Running(rival, 1, spares=1, reset_after=1) as it:
        times = []
        for _ in range(SPARE_KILLS):
            it.until(lambda: it.waits_with_a_spare(), RECOVERY, "a new spare")
            at = kill(min(it.serving()))
            times.append(_until_answered(it) - at)
        return [Found(statistics.median(times), f"{SPARE_KILLS} kills: {min(times):.3f} to {max(times):.3f}")]


def _until_answered(it: Running, *, every: float = 0.003) -> float:
    """Ask again and again, as a client does that tries anew when it is refused."""
    it.until(lambda: answer(it.port, "/") is not None, RECOVERY, "an answer", every=every)
    return time.monotonic()


def hang(rival: Rival, workers: int) -> list[Found]:
    with Running(rival, workers) as it:
        threading.Thread(target=answer, args=(it.port, "/hang", 60.0), daemon=True).start()
        it.until(lambda: bool(it.told("hung")), 10, "the hang")
        pid, at = it.told("hung")[0]
        it.until(lambda: len(set(it.serving()) - {pid}) >= workers, RECOVERY, f"{workers} workers ready")
        return [Found(max(it.serving().values()) - at)]


def reload_under_load(rival: Rival) -> list[Found]:
    assert rival.reload is not None
    with Running(rival, 2) as it, Loads(it.port) as loads:
        time.sleep(1)  # load before, on connections that are open when the reload begins
        for _ in range(RELOADS):
            old = set(it.serving())
            rival.reload(it)
            _until_replaced(it, old)
            time.sleep(1)
        loads.stop()
        return [*loads.lost(), Found(loads.worst)]


def _until_replaced(it: Running, old: set[int]) -> None:
    it.until(lambda: len(set(it.serving()) - old) >= 2, 60, "two new workers")
    it.until(lambda: not old & set(it.serving()), 60, "the end of the old workers")


def crash_loop(rival: Rival) -> list[Found]:
    with Running(rival, 2, env={"BENCH_DIE_AFTER": "0.3"}, start=False) as it:
        at = it.start()
        while time.monotonic() < at + LOOP_SECONDS:  # the measurement itself
            time.sleep(0.1)
        starts = it.told("starts")
        last = max((told_at for _, told_at in starts), default=at) - at
        note = f"the last after {last:.1f} s" + (f"; exit code {it.exit_code}" if it.exit_code is not None else "")
        return [Found(len(starts), note), Found(sum(map(cpu_with_children, it.processes())))]


def orphan_at_start(rival: Rival) -> list[Found]:
    with Running(rival, 2) as it:
        orphans = set(it.serving())
        it.kill_supervisor()
        time.sleep(1)
        left = len(orphans & set(it.serving()))
        at = it.start()
        it.until(lambda: bool(set(it.serving()) - orphans), 20, "a new worker")
        it.until(lambda: (answer(it.port, "/") or "") not in {"", *map(str, orphans)}, 20, "an answer by a new one")
        return [Found(time.monotonic() - at, f"beside {left} orphans")]


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
    # Nobody waits for anything here, so each probes as its maker wants it: we every 2 s, httpok every 5.
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
    command = found.command
    roles = {
        "resource_tracker": "resource tracker",
        "circus.plugins": "plugin process",
        "circus.circusd": "circusd",
        "httpok": "httpok",
        "supervisord": "supervisord",
        "gunicorn": "master",
        "-m uvicorn": "parent",
    }
    return next((role for part, role in roles.items() if part in command), command[:40])


def throughput(rival: Rival) -> list[Found]:
    with Running(rival, 2) as it:
        return [requests_a_second(it.port, kept=kept) for kept in (True, False)]


def start(rival: Rival) -> list[Found]:
    with Running(rival, 2, start=False) as it:
        at = it.start()
        return [Found(_until_answered(it) - at)]


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


def probing_row(number: int) -> Row:
    title = f"probing {number} workers every 2 s"
    lines = ((f"{title}: prober", "% of a core"), (f"{title}: circusd", "% of a core"))
    return Row(f"probing-{number}", lines, partial(probing, number=number), [OURS], runs=1)


LOOP = f"app dies 0.3 s after its start, in {LOOP_SECONDS:g} s"
IDLE = "all that is no worker, idle with 2 workers"
LOST = (("{}: lost, keep-alive", "requests"), ("{}: lost, new connections", "requests"))


def lost(what: str) -> tuple[tuple[str, str], ...]:
    return tuple((title.format(what), unit) for title, unit in LOST)


ROWS = [
    Row("start", (("command to first /health answer", "s"),), start, [*MEASURED, BARE, CLI]),
    Row("crash-2", (("one of two workers killed: until two are ready", "s"),), crash_of_two),
    Row("crash-1", (("the only worker killed: until answered", "s"),), crash_of_one),
    Row(
        "crash-spare",
        ((f"the only worker killed, one spare: until answered, median of {SPARE_KILLS}", "s"),),
        crashes_beside_a_spare,
        [OURS],
    ),
    Row("hang-2", (("one of two workers hangs: until two are ready", "s"),), partial(hang, workers=2)),
    Row("hang-1", (("the only worker hangs: until it is replaced", "s"),), partial(hang, workers=1)),
    Row(
        "reload",
        (*lost(f"{RELOADS} rolling reloads under load"), (f"{RELOADS} rolling reloads under load: worst latency", "s")),
        reload_under_load,
    ),
    Row("crash-loop", ((LOOP, "starts"), (LOOP, "CPU s")), crash_loop),
    Row("orphan", (("orphans on the port at start: until a new worker answers", "s"),), orphan_at_start),
    Row(
        "supervisor-killed",
        (
            *lost(f"kill -9 of the supervisor under load, started again {DOWN_SECONDS:g} s later"),
            ("from that second start until two new workers are ready", "s"),
        ),
        supervisor_killed,
    ),
    Row("idle", ((f"{IDLE}: PSS", "MiB"), (f"{IDLE}: processor time", "CPU s/min")), idle),
    Row(
        "throughput",
        (("throughput, keep-alive", "requests/s"), ("throughput, new connections", "requests/s")),
        throughput,
        [OURS, UVICORN_WORKERS],
    ),
    *(probing_row(number) for number in (10, 50, 200)),
]
