#!/usr/bin/env python3
"""Rounds of random commands and faults on a real circusd: ``.venv/bin/python scripts/soak.py --rounds 1000``.

After each round circusd has to answer, all workers have to serve, and no process of ours may be left that circusd does
not know. The seed is printed first, and a run with the same seed does the same things; how far each gets before the
next one is up to the machine. Ends with 1 at the first round that does not come right, with what was done in it.

Only processes that this script started are signalled, by pid and start time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from circus.exc import CallError

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(CHECKOUT))

from tests.real.harness import BUNDLE, Circusd, Watcher, circusd  # noqa: E402 - the path comes first
from tests.real.processes import Process, process  # noqa: E402

NUMBER = 2
MOST = 4
SETTLES_WITHIN = 90.0
OPTIONS = {
    "health.live_path": "/health/live",
    "health.period": 0.5,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    "health.startup_timeout": 15,
    "restart.burst": 50,
    "restart.delay": 0.1,
    "restart.delay_max": 0.2,
    "restart.cooldown": 1,
    "graceful_timeout": 3,
    "port.retry": 0.5,
    "port.grace": 2,
}


class Soak:
    """One circusd, and what may befall it. Every method without an underscore is a fault or a command."""

    def __init__(self, c: Circusd, chance: random.Random) -> None:
        self._c = c
        self._chance = chance
        self._halted: list[Process] = []

    # Faults of workers

    def kill_a_worker(self) -> None:
        self._signal_a_worker(signal.SIGKILL)

    def kill_all_workers(self) -> None:
        for pid in self._workers():
            _signal(pid, signal.SIGKILL)

    def halt_a_worker(self) -> None:
        self._signal_a_worker(signal.SIGSTOP)

    def terminate_a_worker(self) -> None:
        self._signal_a_worker(signal.SIGTERM)

    def hang_a_worker(self) -> None:
        self._tell_a_worker("block 600")

    def let_a_worker_exit(self) -> None:
        self._tell_a_worker("exit 3")

    def let_a_worker_crash(self) -> None:
        self._tell_a_worker("signal 11")

    def make_a_worker_sick(self) -> None:
        for pid in self._workers()[:1]:
            self._c.set(f"live.pid-{pid}", "500")

    def make_all_sick_for_a_while(self) -> None:
        self._c.set("live", "503")
        self._pause(2)

    def break_the_app_for_a_while(self) -> None:
        self._c.set("boot", "die")
        self.kill_a_worker()
        self._pause(2)

    def slow_the_start_down(self) -> None:
        self._c.set("boot", "slow 1")

    def slow_the_drain_down(self) -> None:
        self._c.set("drain", self._chance.choice(["0.5", "1", "10"]))

    # Faults around them

    def kill_the_plugin(self) -> None:
        with suppress(CallError, LookupError, ProcessLookupError):
            self._c.plugin("xboard").signal(signal.SIGKILL)

    def kill_circusd(self) -> None:
        self._c.kill9()
        self._pause(1)
        self._c.start_again()

    def halt_circusd_for_a_while(self) -> None:
        halted = process(self._c.pid)
        halted.signal(signal.SIGSTOP)
        self._pause(2)
        halted.signal(signal.SIGCONT)

    def remove_the_runtime_folder(self) -> None:
        shutil.rmtree(self._c.runtime / "r", ignore_errors=True)

    # Commands

    def restart(self) -> None:
        self._command("restart")

    def reload(self) -> None:
        self._command("reload")

    def roll(self) -> None:
        self._command("xboard_reload")

    def roll_with_the_command_line(self) -> None:
        self._c.run_cli("reload", "--no-preflight", timeout=120)

    def incr(self) -> None:
        if self._c.watcher()["numprocesses"] < MOST:
            self._command("incr")

    def decr(self) -> None:
        if self._c.watcher()["numprocesses"] > 1:
            self._command("decr")

    def set_the_number(self) -> None:
        self._command("set", options={"numprocesses": self._chance.randint(1, MOST)})

    def stop(self) -> None:
        self._command("stop")

    def start(self) -> None:
        self._command("start")

    def reloadconfig(self) -> None:
        with suppress(CallError):
            self._c.call("reloadconfig")

    def signal_by_circusctl(self) -> None:
        for pid in self._workers()[:1]:
            self._command("signal", pid=pid, signum=self._chance.choice([1, 2, 3, 9, 15]))

    def kill_by_circusctl(self) -> None:
        for pid in self._workers()[:1]:
            self._command("kill", pid=pid)

    def restart_everything(self) -> None:
        with suppress(CallError):
            self._c.call("restart")

    def end_circusd_and_start_it(self) -> None:
        process(self._c.pid).signal(signal.SIGTERM)
        self._c.wait_ended(60)
        self._c.start_again()

    # One round

    def _round(self) -> list[str]:
        """Choose what is done in the next round: one to four things."""
        return [self._chance.choice(THINGS) for _ in range(self._chance.randint(1, 4))]

    def _do(self, names: list[str]) -> str:
        """Do them; return "" or what went wrong in doing so."""
        for name in names:
            try:
                getattr(self, name)()
            except Exception as error:
                return f"{name}: {type(error).__name__}: {error}"
            self._pause(self._chance.choice([0, 0, 0.3, 1]))
        return ""

    def _heal(self) -> None:
        """Take back what does not heal by itself: the backend is sound, nobody is halted, and it is to run."""
        for setting in ("live", "boot", "drain"):
            self._c.set(setting, "")
        for halted in self._halted:
            halted.signal(signal.SIGCONT)
        self._halted.clear()

    def _trouble(self) -> str:
        """Return what is not right yet; "" where all is."""
        watcher = self._c.watcher()
        if watcher["status"] == "stopped":
            self._command("start")
            return "it is stopped"
        ready, wanted = self._c.ready(), watcher["numprocesses"]
        if len(ready) != wanted:
            return f"{len(ready)} of {wanted} serve"
        if strangers := self._strangers():
            return f"left over: {strangers}"
        return "" if self._c.serves() else "no answer"

    def _strangers(self) -> list[str]:
        """Return the processes of ours that circusd does not know; what a command has just ended is none."""
        names = self._c.call("list")["watchers"]
        known = {self._c.pid, *(pid for name in names for pid in self._c.call("list", name=name)["pids"])}
        return [f"{each.pid} {each.command[:80]}" for each in self._c.processes() if each.pid not in known]

    def _settle(self) -> str:
        """Wait until all is right; return "" or what is still wrong after so long."""
        deadline, trouble = time.monotonic() + SETTLES_WITHIN, ""
        while time.monotonic() < deadline:
            try:
                trouble = self._trouble()
            except (CallError, LookupError, OSError, AssertionError, KeyError) as error:
                trouble = f"{type(error).__name__}: {error}"
            if not trouble:
                return ""
            time.sleep(0.1)
        return trouble

    def _workers(self) -> list[int]:
        """Return the pids of the workers, in any order; none where circusd does not answer."""
        try:
            pids = self._c.workers()
        except CallError:
            return []
        self._chance.shuffle(pids)
        return pids

    def _signal_a_worker(self, signum: signal.Signals) -> None:
        for pid in self._workers()[:1]:
            with suppress(ProcessLookupError):
                found = process(pid)
                if found.signal(signum) and signum == signal.SIGSTOP:
                    # For good only where that is what is to be found out: a launcher is not probed.
                    self._halted.append(found)

    def _tell_a_worker(self, order: str) -> None:
        for pid in self._workers()[:1]:
            self._c.tell(pid, order)

    def _command(self, name: str, **properties: object) -> None:
        """Send one command; circusd may be busy with another, and refuse it."""
        with suppress(CallError):
            self._c.call(name, name="web", **properties)

    def _pause(self, longest: float) -> None:
        time.sleep(self._chance.uniform(0, longest))


THINGS = sorted(name for name, of in vars(Soak).items() if isinstance(of, Callable) and not name.startswith("_"))  # type: ignore[arg-type]


def _signal(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process(pid).signal(signum)


def soak(folder: Path, *, rounds: int, seed: int, left_out: list[str]) -> int:
    """Run *rounds*; return 0, or 1 where one of them did not come right."""
    chance, counts = random.Random(seed), Counter[str]()
    THINGS[:] = [name for name in THINGS if name not in left_out]
    print(f"seed {seed}, {rounds} rounds", flush=True)
    started = time.monotonic()
    with circusd(folder, watchers=[Watcher(numprocesses=NUMBER, options=OPTIONS)], plugins=BUNDLE, check_delay=1) as c:
        it = Soak(c, chance)
        for number in range(1, rounds + 1):
            done = it._round() if number > 1 else []  # the first one shows that all is well without us
            trouble = it._do(done)
            it._heal()
            counts.update(done)
            trouble = trouble or it._settle()
            if trouble:
                with suppress(CallError, LookupError):
                    print(json.dumps(c.watcher(), indent=1))
                print(f"round {number}: {', '.join(done)}: {trouble}\n{c.report(200)}", flush=True)
                print(f"seed {seed}: round {number} of {rounds} failed: {', '.join(done)}: {trouble}")
                return 1
            if number % 50 == 0:
                print(f"{number} rounds, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{rounds} rounds in {time.monotonic() - started:.0f} s, {counts.total()} things done, all came right:")
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="another one each time without it")
    parser.add_argument("--without", action="append", default=[], choices=THINGS, metavar="THING", help="leave it out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that all that was started is ended, too
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="xb-soak-", ignore_cleanup_errors=True) as folder:
        return soak(Path(folder), rounds=options.rounds, seed=seed, left_out=options.without)


if __name__ == "__main__":
    sys.exit(main())
