"""Of a singleton no two workers run at once: who takes its place starts when it is gone."""

from itertools import pairwise
from pathlib import Path

from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .processes import marked

SINGLE = {**FAST_RESTARTS, "singleton": True}


def lives(c: Circusd) -> list[tuple[float, float]]:
    """Return from when to when each app was there, by its own account."""
    spans = []
    for start in c.starts():
        ended = c.said("stopped", start.pid)
        spans.append((start.at, float("inf") if ended is None else ended))
    return spans


def overlap(c: Circusd) -> bool:
    spans = sorted(lives(c))
    return any(end > start for (_, end), (start, _) in pairwise(spans))


def test_a_sick_singleton_is_gone_before_its_successor_starts(tmp_path: Path) -> None:
    """Given a singleton, when the prober finds it sick, then it ends first, and then another one starts."""
    with circusd(tmp_path, watchers=[Watcher(numprocesses=1, options=SINGLE)]) as c:
        (old,) = c.wait_ready()

        assert c.replace(old, "sick")["status"] == "ok"
        eventually(lambda: [pid for pid in c.ready() if pid != old])

        assert len(c.starts()) == 2
        assert not overlap(c)


def test_a_singleton_of_a_dead_circusd_is_gone_before_the_next_one_starts(tmp_path: Path) -> None:
    """Given a singleton whose circusd was killed, when circusd starts again, then the old one ends before.

    It gives the port up as soon as it drains, and takes its time to end: a free port is no sign of its end.
    """
    watcher = Watcher(numprocesses=1, options={**SINGLE, "graceful_timeout": 20, "port.grace": 20})
    with circusd(tmp_path, watchers=[watcher]) as c:
        (old,) = c.wait_ready()
        c.set("drain", "2")
        c.kill9()

        c.start_again()
        (new,) = c.wait_ready()

        assert new != old
        assert not overlap(c)
        assert old not in {each.pid for each in marked(XBOARD_TEST=c.mark)}


SLOW_TO_END = """
import os, pathlib, signal, sys, time
def leave(*_):
    while not pathlib.Path(sys.argv[2]).exists():
        time.sleep(0.02)
    print("ended", os.getpid(), file=log)
    sys.exit()
signal.signal(signal.SIGTERM, leave)
log = open(sys.argv[1], "a", buffering=1)
print("started", os.getpid(), file=log)
while True:
    signal.pause()
"""


def test_a_singleton_without_a_port_is_gone_too_before_the_next_one_starts(tmp_path: Path) -> None:
    """Given a singleton that listens nowhere, when its circusd was killed and another starts, the old ends first."""
    program, log, may_end = tmp_path / "slow_to_end.py", tmp_path / "lives", tmp_path / "may_end"
    program.write_text(SLOW_TO_END)
    log.touch()
    single = Watcher(numprocesses=1, listens=False, command=f"{{python}} {program} {log} {may_end}", options=SINGLE)
    with circusd(tmp_path, watchers=[single]) as c:
        eventually(lambda: len(log.read_text().splitlines()) == 1)
        c.kill9()

        c.start_again()  # and it answers, while the old one still ends
        may_end.touch()
        lines = eventually(lambda: found if len(found := log.read_text().split()[::2]) == 3 else None)

        assert lines == ["started", "ended", "started"]
