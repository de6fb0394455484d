"""Watch circusd itself, on hosts without systemd and containers: ``python -m xboard_circus.monitor``.

Circus keeps the workers up, and this keeps Circus up: a circusd that died, or that runs and does not answer, is started
again, by the rules for a worker: at once, then after ever longer waits, then once in a cooldown, for ever. A circusd
that an operator has stopped with ``xboard-circus stop`` is left alone.
"""

import logging
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import click

from xboard_circus import __version__
from xboard_circus.checks import host_rules, port_rules
from xboard_circus.checks.findings import ERROR
from xboard_circus.config import Config, load
from xboard_circus.core.restart_limits import RestartBudget, RestartLimits
from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, procs, runtime
from xboard_circus.host.lock_file import locked
from xboard_circus.host.programs import scratch_file, start_detached
from xboard_circus.host.written_files import narrow, set_umask
from xboard_circus.instance import EndpointTaken, Instance, Silent
from xboard_circus.logs.files import MONITOR_LOG, MONITOR_OLD_FILES
from xboard_circus.masking import printable
from xboard_circus.rotating_log import RotatingLog

log = logging.getLogger("xboard_circus.monitor")

SLOT = 1  # the budget counts by worker; circusd is the only one here
ANSWER_TIMEOUT, START_TIMEOUT = 5.0, 180.0
PATIENCE_WITH_SIGNS = 10  # times as long


class CircusdSighting(NamedTuple):
    """Result of one look at circusd.

    Attributes:
        running: The circusd of our ini, if it is alive.
        answers: A process answers at its endpoint.
        stopped: An operator has stopped it on purpose.
        taken: Why it cannot start now, such as another process on its port; "" if it can.
        crowded: Why it does not answer although it works; "" if that is unknown.
        quiet: Seconds since its last sign of life.
    """

    running: procs.Identity | None = None
    answers: bool = False
    stopped: bool = False
    taken: str = ""
    crowded: str = ""
    quiet: float = math.inf


class CircusdHost(Protocol):
    """The host that circusd runs on: what the monitor sees and does there."""

    def look(self) -> CircusdSighting: ...

    def start(self) -> None: ...

    def end(self, circusd: procs.Identity) -> None: ...


class Monitor:
    """Look in rounds, and start or end circusd when that is due.

    A start counts as failed when circusd is gone at a later look, whatever the starting command reported: one that gave
    up waiting for the workers has left a circusd that may still come up.
    """

    def __init__(
        self,
        host: CircusdHost,
        *,
        patience: float,
        limits: RestartLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),
    ) -> None:
        self._host, self._patience, self._clock, self._jitter = host, patience, clock, jitter
        self._budget = RestartBudget(limits or RestartLimits(), slots=1)
        self._up_since: float | None = None
        self._silent_since: float | None = None
        self._next_try_at: float | None = clock()  # a circusd missing at first is no failure: it is simply started
        self._last_note = ""

    def round(self) -> None:
        """Look once, and do what is due."""
        seen, now = self._host.look(), self._clock()
        if seen.answers:
            self._note_answer(now)
            return
        was_up, self._up_since = self._up_since is not None, None
        if seen.stopped:
            self._silent_since = self._next_try_at = None
            self._note("stopped by an operator: left alone until `xboard-circus start`")
        elif seen.crowded:
            self._silent_since = None
            self._note(seen.crowded)
        elif seen.running is not None:
            self._bear_silence(seen.running, seen.quiet, now)
        else:
            self._silent_since = None
            self._bring_back(now, seen.taken, was_up=was_up)

    def _note_answer(self, now: float) -> None:
        self._silent_since = self._next_try_at = None
        if self._up_since is None:
            self._up_since = now
        self._note("circusd answers")
        if self._budget.reset_if_stable(SLOT, up_for=now - self._up_since):
            log.info("circusd has held: its failures are forgotten")

    def _bear_silence(self, circusd: procs.Identity, quiet: float, now: float) -> None:
        """Kill a circusd that has been silent for long; one that gives signs of life ten times as late.

        It may lack the processor, which any user of the host can cause, and a kill would free its port for that user.
        """
        if self._silent_since is None:
            self._silent_since = now
        silence = now - self._silent_since
        if silence < self._patience or (quiet < self._patience and silence < self._patience * PATIENCE_WITH_SIGNS):
            what = f"circusd (pid {circusd.pid}) runs and does not answer"
            self._note(f"{what}; killed after {self._patience:g} s of that")
            return
        log.error("circusd (pid %d) has not answered for %.0f s: killing it", circusd.pid, silence)
        self._silent_since = self._next_try_at = None
        self._host.end(circusd)

    def _bring_back(self, now: float, taken: str, *, was_up: bool) -> None:
        # A start would be refused where the port is taken, which is no failure of circusd. The end of one that was up
        # is: the kernel gives its port back a moment later.
        if self._next_try_at is None:
            self._next_try_at = now
            if was_up or not taken:
                verdict = self._budget.failed(SLOT, now, jitter=self._jitter())
                self._next_try_at += verdict.wait
                log.warning("circusd is gone: %s", verdict.reason)
        if taken:
            self._note(f"circusd is started when it can be: {taken}")
        elif now >= self._next_try_at:
            self._next_try_at, self._last_note = None, ""
            log.info("starting circusd")
            self._host.start()

    def _note(self, what: str) -> None:
        """Log the findings of the rounds when they change."""
        if what != self._last_note:
            self._last_note = what
            log.info("%s", what)


class ThisHost:
    """circusd of one ini file on this machine. No wait continues once *leaving* is set."""

    def __init__(self, config: Config, leaving: threading.Event) -> None:
        self._instance = Instance(config.path, answer_within=ANSWER_TIMEOUT)
        self._leaving = leaving

    def look(self) -> CircusdSighting:
        with suppress(XboardError):  # the start will say so
            self._instance = Instance(self._instance.config_file, answer_within=ANSWER_TIMEOUT)
        stopped = bool((runtime.read_record(self._instance.id) or {}).get("stopped_by_operator"))
        try:
            found = self._instance.find()
        except EndpointTaken as error:
            return CircusdSighting(stopped=stopped, taken=str(error))
        except XboardError:  # the start will report it
            found = None
        if isinstance(found, Silent):
            crowded, quiet = self._instance.crowded_out(found.identity), self._instance.quiet_for(found.identity)
            return CircusdSighting(found.identity, stopped=stopped, crowded=crowded, quiet=quiet)
        wrong = () if found is not None else port_rules.findings(self._instance.config, ages=False)
        taken = next((each.what for each in wrong if each.level is ERROR), "")
        return CircusdSighting(answers=found is not None, stopped=stopped, taken=taken)

    def start(self) -> None:
        """Run ``xboard-circus start``; its output goes into our log."""
        command = [sys.executable, "-m", "xboard_circus", "-c", str(self._instance.config_file), "start"]
        # A file and not a pipe, because a circusd that inherits a pipe could keep us waiting.
        with scratch_file("start") as output:
            starting = start_detached(command, cwd="/", output=output)  # imports no module of the ini's folder
            give_up_at = time.monotonic() + START_TIMEOUT
            while starting.poll() is None and not self._leaving.wait(0.1):
                if time.monotonic() >= give_up_at:
                    starting.kill()
                    starting.wait()
                    log.error("the start took longer than %g s and was broken off", START_TIMEOUT)
            output.seek(0)
            for line in output.read().decode(errors="replace").splitlines()[-20:]:
                log.info("start: %s", line)
            if starting.returncode:
                log.error("the start ended with exit code %d", starting.returncode)

    def end(self, circusd: procs.Identity) -> None:
        """Kill circusd: a SIGTERM would end its workers with it, and these serve until those of the next one do."""
        circusd_record.amend(self._instance.id, circusd, why=Say.MONITOR_ENDED_IT())
        if procs.send_signal(*circusd, signal.SIGKILL, {self._instance.user}):
            log.info("SIGKILL to circusd (pid %d); its workers serve on", circusd.pid)


def log_to(path: Path, umask: object) -> None:
    """Log to the file at *path*, rotated and with the *umask* of [circus], and to standard output."""
    try:
        forbidden = set_umask(umask)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = RotatingLog(path, max_bytes=1_000_000, old_files=MONITOR_OLD_FILES)
        if file.stream is not None:
            with suppress(OSError):  # another user's
                narrow(file.stream.fileno(), forbidden)
    except OSError as error:
        raise XboardError(f"{path.parent}: no log can be written there: {error.strerror}") from error
    for handler in (file, logging.StreamHandler(sys.stdout)):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # otherwise a library that sets up logging for itself would print every line twice


def watch(config: Config, *, interval: float, patience: float) -> None:
    """Watch until SIGTERM or Ctrl-C."""
    leaving = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: leaving.set())
    os.chdir(config.folder)  # circusd's folder too: a relative ipc:// endpoint means the same place to both
    lock = runtime.instance_dir(runtime.instance_id(config.path)) / "monitor.lock"
    with locked(lock, "a monitor of this backend runs already"):
        log_to(config.folder / MONITOR_LOG, config.circus.get("umask"))
        log.info("xboard-circus %s watches %s every %g s", __version__, config.path, interval)
        monitor = Monitor(ThisHost(config, leaving), patience=patience)
        while not leaving.is_set():
            try:
                monitor.round()
            except Exception:
                log.exception("this round failed")
            leaving.wait(interval)
        log.info("the monitor ends; what it has started runs on")


SECONDS = click.FloatRange(min=0.1, max=3600)


@click.command()
@click.option("-c", "--config", "config_file", default="circus.ini", show_default=True, help="The ini file of circusd.")
@click.option("--interval", type=SECONDS, default=5, show_default=True, help="Seconds between two looks.")
@click.option(
    "--patience", type=SECONDS, default=30, show_default=True, help="Seconds without an answer to put up with."
)
def main(config_file: str, interval: float, patience: float) -> None:
    """Start circusd again when it has died or does not answer. For hosts without systemd and containers."""
    try:
        config = load(config_file)
        if (refusal := host_rules.refusal(config.folder)) is not None:
            raise XboardError(refusal)
        watch(config, interval=interval, patience=patience)
    except XboardError as error:
        click.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
