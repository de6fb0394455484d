"""Try new code on one throw-away worker, away from the public port, before a reload touches any serving worker.

The trial runs as a worker of the watcher would: the same command behind the same launcher, the same environment, folder
and user. XBOARD_PREFLIGHT=1 keeps it off the public socket, and a runtime folder of its own hides it from circusd and
the prober. Only our own worker supports that; another command is left out.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, NamedTuple

from circus.process import Process
from circus.util import load_virtualenv, to_bool

from xboard_circus import env_files
from xboard_circus.checks import host_rules
from xboard_circus.checks.env_file_rules import of_watcher
from xboard_circus.checks.watcher_environ import as_circusd_sees_it
from xboard_circus.config import Config, WatcherConfig
from xboard_circus.core.causes import Death, cause_of
from xboard_circus.core.names import runs_dashboard
from xboard_circus.core.sentences import Say, as_said
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.host.programs import start_detached
from xboard_circus.host.users import uid_of, user_of
from xboard_circus.masking import safe_text, secrets_of, without
from xboard_circus.supervisor.forkable import USUAL, command_text, why_not_forkable
from xboard_circus.supervisor.life.command_line import environment, launch_command, of_launcher
from xboard_circus.worker import MODULE, fork_orders, runs_worker

TOKEN = "trial"
WID = 0  # Circus begins at 1, so no app takes the trial for a worker and then uses its file or port too
POLL = 0.05
LONGEST_END = 10.0
LATE_START_GRACE = 5.0  # it serves no client, and uvicorn handles no SIGTERM before its lifespan has started
TAIL_LINES, TAIL_BYTES = 15, 16_384
MOST_SAID = 4096
HINT_ON_COMMAND = "change that; or take worker.preload and worker.preload_modules out"
HINT_ON_APP = "open that in the app's lifespan, in each worker; or write worker.preload = server"
HINT_ON_MODULE = "take it out of worker.preload_modules"


class TrialOutcome(NamedTuple):
    """Result of the trial of one watcher; a command that is not our worker did not fail either.

    Attributes:
        reason: One line for a person, whatever the result.
        log: The last lines of a failed trial.
    """

    failed: bool
    reason: str
    log: tuple[str, ...] = ()

    def with_log(self) -> str:
        """Return the reason, and under it the log."""
        return "\n  ".join([f"{self.reason}; its last lines:", *self.log]) if self.log else self.reason


class Trial(NamedTuple):
    """The throw-away worker while it runs."""

    popen: subprocess.Popen[bytes]
    ready_file: Path
    output: IO[bytes]
    secrets: frozenset[str]

    def text(self) -> str:
        return safe_text(without(last_text(self.output), self.secrets))


def last_text(file: IO[bytes], *, since: int = 0) -> str:
    """Return the content of *file* after position *since*; a shorter file was truncated meanwhile."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0 if end < since else since, end - TAIL_BYTES))
    return file.read().decode(errors="replace")


def preflight(config: Config, watcher: WatcherConfig) -> TrialOutcome:
    """Start a worker of *watcher*, wait until it is ready, end it, all within `health.startup_timeout` seconds."""
    if not runs_worker(watcher.cmd, watcher.args):
        return TrialOutcome(False, f"no trial: its command is not `python -m {MODULE}`")
    if (refusal := host_rules.refusal(config.folder)) is not None:
        return TrialOutcome(True, f"no trial: {refusal}")
    began_at = time.monotonic()
    try:
        with _unwound_by_signals(), _trial(config, watcher) as trial:
            failure = _await_ready(trial, watcher, give_up_at=began_at + watcher.options.health.startup_timeout)
            seconds = time.monotonic() - began_at
            lines = tuple(trial.text().splitlines()[-TAIL_LINES:]) if failure else ()
    except (XboardError, OSError, ValueError) as error:
        return TrialOutcome(True, f"no trial worker could be started: {error}")
    if failure:
        reason = f"the trial worker did not get ready: {failure}"
        if watcher.options.run.before:
            reason += " (run.before comes after the trial; where the new code needs it first: reload --no-preflight)"
        return TrialOutcome(True, reason, lines)
    return TrialOutcome(False, f"a trial worker was ready after {seconds:.1f} s")


class WhyNot(NamedTuple):
    """Why workers are not forked as configured, and what to do about it; no hint where only the default says so."""

    why: str
    hint: str


def why_not_forked(config: Config, watcher: WatcherConfig) -> WhyNot | None:
    """Return why no worker of *watcher* is forked from what `worker.preload` and its modules name; None if it can be.

    A forkserver is started as circusd would, and ended when it has imported that.
    """
    wanted = watcher.options.worker
    if wanted.preload == "off" or not sys.platform.startswith("linux") or not runs_worker(watcher.cmd, watcher.args):
        return None
    imports_more = wanted.preload == "app" or bool(wanted.preload_modules)
    given = {name: watcher.given.get(name) for name in USUAL}
    options = {name: to_bool(text) if text and USUAL[name] is not None else text for name, text in given.items()}
    command = command_text(watcher.cmd, watcher.args)
    if why := "" if runs_dashboard(command) else why_not_forkable(command, options):
        return WhyNot(why, HINT_ON_COMMAND if imports_more else "")
    if not imports_more:
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, _unwound_by_signals(), _trial(config, watcher, orders=theirs) as trial:
        theirs.close()
        ours.settimeout(watcher.options.health.startup_timeout)
        try:
            said = ours.recv(MOST_SAID)
        except TimeoutError:
            said = b"its import does not end"
        except OSError as error:
            said = str(error).encode()
        if said == fork_orders.READY:
            return None
        why = as_said(safe_text(without(said.decode(errors="replace"), trial.secrets)) or _why_ended(trial))
        if wanted.preload == "app":
            return WhyNot(Say.NOT_FORKED_FROM(why=why), HINT_ON_APP)
        return WhyNot(Say.FORKSERVER_FAILED(why=why), HINT_ON_MODULE)


def _why_ended(trial: Trial) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        trial.popen.wait(1.0)  # its channel is closed a moment before its end
    code, lines = trial.popen.returncode, trial.text().splitlines()
    if code in (1, None) and lines:
        return lines[-1]
    return cause_of(Death(exit_code=code, was_up=True, log_tail=trial.text()))[1]


def _await_ready(trial: Trial, watcher: WatcherConfig, *, give_up_at: float) -> str:
    """Return "" once it is ready, otherwise why it is not."""
    while not os.path.isfile(trial.ready_file):
        code = trial.popen.poll()
        if code is not None:
            return cause_of(Death(exit_code=code, was_up=False, log_tail=trial.text(), command=watcher.cmd))[1]
        if time.monotonic() > give_up_at:
            late = f"not ready within health.startup_timeout = {watcher.options.health.startup_timeout:g} s"
            return "; ".join(filter(None, (late, last_no(trial.text()))))
        time.sleep(POLL)
    return ""


def last_no(log: str) -> str:
    """Return the last failed answer of the live or ready path from the log of a worker that did not get ready.

    >>> last_no("INFO:     Not ready yet: /health/ready says: status 503")
    '/health/ready says: status 503'
    """
    found = re.findall(r"Not (?:up|ready) yet: (\S+ says: .*)", log)
    return str(found[-1]) if found else ""


@contextlib.contextmanager
def _trial(config: Config, watcher: WatcherConfig, *, orders: socket.socket | None = None) -> Iterator[Trial]:
    """Start a worker, or with *orders* a forkserver at the other end of these."""
    instance = runtime.instance_id(config.path)
    folder = runtime.watcher_dir(instance, f"preflight-{os.getpid()}", *user_of(watcher))
    # It gets some socket of a kind that it could serve on, in place of the public one.
    inherited, other_end = socket.socketpair()
    try:
        with inherited, other_end, tempfile.TemporaryFile() as output:
            env = _environment(config, watcher, instance=instance, folder=folder)
            values = env_files.values(of_watcher(config, watcher), env)
            secrets = secrets_of({**env, **values})
            env = of_launcher({**env, **values}, watcher.cmd, watcher.args)
            # In /, because the launcher enters the watcher's own folder. A Ctrl-C ends the wait, and that the trial.
            fds = [inherited.fileno()]
            if orders is not None:
                fds.append(orders.fileno())
                wanted = watcher.options.worker
                env |= fork_orders.variables(orders, wanted.preload, wanted.preload_modules)
            arguments = _arguments(watcher, env, fd=fds[0])
            popen = start_detached(arguments, cwd="/", output=output, env=env, shell=watcher.shell, pass_fds=fds)
            identity = procs.Identity(popen.pid, procs.start_time(popen.pid) or 0)
            ready_file = folder / f"{TOKEN}.ready"
            try:
                yield Trial(popen, ready_file, output, secrets)
            finally:
                longest = LONGEST_END if os.path.isfile(ready_file) else LATE_START_GRACE
                _end(popen, identity, uid_of(watcher), patience=min(watcher.graceful_timeout, longest))
    finally:
        with contextlib.suppress(RecursionError):  # its user made very deep folders there
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """End the trial on SIGTERM and SIGHUP, as on Ctrl-C."""

    def leave(signum: int, _: object) -> None:
        raise SystemExit(128 + signum)

    signals = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in signals:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)


def _environment(config: Config, watcher: WatcherConfig, *, instance: str, folder: Path) -> dict[str, str]:
    """Return the environment of a worker that Circus starts, with the marks of a trial.

    It names this process as its circusd, so the launcher ends with it. After a kill of the command line the rest of a
    trial is an orphan, which the next start or `clean` ends.
    """
    own = f"{os.getpid()}:{procs.start_time(os.getpid()) or 0}"
    facts = {"INSTANCE": instance, "CIRCUSD": own, "HOME": config.folder, "CONFIG": config.path}
    marks = {f"XBOARD_{name}": str(value) for name, value in {**facts, "RUNTIME_DIR": runtime.root()}.items()}
    given = as_circusd_sees_it(config, watcher)  # then as Circus builds it
    if watcher.copy_path:
        given.setdefault("PYTHONPATH", os.pathsep.join(sys.path))
    if virtualenv := watcher.given.get("virtualenv"):
        place = SimpleNamespace(copy_env=True, virtualenv=str(config.folder / virtualenv), env=given)
        load_virtualenv(place, py_ver=watcher.given.get("virtualenv_py_ver"))
    of_circus = SimpleNamespace(name=watcher.name, env=given)
    return {**environment(of_circus, folder, watcher.options, marks, ()), "XBOARD_PREFLIGHT": "1"}


def _arguments(watcher: WatcherConfig, env: Mapping[str, str], *, fd: int) -> list[str]:
    """Return the command line, built and split by Circus's own code."""
    options = SimpleNamespace(**{**watcher.given, "optnames": tuple(watcher.given)})
    how = {"args": watcher.args, "shell": watcher.shell, "env": dict(env), "watcher": options, "spawn": False}
    process = Process(watcher.name, WID, launch_command(watcher, wid=WID, token=TOKEN), **how)
    arguments: list[str] = process.format_args({name.lower(): fd for name in watcher.sockets_used})
    return arguments


def _end(popen: subprocess.Popen[bytes], identity: procs.Identity, user: int, *, patience: float) -> None:
    """End the trial, and what *user* has below it; a signal goes to the very process that was seen."""
    own = {identity: procs.users_of(identity.pid)}  # root's until the launcher becomes *user*
    below = dict.fromkeys(procs.below(identity, recursive=True), (user,))
    procs.signal_all(own, signal.SIGTERM, patience)
    procs.signal_all({**own, **below}, signal.SIGKILL, LONGEST_END)
    popen.poll()
