"""Define the commands start and stop."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from shlex import quote

import click
from circus.util import DEFAULT_ENDPOINT_DEALER

from xboard_circus.checks import check, host_rules, port_rules
from xboard_circus.cli import launching, stopping
from xboard_circus.cli.cleaning import strangers_on_ports
from xboard_circus.cli.context import TIMEOUT, for_instance, names_argument, timeout_option
from xboard_circus.cli.launching import Launched, Stage
from xboard_circus.cli.screen import interrupted, progress, say, show
from xboard_circus.core.durations import span
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.core.verdict import headline
from xboard_circus.errors import XboardError
from xboard_circus.host import listeners, procs
from xboard_circus.host.lock_file import NoLockFile
from xboard_circus.instance import Instance
from xboard_circus.snapshot import Snapshot

ORPHAN_GRACE = 5.0
LAST_CHILDREN = 2.0  # a child of a worker may end a moment after it


@click.command()
@names_argument
@timeout_option
@for_instance
def start(instance: Instance, names: tuple[str, ...], timeout: float) -> None:
    """Start circusd in the background, or its stopped watchers NAME, and wait until the workers are up.

    The ini file is checked before circusd is started; with an error in it nothing is.
    """
    if names:
        _start_watchers(instance, names, timeout=timeout)
        return
    with ExitStack() as locks:
        with interrupted("nothing was started"):
            check_file(instance)
            locks.enter_context(launching.alone(instance))
            found = instance.find()
        launched = launch(instance) if found is None else None
    if launched is not None:
        await_ready(instance, launching.expected(instance), timeout=timeout, launched=launched)
    elif coming := _still_coming(instance, instance.answered(found)):
        await_ready(instance, coming, timeout=timeout)


@click.command()
@names_argument
@for_instance
def stop(instance: Instance, names: tuple[str, ...]) -> None:
    """Stop circusd, its workers and plugins, or only the watchers NAME, and wait until all are gone.

    What a worker started in a session of its own is left alone, and named. Exits with 1 if orphans of an earlier
    circusd still run, which `xboard-circus clean` ends, or if a process still holds a port of it.
    """
    if names:
        _stop_watchers(instance, names)
        return
    with ExitStack() as locks:
        # A restart has launched the next circusd before the old one is gone. Without a lock the stop goes on.
        with interrupted("nothing was stopped"), suppress(NoLockFile):
            locks.enter_context(launching.alone(instance))
        with left_running(f"circusd of {instance.shown} goes on to stop all that it runs: `xboard-circus status`"):
            below = stop_all(instance)
        stopping.mark_stopped(instance)
    line = instance.not_running() if below is None else f"stopped circusd of {instance.shown}"
    give_up_at = time.monotonic() + (0 if below is None else LAST_CHILDREN)
    while (orphans := instance.orphans_left()) and time.monotonic() < give_up_at:
        time.sleep(stopping.LOOK_EVERY)
    if orphans:
        raise XboardError(f"{line}{orphans}; `xboard-circus clean` ends them")
    held = [] if below is None else list(strangers_on_ports(instance, endpoints=False))
    left = [each for each in (instance.left_alone(below or ()), *held) if each]
    line = "; ".join([line, *left]) if left or below is None else f"{line} and all that it ran"
    if held:
        raise XboardError(line)
    say(line)


def _start_watchers(instance: Instance, names: Sequence[str], *, timeout: float) -> None:
    coming = {}
    with interrupted("nothing was started"):
        chosen = instance.watchers(instance.running(), names)
    for watcher in chosen:
        if watcher["status"] == "active":
            say(f"{watcher['name']} runs already: {headline(watcher['verdict'])}")
        else:
            coming[watcher["name"]] = watcher["armed"]
    for name, rest in one_by_one(coming):
        with left_running(f"circusd starts {name}{rest}"), instance.client() as client:
            client.call("start", name=name, match="simple", waiting=False, deadline=timeout)
    if coming:
        await_ready(instance, coming, timeout=timeout)


def _stop_watchers(instance: Instance, names: Sequence[str]) -> None:
    with interrupted("nothing was stopped"):
        chosen = [watcher["name"] for watcher in instance.watchers(instance.running(), names)]
    for name, rest in one_by_one(chosen):
        with left_running(f"circusd goes on to stop {name}{rest}"), progress() as shown, instance.client() as client:
            shown.waiting_for(f"waiting for the workers of {name} to finish")
            deadline = instance.graceful_timeout(name) + stopping.SLACK
            client.call("stop", name=name, match="simple", waiting=True, deadline=deadline)
        say(f"stopped {name}; `xboard-circus start {quote(name)}` starts it")


def one_by_one(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each name with a clause for an interruption: "; not begun: " and those after it.

    >>> [*one_by_one(["api", "web"])]
    [('api', '; not begun: web'), ('web', '')]
    """
    left = list(names)
    while left:
        yield left.pop(0), f"; not begun: {', '.join(left)}" if left else ""


def check_file(instance: Instance, *, starts: bool = True) -> None:
    """Print the errors and warnings of the ini file; XboardError where it has errors, or root would run others' code.

    With *starts*, circusd starts next, with the environment of this process.
    """
    refuse_others_folder(instance.config.folder)
    failure = launching.make_folders(instance, starts=starts)
    # While circusd runs it holds the ports. Another program on the endpoint is reported here.
    report = check.check(instance.config_file, running=instance.find() is not None, starts=starts)
    show(report)
    if not report.passed:
        raise XboardError(f"{instance.shown} has errors; nothing was started or stopped")
    if failure is not None:
        raise failure


def refuse_others_folder(folder: Path, *, others: Collection[str] = ()) -> None:
    """Raise XboardError if this is root, and another user may put into *folder* what circusd would run."""
    if (why := host_rules.refusal(folder, others=others)) is not None:
        raise XboardError(f"{why}. Nothing was started or stopped")


def stop_all(instance: Instance) -> list[procs.Identity] | None:
    """Stop circusd and its workers and plugins; return what ran below it, or None if it was not running."""
    if (found := instance.find()) is None:
        return None
    below = procs.below(found.identity, recursive=True)
    with progress() as shown:
        stopping.stop(instance, found, shown)
    return below


def _still_coming(instance: Instance, found: Snapshot) -> dict[str, bool]:
    """Report that circusd runs already; return the watchers to wait for, as long as it is still starting."""
    pid, uptime = found.circusd["pid"], found.circusd["uptime"] or 0.0
    say(f"circusd of {instance.shown} runs already: pid {pid}, for {span(uptime)}")
    stopped = [watcher["name"] for watcher in found.watchers if watcher["verdict"]["word"] == "stopped"]
    for name in stopped:
        say(f"its watcher {name} is stopped; `xboard-circus start {quote(name)}` starts it", "yellow")
    if uptime >= launching.longest_start(instance, TIMEOUT):
        return {}
    return {name: armed for name, armed in launching.expected(instance).items() if name not in stopped}


def launch(instance: Instance) -> Launched:
    """End the orphans that would keep circusd from starting, start it and wait until it answers."""
    with interrupted("circusd was not started; orphans that were named may still run"):
        _end_orphans(instance)
    launched = launching.launch(instance)
    await_answer(instance, launched)
    return launched


def _end_orphans(instance: Instance) -> None:
    """End the orphans on addresses that no port guard clears."""
    orphans = {(each.pid, each.started): each for each in port_rules.orphans(instance.config)}.values()
    for each in orphans:
        say(f"ending pid {each.pid} ({each.command}): an orphan of our circusd, which is gone, on {each.address}")
    if left := listeners.stop(orphans, grace=ORPHAN_GRACE) if orphans else ():
        named = ", ".join(f"pid {each.pid} ({each.command})" for each in left)
        raise XboardError(f"{named} could not be stopped, and circusd would not start; try `kill -9` as root")


def await_answer(instance: Instance, launched: Launched) -> None:
    """Wait until the circusd that was started answers, and say how circusctl finds it, which reads no ini file."""
    with in_background(launched), progress() as shown:
        say(f"started circusd, pid {launched.identity.pid}; its log is {launched.log}")
        shown.waiting_for("waiting for circusd to answer")
        launching.wait_for_answer(instance, launched)
    if (endpoint := instance.client().endpoint) != DEFAULT_ENDPOINT_DEALER:
        say(f"for circusctl: export CIRCUSCTL_ENDPOINT={quote(endpoint)}")


def await_ready(
    instance: Instance, watchers: Mapping[str, bool], *, timeout: float, launched: Launched | None = None
) -> None:
    """Wait until *watchers* are ready, and report it; XboardError if they are not in time."""
    with in_background(launched), progress() as shown:
        limit = launching.longest_start(instance, timeout)
        last = launching.wait_until_ready(instance, watchers, shown, timeout=limit, launched=launched)
    stuck = [each.text for each in last if each.stage is Stage.STUCK]
    slow = [f"{each.text} (not ready after {span(limit)})" for each in last if each.stage is Stage.COMING]
    if stuck or slow:
        raise XboardError(f"{'; '.join(stuck + slow)}; still trying in the background: `xboard-circus status`")
    say("ready", "green")


def in_background(launched: Launched | None) -> AbstractContextManager[None]:
    """Report on Ctrl-C that only the wait ends, and the circusd that was *launched* goes on."""
    pid = f", pid {launched.identity.pid}" if launched else ""
    return left_running(f"circusd goes on in the background{pid}: `xboard-circus status`")


def inactive(watcher: WatcherEntry) -> str:
    """Return that a watcher is not active, and the cure: none but time for one that is starting."""
    name, status = quote(watcher["name"]), watcher["status"]
    cure = f"status {name}` shows when it is up" if status == "starting" else f"start {name}` starts it"
    return f"{watcher['name']} is {status}; `xboard-circus {cure}"


def left_running(what: str) -> AbstractContextManager[None]:
    """Report on Ctrl-C that only the wait ends, and *what* goes on."""
    return interrupted(f"no longer waiting; {what}")
