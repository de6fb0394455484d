"""Define the command restart: replace the running circusd by another one, without a lost request."""

import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from shlex import quote

import click

from xboard_circus.cli import launching
from xboard_circus.cli.context import for_instance, names_argument, timeout_option
from xboard_circus.cli.launching import Launched
from xboard_circus.cli.leaving import Costs, costs, leave, why_alone
from xboard_circus.cli.lifecycle import (
    await_answer,
    await_ready,
    check_file,
    in_background,
    launch,
    left_running,
    one_by_one,
    stop_all,
)
from xboard_circus.cli.reloading import no_preflight_option, reload_one, try_new_code
from xboard_circus.cli.screen import agree, ignored, interrupted, progress, say
from xboard_circus.config import is_backend
from xboard_circus.core.kept_variables import OF_UNIT, kept, of_circusd
from xboard_circus.core.verdict import predecessors, serving
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, placement, procs, runtime, servers
from xboard_circus.host.service_manager import OUR_UNIT
from xboard_circus.instance import Instance, Silent
from xboard_circus.snapshot import Snapshot
from xboard_circus.worker import runs_worker

TRIAL, ROOM = "trial.json", 16_384
NOT_BEGUN = "nothing was restarted"
FIRST_PROCESS = "xboard_circus.container"


@click.command()
@names_argument
@click.option("--cold", is_flag=True, help="Stop everything, then start it; connections are refused in between.")
@no_preflight_option
@click.option("--yes", is_flag=True, help="Do not ask, although requests will fail for a while.")
@timeout_option
@for_instance
def restart(
    instance: Instance, names: tuple[str, ...], cold: bool, no_preflight: bool, yes: bool, timeout: float
) -> None:
    """Restart circusd with everything that it runs, or only the watchers NAME.

    Without NAME no request is lost: the new code is tried first, the old workers serve until the new ones are ready,
    and [circus] and [socket:...] of the ini file are read again. Where requests would fail, because an address changes
    or a server cannot run beside its successor, it asks first. A watcher that is stopped stays so, but for --cold.

    With NAME its workers are replaced as by `reload NAME`. Where none serves, or none can run beside its successor,
    they are stopped and started.

    Environment variables that the running circusd has, and that are not set here, are kept, but for --cold. Where a
    process of the backend runs this, such as an app, the next circusd has those of the running one alone.
    """
    if names:
        with interrupted(NOT_BEGUN):
            chosen = {watcher["name"]: watcher["armed"] for watcher in instance.watchers(instance.running(), names)}
            check_file(instance, starts=False)
        _restart_watchers(instance, list(chosen), no_preflight=no_preflight, timeout=timeout)
        await_ready(instance, chosen, timeout=timeout)
        return
    with interrupted(NOT_BEGUN):
        if (recorded := runtime.supervisor_of(instance.id)) is not None:
            _move_to(recorded)  # first: its endpoint may be in its network alone
        if (found := instance.find()) is not None and found.identity != recorded:
            _move_to(found.identity)
        # Check while the old one still serves, because a mistake in the ini must not cost a running backend.
        check_file(instance)
        if found is not None:
            _keep_variables(found, cold=cold)
        if found is not None and not cold:
            _try_to_write(instance)
            alone = costs(instance, found) if isinstance(found, Snapshot) else Costs({}, frozenset(), {})
            _agree(alone, yes=yes)
            if not no_preflight:
                backends = [each for each in instance.config.watchers if is_backend(each) and not why_alone(each)]
                try_new_code(instance, [each.name for each in backends])
        expected = launching.expected(instance)
    with ExitStack() as afterwards:
        with launching.alone(instance):
            now = instance.find()
            if found is not None and now is None:
                _refuse_stopped(instance, found.identity)
            found = None if cold else now
            launched = None if found is None else _succeed(instance, found, afterwards)
            if launched is None:
                launched = _restart_cold(instance)
            elif isinstance(found, Snapshot):
                for name in _still_stopped(found, expected):
                    del expected[name]
        await_ready(instance, expected, timeout=timeout, launched=launched)


def _move_to(circusd: procs.Identity) -> None:
    """Move this command to where *circusd* lives, for the next one; XboardError where that one would not live on."""
    with placement.opened(circusd.pid) as there:  # first: what is asked of its pid is then of what is entered
        if not procs.is_running(*circusd):  # a pid of another container, or gone
            return
        _refuse_other_user(circusd)  # what root starts in namespaces of another user's is what that user put there
        _refuse_service(circusd)
        placement.enter(there)


def _refuse_service(circusd: procs.Identity) -> None:
    """Raise XboardError if systemd runs *circusd*, and starts another one or ends all with it, or the first process of
    a container, which ends with the circusd that it has started."""
    first = next(iter(procs.ancestors(circusd.pid)), 0)
    if FIRST_PROCESS in procs.command_line(first):
        raise XboardError(
            f"the end of circusd (pid {circusd.pid}) ends the container; `xboard-circus reload` replaces the workers "
            "without a lost request, `circusctl reloadconfig` reads the ini file; for all else restart the container"
        )
    unit = procs.unit_of(circusd.pid)
    if not unit:
        around = placement.unit_around(circusd.pid)  # one of Type=forking, or whose script has started circusd
        main = int(around.get("MainPID") or 0)
        unit = around["Id"] if main and main in (circusd.pid, first) else ""
    if unit:
        environ = procs.environ(circusd.pid) or {}
        restart = f"systemctl{' --user' if 'MANAGERPID' in environ else ''} restart {unit}"
        how = " without a lost request; `reload` replaces the workers alone"
        if environ.get(OUR_UNIT) != unit:
            how = (
                ", and requests fail meanwhile; `xboard-circus reload` replaces the workers without a lost request, "
                "and a unit of `xboard-circus service install` restarts without one"
            )
        by = f"circusd (pid {circusd.pid}) is run by systemd as {unit}"
        raise XboardError(f"{by}: `{restart}` restarts it{how}")


def _refuse_other_user(circusd: procs.Identity) -> None:
    """Raise XboardError if another user runs *circusd*: the next one would be ours."""
    for user in procs.users_of(circusd.pid) - {os.geteuid()}:
        name = servers.name_of(user)
        raise XboardError(f"circusd (pid {circusd.pid}) is run by {name}; nothing was stopped: run this as {name}")


def _refuse_stopped(instance: Instance, circusd: procs.Identity) -> None:
    """Raise XboardError if an operator has stopped *circusd*, which ran before the new code was tried."""
    record = runtime.read_record(instance.id) or {}
    if record.get("pid") == circusd.pid and record.get("stopped_by_operator"):
        raise XboardError("circusd was stopped meanwhile, so nothing was started: `xboard-circus start` starts it")


def _try_to_write(instance: Instance) -> None:
    """Raise XboardError if the next circusd could not write into its runtime folder, as on a full disk."""
    try:
        runtime.write_file(instance.id, TRIAL, {"trial": "x" * ROOM})
    except XboardError as error:
        raise XboardError(f"{error}; nothing was stopped") from error
    finally:
        with suppress(OSError, XboardError):
            (runtime.root_path() / instance.id / TRIAL).unlink()


def _keep_variables(found: Snapshot | Silent, *, cold: bool) -> None:
    """Set in this process, for the next circusd, the variables of the one *found* that are not set here.

    In a process of the backend, such as a worker's or an alert's command, they replace all others, also for *cold*.
    """
    for name in filter(OF_UNIT.fullmatch, [*os.environ]):
        del os.environ[name]
    before = procs.environ(found.identity.pid)
    if not procs.is_running(*found.identity):  # asked last: what has its pid by now may be anybody's
        before = None
    is_inside = "XBOARD_CIRCUSD" in os.environ or found.identity.pid in procs.ancestors()
    if cold and not is_inside:
        return
    if not before:
        say("the environment of the circusd that runs can't be read: the next one has that of this terminal", "yellow")
        return
    missing = of_circusd(before) if is_inside else kept(before, os.environ)
    if is_inside:
        os.environ.clear()
        say("the next circusd has the variables of the one that runs, because a process of its backend restarts it")
    os.environ.update(missing)
    if missing and not is_inside:
        is_set = "because it is not set here" if len(missing) == 1 else "because they are not set here"
        say(f"kept from the circusd that runs, {is_set}: {', '.join(sorted(missing))}")


def _agree(found: Costs, *, yes: bool) -> None:
    """Print what stops before it starts again; if requests would fail, ask, or raise XboardError without a terminal."""
    for name, why in found.stopped.items():
        say(f"{name} is stopped and started, not replaced: {why}", "yellow")
    for name, why in found.ending.items():
        say(f"{name} is stopped, when it has answered what is in flight: {why}", "yellow")
    if not found.losing or yes:
        return
    cost = f"requests to {', '.join(sorted(found.losing))} fail until the new workers are up"
    agree(cost, "Restart?", "nothing was stopped: `xboard-circus restart --yes` restarts all the same")


def _succeed(instance: Instance, found: Snapshot | Silent, afterwards: ExitStack) -> Launched | None:
    """Replace the circusd that was *found* by a new one; None, with nothing done, if no worker could stay.

    The new one waits before the old one is ordered to leave, so whenever this process is killed, one of the two is in
    charge. From the end of the old one on, also between two waits, Ctrl-C is reported as *afterwards* by the new one.
    """
    old = found.identity.pid
    launched = None
    try:
        with progress() as shown:
            launched = launching.launch(instance, after=found.identity)
            departure = leave(instance, found, launched, shown)
            if departure is None:
                launched.withdraw()
                return None
            departure.await_end(shown)
            afterwards.enter_context(in_background(launched))
    except KeyboardInterrupt as error:
        if launched is None or launched.withdraw():
            raise KeyboardInterrupt(f"{NOT_BEGUN}: circusd (pid {old}) runs on") from error
        follows = f"circusd (pid {old}) ends, and circusd (pid {launched.identity.pid}) follows it"
        raise KeyboardInterrupt(f"no longer waiting; {follows}: `xboard-circus status`") from error
    try:
        await_answer(instance, launched)
    except XboardError as error:
        code = launched.process.poll()
        if code not in (None, 0, -signal.SIGTERM):  # that is a `stop` meanwhile
            circusd_record.amend(instance.id, found.identity, is_ordered=False, next_ended=code)
        what = "the workers of the old circusd serve on, but none that fails is replaced until a circusd runs"
        raise XboardError(f"{error}\n{what}: `xboard-circus restart` tries again") from error
    return launched


def _still_stopped(found: Snapshot, expected: Iterable[str]) -> list[str]:
    """Report which of the *expected* watchers were stopped when circusd was *found*, and return their names."""
    watchers = {name: each for name in expected if (each := found.watcher(name))}
    stopped = [name for name, each in watchers.items() if each["status"] == each["verdict"]["word"] == "stopped"]
    for name in stopped:
        say(f"{name} stays stopped; `xboard-circus start {quote(name)}` starts it", "yellow")
    return stopped


def _restart_cold(instance: Instance) -> Launched:
    left = f"the stop goes on, and circusd of {instance.shown} is not started again: `xboard-circus start`"
    with ignored(signal.SIGHUP):
        with left_running(left):
            if stop_all(instance) is not None:
                say(f"stopped circusd of {instance.shown}")
        return launch(instance)


def _restart_watchers(instance: Instance, names: Sequence[str], *, no_preflight: bool, timeout: float) -> None:
    """Reload the watchers of which a worker serves, where that can be; stop and start the others."""
    written = {each.name: each for each in instance.config.watchers}
    with interrupted(NOT_BEGUN):
        found = instance.watchers(instance.running(), names)
        served = [each["name"] for each in found if each["armed"] and (serving(each) or predecessors(each))]
        if not no_preflight:
            tried = [name for name in served if name in written and runs_worker(written[name].cmd, written[name].args)]
            try_new_code(instance, tried)
    numbers = {each["name"]: max(1, each["numprocesses"]) for each in found}
    for name, rest in one_by_one(names):
        if name in served and name in written and not why_alone(written[name]):
            reload_one(instance, name, rest)
            continue
        goes_on = f"circusd goes on with the restart of {name}: `xboard-circus status`{rest}"
        with left_running(goes_on), progress() as shown, instance.client() as client:
            shown.waiting_for(f"waiting for {name} to stop and start")
            client.restart(name, deadline=numbers[name] * instance.graceful_timeout(name) + timeout)
