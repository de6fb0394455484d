"""Run rounds of random commands and faults on a real circusd: ``scripts/soak.sh --rounds 1000``.

After each round circusd has to answer, all workers have to serve, and no process of ours may be left that circusd does
not know. The seed is printed first, and a run with the same seed does the same things; how far each gets before the
next one depends on the machine. Ends with 1 at the first round that does not recover, with its steps.

Only processes that this script started are signalled, by pid and start time.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from typing import Any

from circus.exc import CallError

from .harness import BUNDLE, Circusd, Watcher, circusd
from .processes import Process, process, script_folder

NUMBER = 2
MOST = 4
SETTLES_WITHIN = 300.0
OPTIONS = {
    "health.live_path": "/health/live",
    "health.period": 0.5,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    "health.startup_timeout": 60,  # on a machine with a load of 25 none came up within 15 s
    "restart.burst": 50,
    "restart.delay": 0.1,
    "restart.delay_max": 0.2,
    "restart.cooldown": 1,
    "graceful_timeout": 3,
    "port.retry": 0.5,
    "port.grace": 2,
}


class Soak:
    """One circusd, the steps on it, and whether it has recovered since."""

    def __init__(self, c: Circusd, chance: random.Random) -> None:
        self.c = c
        self.chance = chance
        self._halted: list[Process] = []

    def workers(self, most: int = 1) -> list[int]:
        """Return the pids of *most* workers, chosen by chance; none if circusd does not answer."""
        try:
            pids = self.c.workers()
        except CallError:
            return []
        self.chance.shuffle(pids)
        return pids[:most]

    def send(self, signum: signal.Signals, *, most: int = 1) -> None:
        for pid in self.workers(most):
            with suppress(ProcessLookupError):
                found = process(pid)
                if found.signal(signum) and signum == signal.SIGSTOP:
                    # For good only if the fault has to be detected: a launcher is not probed.
                    self._halted.append(found)

    def order(self, what: str) -> None:
        for pid in self.workers():
            self.c.tell(pid, what)

    def command(self, name: str, **properties: Any) -> None:
        """Send one command; circusd may be busy with another, and refuse it."""
        with suppress(CallError):
            self.c.call(name, name="web", **properties)

    def command_each(self, name: str, **properties: Any) -> None:
        for pid in self.workers():
            self.command(name, pid=pid, **properties)

    def command_all(self, name: str) -> None:
        with suppress(CallError):
            self.c.call(name)

    def pause(self, longest: float) -> None:
        time.sleep(self.chance.uniform(0, longest))

    def make_sick(self) -> None:
        for pid in self.workers():
            self.c.set(f"live.pid-{pid}", "500")

    def set_for_a_while(self, setting: str, value: str) -> None:
        self.c.set(setting, value)
        if setting == "boot":
            self.send(signal.SIGKILL)
        self.pause(2)

    def kill_the_plugin(self) -> None:
        with suppress(CallError, LookupError, ProcessLookupError):
            self.c.plugin("xboard").signal(signal.SIGKILL)

    def kill_circusd(self) -> None:
        self.c.kill9()
        self.pause(1)
        self.c.start_again()

    def send_to_forkserver(self, signum: signal.Signals) -> None:
        for found in self.c.forkservers():
            if found.signal(signum) and signum == signal.SIGSTOP:
                self._halted.append(found)

    def change_the_level(self) -> None:
        self.c.write_ini(watcher__web={"worker.preload": self.chance.choice(["off", "server", "app"])})
        self.command_all("reloadconfig")

    def halt_circusd(self) -> None:
        halted = process(self.c.pid)
        halted.signal(signal.SIGSTOP)
        self.pause(2)
        halted.signal(signal.SIGCONT)

    def restart_circusd(self) -> None:
        process(self.c.pid).signal(signal.SIGTERM)
        self.c.wait_ended(60)
        self.c.start_again()

    def change_number(self, name: str) -> None:
        number = self.c.watcher()["numprocesses"]
        if number < MOST if name == "incr" else number > 1:
            self.command(name)

    # One round

    def do(self, names: list[str]) -> str:
        """Do the steps *names*; return "" or what went wrong in a step."""
        for name in names:
            try:
                THINGS[name](self)
            except Exception as error:
                return f"{name}: {type(error).__name__}: {error}"
            self.pause(self.chance.choice([0, 0, 0.3, 1]))
        return ""

    def heal(self) -> None:
        """Undo what does not heal by itself: mend the backend, continue halted processes, start the watcher."""
        for setting in ("live", "boot", "drain"):
            self.c.set(setting, "")
        for halted in self._halted:
            halted.signal(signal.SIGCONT)
        self._halted.clear()

    def settle(self) -> str:
        """Wait until all is right; return "" or what is still wrong after the limit."""
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

    def _trouble(self) -> str:
        """Return what is not right yet; "" if all is."""
        watcher = self.c.watcher()
        if watcher["status"] == "stopped":
            self.command("start")
            return "it is stopped"
        ready, wanted = self.c.ready(), watcher["numprocesses"]
        if len(ready) != wanted:
            return f"{len(ready)} of {wanted} serve"
        if strangers := self._strangers():
            return f"left over: {strangers}"
        return "" if self.c.serves() else "no answer"

    def _strangers(self) -> list[str]:
        """Return the processes of ours that circusd does not know, except those that a command has just ended."""
        names = self.c.call("list")["watchers"]
        forking = {each["preload"]["pid"] for each in self.c.state()["watchers"] if each["preload"]}
        known = {self.c.pid, *forking, *(pid for name in names for pid in self.c.call("list", name=name)["pids"])}
        return [f"{each.pid} {each.command[:80]}" for each in self.c.processes() if each.pid not in known]


THINGS: dict[str, Callable[[Soak], object]] = {
    # Faults of workers
    "kill_a_worker": lambda it: it.send(signal.SIGKILL),
    "kill_all_workers": lambda it: it.send(signal.SIGKILL, most=100),
    "halt_a_worker": lambda it: it.send(signal.SIGSTOP),
    "terminate_a_worker": lambda it: it.send(signal.SIGTERM),
    "hang_a_worker": lambda it: it.order("block 600"),
    "let_a_worker_exit": lambda it: it.order("exit 3"),
    "let_a_worker_crash": lambda it: it.order("signal 11"),
    "make_a_worker_sick": Soak.make_sick,
    "make_all_sick_for_a_while": lambda it: it.set_for_a_while("live", "503"),
    "break_the_app_for_a_while": lambda it: it.set_for_a_while("boot", "die"),
    "slow_the_start_down": lambda it: it.c.set("boot", "slow 1"),
    "slow_the_drain_down": lambda it: it.c.set("drain", it.chance.choice(["0.5", "1", "10"])),
    # Faults around them
    "kill_the_plugin": Soak.kill_the_plugin,
    "kill_circusd": Soak.kill_circusd,
    "kill_the_forkserver": lambda it: it.send_to_forkserver(signal.SIGKILL),
    "halt_the_forkserver": lambda it: it.send_to_forkserver(signal.SIGSTOP),
    "halt_circusd_for_a_while": Soak.halt_circusd,
    "remove_the_runtime_folder": lambda it: shutil.rmtree(it.c.runtime / "r", ignore_errors=True),
    # Commands
    **{name: methodcaller("command", name) for name in ("restart", "reload", "xboard_reload", "stop", "start")},
    "reload_by_the_command_line": lambda it: it.c.run_cli("reload", "--no-preflight", timeout=120),
    "incr": lambda it: it.change_number("incr"),
    "decr": lambda it: it.change_number("decr"),
    "set_the_number": lambda it: it.command("set", options={"numprocesses": it.chance.randint(1, MOST)}),
    "reloadconfig": lambda it: it.command_all("reloadconfig"),
    "change_the_level": Soak.change_the_level,
    "signal_by_circusctl": lambda it: it.command_each("signal", signum=it.chance.choice([1, 2, 3, 9, 15])),
    "kill_by_circusctl": methodcaller("command_each", "kill"),
    "restart_everything": lambda it: it.command_all("restart"),
    "end_circusd_and_start_it": Soak.restart_circusd,
}


def soak(folder: Path, *, rounds: int, seed: int, left_out: list[str]) -> int:
    """Run *rounds*; return 0, or 1 if one of them did not recover."""
    chance, counts = random.Random(seed), Counter[str]()
    things = sorted(THINGS.keys() - set(left_out))
    print(f"seed {seed}, {rounds} rounds", flush=True)
    started = time.monotonic()
    with circusd(folder, watchers=[Watcher(numprocesses=NUMBER, options=OPTIONS)], plugins=BUNDLE, check_delay=1) as c:
        it = Soak(c, chance)
        for number in range(1, rounds + 1):
            # One to four things; the first round shows that all is well without them.
            done = chance.choices(things, k=chance.randint(1, 4)) if number > 1 else []
            trouble = it.do(done)
            it.heal()
            counts.update(done)
            trouble = trouble or it.settle()
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
    parser = argparse.ArgumentParser(
        "scripts/soak.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="another one each time without it")
    parser.add_argument("--without", action="append", default=[], choices=THINGS, metavar="THING", help="leave it out")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    with script_folder() as folder:
        return soak(folder, rounds=options.rounds, seed=seed, left_out=options.without)


if __name__ == "__main__":
    sys.exit(main())
