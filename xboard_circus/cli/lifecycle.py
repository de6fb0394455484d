"""The commands start, stop and restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from xboard_circus.checks import check
from xboard_circus.cli import launching, stopping
from xboard_circus.cli.boundary import DONE, TOLD
from xboard_circus.cli.configuration import show
from xboard_circus.cli.context import Asked, ini_option
from xboard_circus.cli.readiness import Expected, Outlook, Stage
from xboard_circus.cli.screen import complain, progress, say
from xboard_circus.core.durations import span
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance, Silent
from xboard_circus.snapshot import Snapshot

TIMEOUT = 60.0
_timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=TIMEOUT,
    show_default=True,
    help="Longest wait for the workers, in seconds.",
)


@click.command()
@_timeout
@ini_option
@click.pass_obj
def start(asked: Asked, timeout: float) -> int:
    """Start circusd in the background and wait until the workers are up.

    The ini file is checked first; with an error in it nothing is started.
    """
    instance = asked.instance()
    if not _checked(asked, instance):
        return TOLD
    with launching.alone(instance):
        found = instance.find()
        launched = _launch(instance) if found is None else None
    if found is not None:
        return _runs_already(instance, found, timeout=timeout)
    return _await_ready(instance, launching.expected(instance), timeout=timeout, launched=launched)


@click.command()
@ini_option
@click.pass_obj
def stop(asked: Asked) -> int:
    """Stop circusd, its workers and plugins, and wait until all are gone."""
    instance = asked.instance()
    found = instance.find()
    if found is None:
        instance.mark_stopped()
        say(instance.not_running())
        return DONE
    with progress() as shown:
        stopping.stop(instance, found, shown)
    say(f"stopped circusd of {instance.shown} and all that it ran")
    return DONE


@click.command()
@click.argument("name", required=False)
@_timeout
@ini_option
@click.pass_obj
def restart(asked: Asked, name: str | None, timeout: float) -> int:
    """Restart circusd with everything that it runs, or only the watcher NAME.

    Only a restart without NAME reads [circus] and [socket:...] of the ini file again.
    """
    instance = asked.instance()
    if name is not None:
        return _restart_watcher(instance, name, timeout=timeout)
    # Checked while the old one still serves: a mistake in the ini must not cost a backend that runs.
    if not _checked(asked, instance):
        return TOLD
    with launching.alone(instance):
        found = instance.find()
        if found is not None:
            with progress() as shown:
                stopping.stop(instance, found, shown)
            say(f"stopped circusd of {instance.shown}")
        launched = _launch(instance)
    return _await_ready(instance, launching.expected(instance), timeout=timeout, launched=launched)


def _checked(asked: Asked, instance: Instance) -> bool:
    launching.make_folders(instance)
    # Its circusd has the ports, where it runs; anybody else's on the endpoint is told here and now.
    report = check.check(asked.config_file, running=instance.find() is not None)
    show(report)
    if not report.passed:
        complain(f"{instance.shown} has errors; nothing was started or stopped")
    return report.passed


def _runs_already(instance: Instance, found: Snapshot | Silent, *, timeout: float) -> int:
    """Report that circusd runs already; if it is still starting, wait for its workers."""
    if isinstance(found, Silent):
        raise XboardError(
            f"circusd of {instance.shown} runs (pid {found.identity.pid}) and does not answer: {found.why}; "
            "`xboard-circus restart` replaces it"
        )
    circusd = found.circusd
    say(f"circusd of {instance.shown} runs already: pid {circusd.pid}, for {span(circusd.uptime)}")
    for watcher in found.watchers:
        if watcher.status == "stopped":
            say(f"its watcher {watcher.name} is stopped; `circusctl start {watcher.name}` starts it", "yellow")
    if circusd.uptime >= launching.longest_start(instance, TIMEOUT):
        return DONE
    stopped = {watcher.name for watcher in found.watchers if watcher.status == "stopped"}
    coming = [each for each in launching.expected(instance) if each.name not in stopped]
    return _await_ready(instance, coming, timeout=timeout)


def _launch(instance: Instance) -> launching.Launched:
    launched = launching.launch(instance)
    say(f"started circusd, pid {launched.identity.pid}; its log is {launched.logs[0].path}")
    with _left_running(), progress() as shown:
        shown.waiting_for("waiting for circusd to answer")
        launching.wait_for_answer(instance, launched)
    return launched


def _restart_watcher(instance: Instance, name: str, *, timeout: float) -> int:
    found = instance.find()
    if found is None:
        raise XboardError(f"circusd of {instance.shown} does not run; `xboard-circus start` starts it")
    if isinstance(found, Silent):
        raise XboardError(f"circusd (pid {found.identity.pid}) does not answer: {found.why}")
    watcher = found.watcher(name)
    if watcher is None:
        known = ", ".join(each.name for each in found.watchers)
        raise XboardError(f"circusd of {instance.shown} has no watcher {name}; known are: {known}")
    with progress() as shown, instance.client() as client:
        shown.waiting_for(f"waiting for {watcher.name} to stop and start")
        client.restart(watcher.name, deadline=instance.graceful_timeout(watcher.name) + timeout)
    return _await_ready(instance, [Expected(watcher.name, watcher.armed)], timeout=timeout)


def _await_ready(
    instance: Instance, watchers: list[Expected], *, timeout: float, launched: launching.Launched | None = None
) -> int:
    limit = launching.longest_start(instance, timeout)
    with _left_running(), progress() as shown:
        last = launching.wait_until_ready(instance, watchers, shown, timeout=limit, launched=launched)
    late = [outlook for outlook in last if outlook.stage is not Stage.READY]
    if not late:
        say("ready", "green")
        return DONE
    complain(f"{_not_ready(late, limit)}; still trying in the background: `xboard-circus status`")
    return TOLD


def _not_ready(late: list[Outlook], limit: float) -> str:
    stuck = [outlook.text for outlook in late if outlook.stage is Stage.STUCK]
    slow = [f"{outlook.text} (not ready after {span(limit)})" for outlook in late if outlook.stage is Stage.COMING]
    return "; ".join(stuck + slow)


@contextmanager
def _left_running() -> Iterator[None]:
    """Report on Ctrl-C that only the wait ends."""
    try:
        yield
    except KeyboardInterrupt:
        complain("no longer waiting; circusd goes on in the background: `xboard-circus status`")
        raise
