"""Start circusd in the background, and wait until the backend is up or has failed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from circus.util import to_bool

from xboard_circus import config
from xboard_circus.circus_client import CircusdClient, CircusdGone, CommandRefused
from xboard_circus.cli.readiness import Expected, Outlook, Stage, outlooks
from xboard_circus.cli.screen import Progress
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.instance import Instance

LOOK_EVERY = 0.2
LOCK_WITHIN = 30.0
ANSWER_WITHIN = 20.0
TAIL_LINES, TAIL_BYTES = 15, 16_384
SLACK = 5.0  # for what comes before the first worker: circusd's own start


@dataclass(frozen=True, slots=True)
class _Log:
    """A log that circusd writes to, from where it ended before the start."""

    path: Path
    start: int

    @classmethod
    def at(cls, path: Path) -> _Log:
        return cls(path, path.stat().st_size if path.exists() else 0)

    def new_lines(self) -> list[str]:
        """Return the last lines of those that were written since."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0 if end < self.start else self.start, end - TAIL_BYTES))
                return file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        except FileNotFoundError:
            return []


@dataclass(frozen=True, slots=True)
class Launched:
    """A circusd that this process has started."""

    process: subprocess.Popen[bytes]
    identity: procs.Identity
    logs: tuple[_Log, ...]

    def raise_if_ended(self) -> None:
        """Raise XboardError with the last lines of its logs where it is gone already."""
        code = self.process.poll()
        if code is None:
            return
        lines = [line for log in self.logs for line in log.new_lines()]
        where = " and ".join(str(log.path) for log in self.logs)
        told = "\n  ".join(["its last lines:", *lines]) if lines else "it has written nothing"
        raise XboardError(f"circusd ended with exit code {code} ({where}); {told}")


@contextmanager
def alone(instance: Instance) -> Iterator[None]:
    """Lock the start of this ini file against other starts, such as the monitor's."""
    path = runtime.instance_dir(instance.id) / "start.lock"
    give_up_at = time.monotonic() + LOCK_WITHIN
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise XboardError(f"another start of {instance.shown} is at work; try again later") from None
                time.sleep(LOOK_EVERY)
        yield


def make_folders(instance: Instance) -> None:
    """Make the folders of all logs: Circus drops a watcher whose log it can't open."""
    for folder in [instance.config.folder / "logs", *config.log_folders(instance.config)]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise XboardError(
                f"{folder}: the folder for logs cannot be made: {error.strerror}; make it, or let this user write there"
            ) from error


def launch(instance: Instance) -> Launched:
    """Start circusd with the ini file's folder as its own, in a session that a Ctrl-C here does not reach."""
    found = instance.config
    arguments = [sys.executable, "-m", "circus.circusd", str(found.path)]
    out = found.folder / "logs" / "circusd.out"
    log = found.given.get("logoutput")
    if log is None:
        log = "logs/circusd.log"
        arguments += ["--log-output", log]
    logs = [out] if log == "-" or log.startswith("syslog:") else [found.folder / log, out]
    make_folders(instance)
    kept = tuple(_Log.at(log) for log in logs)
    try:
        with out.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                cwd=found.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise XboardError(f"circusd cannot be started: {error}") from error
    launched = Launched(process, procs.Identity(process.pid, procs.start_time(process.pid) or 0), kept)
    # The guard writes the same when the first watcher starts. Until then, and where no watcher is armed, it is this
    # that tells `stop` and the monitor whom they have before them, and it takes the mark of an earlier `stop` away.
    instance.write_record(launched.identity)
    return launched


def wait_for_answer(instance: Instance, launched: Launched, *, timeout: float = ANSWER_WITHIN) -> None:
    """Return when the circusd that was started answers.

    Raises:
        XboardError: It has ended, or is silent for *timeout* seconds.
    """
    give_up_at = time.monotonic() + timeout
    with instance.client() as client:
        while True:
            launched.raise_if_ended()
            try:
                if client.pid() == launched.identity.pid:
                    return
            except (CircusdGone, CommandRefused):
                pass
            if time.monotonic() > give_up_at:
                raise XboardError(
                    f"circusd (pid {launched.identity.pid}) does not answer at {instance.config.endpoint} after "
                    f"{timeout:g} s; it still runs: `xboard-circus stop` ends it, its log is {launched.logs[0].path}"
                )
            time.sleep(LOOK_EVERY)


def expected(instance: Instance) -> list[Expected]:
    """Return the watchers that a start has to bring up, and keep up: not those that run once.

    Nor the dashboard: a start does not fail because a page about it can't be shown.
    """
    return [
        Expected(watcher.name, config.is_armed(watcher))
        for watcher in instance.config.watchers
        if to_bool(watcher.given.get("autostart", "True")) and watcher.respawn and not config.is_dashboard(watcher)
    ]


def longest_start(instance: Instance, timeout: float) -> float:
    """Return the longest time in seconds until each watcher is up or has failed, *timeout* at most."""
    options = [watcher.options for watcher in instance.config.watchers]
    own = [each.health.startup_timeout + each.port.grace for each in options]
    return min(timeout, max(own, default=0.0) + SLACK)


def wait_until_ready(
    instance: Instance,
    watchers: list[Expected],
    progress: Progress,
    *,
    timeout: float,
    launched: Launched | None = None,
) -> list[Outlook]:
    """Wait until the *watchers* are up, stuck, or *timeout* seconds are over; print the progress."""
    give_up_at = time.monotonic() + timeout
    last = [Outlook(each.name, Stage.COMING, f"{each.name}: not created yet") for each in watchers]
    with instance.client() as client:
        while True:
            if launched is not None:
                launched.raise_if_ended()
            last = _look(instance, client, watchers) or last
            for outlook in last:
                progress.tell(outlook.name, outlook.text)
            coming = [outlook.name for outlook in last if outlook.stage is Stage.COMING]
            if not coming or time.monotonic() > give_up_at:
                return last
            progress.waiting_for(f"waiting for {', '.join(coming)}")
            time.sleep(LOOK_EVERY)


def _look(instance: Instance, client: CircusdClient, watchers: list[Expected]) -> list[Outlook]:
    try:
        return outlooks(instance.ask(client), watchers)
    except (CircusdGone, CommandRefused):
        return []
