"""The commands start, stop and restart."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from xboard_circus.checks import check
from xboard_circus.cli import launching, stopping
from xboard_circus.cli.configuration import show
from xboard_circus.cli.context import for_instance
from xboard_circus.cli.launching import Launched, Stage
from xboard_circus.cli.screen import complain, progress, say
from xboard_circus.core.durations import span
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.snapshot import Snapshot

TIMEOUT = 60.0
LAST_CHILDREN = 2.0  # what a worker has started may end a moment after it
_timeout = click.option("--timeout", type=click.FloatRange(min=1), default=TIMEOUT, help="Longest wait, in seconds.")


@click.command()
@_timeout
@for_instance
def start(instance: Instance, timeout: float) -> None:
    """Start circusd in the background and wait until the workers are up.

    The ini file is checked first; with an error in it nothing is started.
    """
    _check(instance)
    with launching.alone(instance):
        found = instance.find()
        launched = _launch(instance) if found is None else None
    if launched is not None:
        _await_ready(instance, launching.expected(instance), timeout=timeout, launched=launched)
    elif coming := _still_coming(instance, instance.answered(found)):
        _await_ready(instance, coming, timeout=timeout)


@click.command()
@for_instance
def stop(instance: Instance) -> None:
    """Stop circusd, its workers and plugins, and wait until all are gone.

    Exits with 1 if orphans of an earlier circusd still run; `xboard-circus clean` ends them.
    """
    was_running = _stop(instance)
    instance.mark_stopped()
    give_up_at = time.monotonic() + (LAST_CHILDREN if was_running else 0)
    while (left := instance.orphans_left()) and time.monotonic() < give_up_at:
        time.sleep(stopping.LOOK_EVERY)
    if was_running:
        line = f"stopped circusd of {instance.shown}{left or ' and all that it ran'}"
    else:
        line = instance.not_running()
    if left:
        raise XboardError(line)
    say(line)


@click.command()
@click.argument("name", required=False)
@_timeout
@for_instance
def restart(instance: Instance, name: str | None, timeout: float) -> None:
    """Restart circusd with everything that it runs, or only the watcher NAME.

    Only a restart without NAME reads [circus] and [socket:...] of the ini file again.
    """
    if name is not None:
        _restart_watcher(instance, name, timeout=timeout)
        return
    # Checked while the old one still serves: a mistake in the ini must not cost a backend that runs.
    _check(instance)
    left = f"the stop goes on, and circusd of {instance.shown} is not started again: `xboard-circus start`"
    with launching.alone(instance):
        with left_running(left):
            if _stop(instance):
                say(f"stopped circusd of {instance.shown}")
        launched = _launch(instance)
    _await_ready(instance, launching.expected(instance), timeout=timeout, launched=launched)


def _check(instance: Instance) -> None:
    """Print the errors and warnings of the ini file; XboardError where it has errors."""
    launching.make_folders(instance)
    # While circusd runs it holds the ports. Another program on the endpoint is reported here.
    report = check.check(instance.config_file, running=instance.find() is not None)
    show(report)
    if not report.passed:
        raise XboardError(f"{instance.shown} has errors; nothing was started or stopped")


def _stop(instance: Instance) -> bool:
    """Stop circusd and everything below it; return whether it was running."""
    found = instance.find()
    if found is not None:
        with progress() as shown:
            stopping.stop(instance, found, shown)
    return found is not None


def _still_coming(instance: Instance, found: Snapshot) -> dict[str, bool]:
    """Report that circusd runs already; return the watchers to wait for, as long as it is still starting."""
    circusd = found.circusd
    say(f"circusd of {instance.shown} runs already: pid {circusd.pid}, for {span(circusd.uptime)}")
    stopped = [watcher.name for watcher in found.watchers if watcher.status == "stopped"]
    for name in stopped:
        say(f"its watcher {name} is stopped; `circusctl start {name}` starts it", "yellow")
    if circusd.uptime >= launching.longest_start(instance, TIMEOUT):
        return {}
    return {name: armed for name, armed in launching.expected(instance).items() if name not in stopped}


def _launch(instance: Instance) -> Launched:
    launched = launching.launch(instance)
    say(f"started circusd, pid {launched.identity.pid}; its log is {launched.log}")
    with left_running("circusd goes on in the background: `xboard-circus status`"), progress() as shown:
        shown.waiting_for("waiting for circusd to answer")
        launching.wait_for_answer(instance, launched)
    return launched


def _restart_watcher(instance: Instance, name: str, *, timeout: float) -> None:
    watcher = instance.watcher(instance.running(), name)
    with progress() as shown, instance.client() as client:
        shown.waiting_for(f"waiting for {watcher.name} to stop and start")
        client.restart(watcher.name, deadline=instance.graceful_timeout(watcher.name) + timeout)
    _await_ready(instance, {watcher.name: watcher.armed}, timeout=timeout)


def _await_ready(
    instance: Instance, watchers: Mapping[str, bool], *, timeout: float, launched: Launched | None = None
) -> None:
    limit = launching.longest_start(instance, timeout)
    with left_running("circusd goes on in the background: `xboard-circus status`"), progress() as shown:
        last = launching.wait_until_ready(instance, watchers, shown, timeout=limit, launched=launched)
    stuck = [each.text for each in last if each.stage is Stage.STUCK]
    slow = [f"{each.text} (not ready after {span(limit)})" for each in last if each.stage is Stage.COMING]
    if stuck or slow:
        raise XboardError(f"{'; '.join(stuck + slow)}; still trying in the background: `xboard-circus status`")
    say("ready", "green")


@contextmanager
def left_running(what: str) -> Iterator[None]:
    """Report on Ctrl-C that only the wait ends, and *what* goes on."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"no longer waiting; {what}")
        raise
