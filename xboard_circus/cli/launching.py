"""Start circusd in the background, and wait until the backend is up or has failed."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from xboard_circus import config
from xboard_circus import launch as launcher
from xboard_circus.circus_client import CircusdGone, CommandRefused
from xboard_circus.cli.screen import Progress, say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.core.verdict import has_come_up, headline, is_scaled_to_zero, runs_plainly, serving
from xboard_circus.errors import XboardError
from xboard_circus.host import inbox, placement, procs, runtime
from xboard_circus.host.lock_file import NoLockFile, locked
from xboard_circus.host.programs import start_detached
from xboard_circus.host.written_files import narrow, opener, refuse_behind_link, set_umask
from xboard_circus.instance import LOOK_EVERY, SEEN_WITHIN, Instance
from xboard_circus.preflight import TAIL_LINES, last_text
from xboard_circus.snapshot import Snapshot

LAUNCHER = str(Path(launcher.__file__).resolve())
LOCK_WITHIN = 30.0
ANSWER_WITHIN = 20.0
LATE_ANSWER_WITHIN = 120.0  # of one that gives signs of life, as on a host without a free core
REPLACED_WITHIN = 5.0
SLACK = 5.0  # for what precedes the first worker: circusd's own start


class Launched(NamedTuple):
    """A circusd that this process has started for *instance*; *logs* are its logs, with their size before.

    Attributes:
        gate: Where it waits for its turn; None if no other circusd ran when it was started.
    """

    process: subprocess.Popen[bytes]
    identity: procs.Identity
    logs: Mapping[Path, int]
    instance: str
    gate: int | None = None

    @property
    def log(self) -> Path:
        return next(iter(self.logs))

    def withdraw(self) -> bool:
        """End it while it waits for its turn; False, with nothing done, if circusd has given it that.

        The gate goes first: circusd renames it in the step in which it begins to end, so only one of the two gets it.
        """
        gate = runtime.instance_dir(self.instance) / f"gate-{self.gate}"
        try:
            gate.unlink()
        except FileNotFoundError:
            return False
        self.process.kill()
        self.process.wait()
        Path(f"{gate}.sock").unlink(missing_ok=True)
        return True

    def raise_if_ended(self) -> None:
        """Raise XboardError with the last lines of its logs if it is gone, and no other restart has replaced it."""
        code = self.process.poll()
        if code is None or runtime.supervisor_of(self.instance) not in (None, self.identity):
            return
        lines = []
        for log, size in self.logs.items():
            with suppress(FileNotFoundError), log.open("rb") as file:
                lines += last_text(file, since=size).splitlines()[-TAIL_LINES:]
        where = " and ".join(map(str, self.logs))
        shown = "\n  ".join(["its last lines:", *lines]) if lines else "it has written nothing"
        raise XboardError(f"circusd ended with exit code {code} ({where}); {shown}")


class Stage(Enum):
    """Stage of a watcher's start; *stuck* goes on by itself, but not within the time that a person waits."""

    READY = "ready"
    COMING = "coming"
    STUCK = "stuck"


class Outlook(NamedTuple):
    """Stage and line of output of one watcher's start."""

    name: str
    stage: Stage
    text: str


def alone(instance: Instance) -> AbstractContextManager[None]:
    """Lock the start or stop of this ini file against others, such as the monitor's.

    NoLockFile where there is no place for it: the runtime folder of a stopped service is gone, and root alone makes it.
    """
    try:
        path = runtime.instance_dir(instance.id) / "start.lock"
    except XboardError as error:
        raise NoLockFile(str(error)) from error
    return locked(path, f"try again later: another start or stop of {instance.shown} is at work", within=LOCK_WITHIN)


def make_folders(instance: Instance, *, starts: bool) -> XboardError | None:
    """Make the folders of all logs, because Circus drops a watcher that cannot open its log. Return why one failed.

    With *starts*, logs/ too, where `launch` puts circusd's output: a container has none, and its root is read-only.
    """
    set_umask(instance.config.circus.get("umask"))
    of_launch = [instance.config.folder / "logs"] if starts else []
    for folder in [*of_launch, *config.log_folders(instance.config)]:
        try:
            refuse_behind_link(folder)
            folder.mkdir(0o775, parents=True, exist_ok=True)  # also with umask = 000
        except OSError as error:
            cure = "make it, or let this user write there"
            return XboardError(f"{folder}: the folder for logs cannot be made: {error.strerror}; {cure}")
    return None


def keep_limits(circusd: procs.Identity) -> list[str]:
    """Raise our resource limits to those of *circusd*, and return those that stay smaller: only root raises a hard one.

    The shell of a restart may have smaller ones, which the next circusd and all workers inherit. Larger ones stay.
    """
    smaller: list[str] = []
    if not hasattr(resource, "prlimit"):  # macOS
        return smaller
    # RLIMIT_OFILE is another name of RLIMIT_NOFILE.
    limits = {getattr(resource, name): name for name in sorted(dir(resource), reverse=True) if name[:7] == "RLIMIT_"}
    for limit, name in limits.items():
        with suppress(OSError, ValueError):  # another user's, or gone
            theirs, (soft, hard) = resource.prlimit(circusd.pid, limit), resource.getrlimit(limit)
            raised = [max(pair, key=_size_of_limit) for pair in zip((soft, hard), theirs, strict=True)]
            with suppress(OSError, ValueError):
                resource.setrlimit(limit, (raised[0], raised[1]))
                continue
            resource.setrlimit(limit, (min(raised[0], hard, key=_size_of_limit), hard))
            if _size_of_limit(hard) < _size_of_limit(theirs[0]):
                lost = "unlimited" if theirs[0] == resource.RLIM_INFINITY else theirs[0]
                smaller.append(f"{name} {hard} in place of {lost}")
    return smaller


def _size_of_limit(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def launch(instance: Instance, *, after: procs.Identity | None = None) -> Launched:
    """Start circusd with the ini file's folder as its own, in a session that a Ctrl-C here does not reach.

    It waits until the circusd *after* has released it (`CircusdClient.leave`) or is gone, and has ended. Its stdin is
    an inbox, to which that circusd sends the listeners of its endpoints.
    """
    found = instance.config
    arguments = [sys.executable, "-m", "circus.circusd", str(found.path)]
    own, gate, box = procs.Identity.of(os.getpid()), None, None
    if after is not None:
        if worse := [*keep_limits(after), *placement.live_as(after.pid)]:
            cure = "restart again from a shell that allows more"
            say(f"the backend gets this shell's limits: {', '.join(worse)}; {cure}", "yellow")
        gate, folder = os.getpid(), runtime.instance_dir(instance.id)
        turn = ["--turn", str(runtime.make_gate(folder, gate)), "--starter", str(own)]
        if any(map(config.is_armed, found.watchers)):  # otherwise it has no code of ours to open it
            box = inbox.make(inbox.path_of(folder, gate))
        arguments = [sys.executable, "-I", "-S", LAUNCHER, *turn, "--after", str(after), "--", *arguments]
    out = found.folder / "logs" / "circusd.out"
    if (log := found.given.get("logoutput")) is None:
        log = "logs/circusd.log"
        arguments += ["--log-output", log]
    logs = [found.folder / log, out] if config.is_file(log) else [out]
    sizes = {log: log.stat().st_size if os.path.exists(log) else 0 for log in logs}
    umask = set_umask(found.circus.get("umask"))  # circusd inherits it: Circus sets it when the logs are open
    try:
        # Circus itself would open the log through a link.
        with ExitStack() as opened:
            opened.enter_context(box or nullcontext())
            output, first = (opened.enter_context(open(each, "ab", opener=opener)) for each in (out, logs[0]))
            for file in (output, first):
                with suppress(OSError):  # another user's
                    narrow(file.fileno(), umask)
            stdin = subprocess.DEVNULL if box is None else box
            process = start_detached(arguments, cwd=found.folder, output=output, stdin=stdin)
    except OSError as error:
        raise XboardError(f"circusd cannot be started: {error.filename or sys.executable}: {error.strerror}") from error
    identity = procs.Identity(process.pid, procs.start_time(process.pid) or 0)
    # The guard writes the same when the first watcher starts. Until then, and without an armed watcher, `stop` and the
    # monitor know this circusd by it; and it removes the mark of an earlier `stop`.
    launched = Launched(process, identity, sizes, instance.id, gate)
    try:
        instance.write_record(identity, runtime.RECORD if gate is None else f"gate-{gate}", was_started=True)
    except XboardError as error:  # such as on a full disk
        if gate is not None:  # it would wait for a turn that never comes
            launched.withdraw()
            raise
        say(f"{error}; circusd (pid {identity.pid}) starts all the same, and records itself when it can", "yellow")
    return launched


def wait_for_answer(instance: Instance, launched: Launched) -> None:
    """Wait until the circusd that was started answers.

    Raises:
        XboardError: It has ended, or is silent for ANSWER_WITHIN seconds, LATE_ANSWER_WITHIN with signs of life.
    """
    began_at = time.monotonic()
    with instance.client(as_found=False) as client:
        while True:
            launched.raise_if_ended()
            with suppress(CircusdGone, CommandRefused):
                if client.pid() == launched.identity.pid:
                    return
            lasted = time.monotonic() - began_at
            is_silent = lasted > ANSWER_WITHIN and instance.quiet_for(launched.identity) > SEEN_WITHIN
            if is_silent or lasted > LATE_ANSWER_WITHIN:
                what = f"runs, and does not answer at {instance.config.endpoint} after {lasted:.0f} s"
                cure = f"`xboard-circus restart` replaces it, its log is {launched.log}"
                raise XboardError(f"circusd (pid {launched.identity.pid}) {what}; {cure}")
            time.sleep(LOOK_EVERY)


def expected(instance: Instance) -> dict[str, bool]:
    """Return the watchers that a start has to bring up and keep up, and whether each is armed; not those that run once.

    Nor the dashboard, because a start does not fail for want of a page about it.
    """
    kept = (each for each in instance.config.watchers if each.autostart and each.respawn)
    return {each.name: config.is_armed(each) for each in kept if not config.is_dashboard(each)}


def longest_start(instance: Instance, timeout: float) -> float:
    """Return the longest time in seconds until each watcher is up or has failed, *timeout* at most."""
    options = [watcher.options for watcher in instance.config.watchers]
    before = [each.run.before_timeout if each.run.before else 0.0 for each in options]
    own = [each.health.startup_timeout + each.port.grace + run for each, run in zip(options, before, strict=True)]
    return min(timeout, max(own, default=0.0) + SLACK)


def wait_until_ready(
    instance: Instance,
    watchers: Mapping[str, bool],
    progress: Progress,
    *,
    timeout: float,
    launched: Launched | None = None,
) -> list[Outlook]:
    """Wait until the *watchers* are up, stuck, or *timeout* seconds are over; print the progress."""
    give_up_at = time.monotonic() + timeout
    last = [Outlook(name, Stage.COMING, f"{name}: not created yet") for name in watchers]
    with instance.client(as_found=False) as client:
        while True:
            if launched is not None and not _is_replaced(instance, launched):
                launched.raise_if_ended()
            with suppress(CircusdGone, CommandRefused):
                last = outlooks(instance.query(client), watchers)
            for outlook in last:
                progress.report(outlook.name, outlook.text)
            coming = [outlook.name for outlook in last if outlook.stage is Stage.COMING]
            if not coming or time.monotonic() > give_up_at:
                return last
            progress.waiting_for(f"waiting for {', '.join(coming)}")
            time.sleep(LOOK_EVERY)


def _is_replaced(instance: Instance, launched: Launched) -> bool:
    """Return whether another restart has replaced this circusd, which has ended as ordered.

    The other restart records its circusd a moment after it has ordered this one to leave.
    """
    give_up_at = time.monotonic() + REPLACED_WITHIN
    while launched.process.poll() == 0 and time.monotonic() < give_up_at:
        if instance.is_replaced(launched.identity):
            return True
        time.sleep(LOOK_EVERY)
    return False


def outlooks(snapshot: Snapshot, watchers: Mapping[str, bool]) -> list[Outlook]:
    """Return the stage of each of the *watchers*; an unarmed one reports only that it runs."""
    return [Outlook(name, *_outlook(name, snapshot.watcher(name), armed)) for name, armed in watchers.items()]


def _outlook(name: str, watcher: WatcherEntry | None, armed: bool) -> tuple[Stage, str]:
    if watcher is None:
        return Stage.STUCK, f"{name}: circusd runs without it, because it could not be created"
    if armed and not (watcher["armed"] or runs_plainly(watcher)):
        # Its hook has not run yet; until then no health check queries its workers.
        return Stage.COMING, f"{name}: {watcher['status']}"
    verdict = watcher["verdict"]
    if is_scaled_to_zero(watcher):
        return Stage.STUCK, f"{name}: {verdict['cause']}"
    if has_come_up(watcher):
        return Stage.READY, f"{name}: {serving(watcher)} of {watcher['numprocesses']} up"
    is_unprepared = verdict["word"] == "degraded" and any(each["held_by"] == "before" for each in watcher["workers"])
    is_uncreated = (watcher["last_reason_say"] or {}).get("key") == Say.NOT_CREATED.name
    is_stuck = verdict["word"] == "blocked" or is_unprepared or is_uncreated or watcher["cooldown_until"] is not None
    return Stage.STUCK if is_stuck else Stage.COMING, f"{name}: {headline(verdict)}"
