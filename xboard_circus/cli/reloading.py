"""The command reload: new code into every worker, the new one ready before the old one goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click

from xboard_circus import preflight as trial
from xboard_circus.circus_client import CircusdClient, CircusdGone, CommandRefused, Reply
from xboard_circus.cli.boundary import DONE, TOLD
from xboard_circus.cli.context import Asked, ini_option
from xboard_circus.cli.screen import Progress, complain, progress, say
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance, Silent
from xboard_circus.snapshot import Snapshot, from_state

LOOK_EVERY = 0.2
ANSWER_WITHIN = 20.0
TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Reload:
    """How far a reload is, as circusd tells it."""

    name: str
    state: str
    done: int
    total: int
    replaced: tuple[tuple[int, int], ...]
    reason: str
    log: str

    @classmethod
    def read(cls, name: str, told: Reply) -> Reload:
        return cls(
            name=name,
            state=str(told["state"]),
            done=int(told["done"]),
            total=int(told["total"]),
            replaced=tuple((int(old), int(new)) for old, new in told["replaced"]),
            reason=str(told["reason"]),
            log=str(told["log"]),
        )


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--no-preflight", is_flag=True, help="Begin without a trial of the new code on a throw-away worker.")
@ini_option
@click.pass_obj
def reload(asked: Asked, names: tuple[str, ...], no_preflight: bool) -> int:
    """Put new code into the workers of watcher NAME, or of all armed ones, without a request lost.

    One worker at a time: its successor is ready before it is told to go. The first that does not get ready ends the
    reload, and the old ones serve on.
    """
    instance = asked.instance()
    wanted = _chosen(instance, names)
    if not no_preflight and not _tried(instance, wanted):
        return TOLD
    for position, name in enumerate(wanted):
        with _watching(instance, name, wanted[position + 1 :]), progress() as shown, instance.client() as client:
            last = _rolled(client, name, shown)
        if last.state != "done":
            _explain(instance, last, not_begun=wanted[position + 1 :])
            return TOLD
        if not last.total:
            say(f"{name}: no worker runs; those that wait start with the new code", "yellow")
    say("reloaded", "green")
    return DONE


def _chosen(instance: Instance, names: Sequence[str]) -> list[str]:
    """Return the watchers to reload, spelled as circusd does; XboardError where one can't be."""
    found = instance.find()
    if found is None:
        raise XboardError(f"{instance.not_running()}; `xboard-circus start` starts it")
    if isinstance(found, Silent):
        raise XboardError(f"circusd (pid {found.identity.pid}) does not answer: {found.why}")
    armed = [watcher.name for watcher in found.watchers if watcher.armed]
    wanted = [_named(instance, found, name) for name in names]
    if not names:
        wanted = [watcher.name for watcher in found.watchers if watcher.armed and watcher.status == "active"]
        for name in armed:
            if name not in wanted:
                say(f"{name} is not active and is left out", "yellow")
    if not wanted:
        raise XboardError(f"circusd of {instance.shown} runs no armed watcher; `xboard-circus restart` restarts all")
    return list(dict.fromkeys(wanted))


def _named(instance: Instance, found: Snapshot, name: str) -> str:
    watcher = found.watcher(name)
    if watcher is None:
        known = ", ".join(each.name for each in found.watchers)
        raise XboardError(f"circusd of {instance.shown} has no watcher {name}; known are: {known}")
    if not watcher.armed:
        raise XboardError(f"{watcher.name} is not armed; `xboard-circus restart {watcher.name}` restarts it")
    if watcher.status != "active":
        raise XboardError(f"{watcher.name} is {watcher.status}; `circusctl start {watcher.name}` starts it")
    return watcher.name


def _tried(instance: Instance, names: Sequence[str]) -> bool:
    """Try the new code of each; False, and the reason on the screen, where a worker of it does not get ready."""
    with instance.client() as client:
        for name in names:
            running = _look(client, name)
            if running is not None and running.state == "running":
                raise XboardError(f"a reload of {name} runs already: {running.done} of {running.total} done")
    for name in names:
        with progress() as shown:
            shown.waiting_for(f"{name}: trying the new code on a throw-away worker")
            outcome = trial.preflight(instance.config, instance.config.watcher(name))
        if outcome.verdict is trial.Verdict.FAILED:
            complain(f"{name}: {outcome.told()}")
            complain("nothing was replaced; all workers serve on")
            return False
        say(f"{name}: {outcome.reason}")
    return True


def _rolled(client: CircusdClient, name: str, shown: Progress) -> Reload:
    """Reload one watcher and tell how it goes; return its end."""
    try:
        last = Reload.read(name, client.reload(name))
    except CommandRefused as refused:
        raise XboardError(f"{name}: {refused.reason}") from refused
    while True:
        for number, (old, new) in enumerate(last.replaced, start=1):
            shown.tell(f"{name} {number}", f"{name}: {number} of {last.total} replaced: pid {old} -> {new}")
        if last.state != "running":
            return last
        shown.waiting_for(f"{name}: {last.done} of {last.total} done, waiting for the next new worker to get ready")
        time.sleep(LOOK_EVERY)
        now = _look(client, name)
        if now is None:
            raise XboardError(f"{name}: circusd knows nothing of its reload any more; was circusd restarted?")
        last = now


def _look(client: CircusdClient, name: str) -> Reload | None:
    """Return the last reload of watcher *name*, running or done; None where there was none."""
    watchers = {each["name"]: each for each in client.state(deadline=ANSWER_WITHIN)["watchers"]}
    told = watchers.get(name, {}).get("reload")
    return None if told is None else Reload.read(name, told)


def _explain(instance: Instance, last: Reload, *, not_begun: Sequence[str]) -> None:
    complain(f"{last.name}: the reload {'failed' if last.state == 'failed' else 'was stopped'}: {last.reason}")
    lines = last.log.splitlines()[-TAIL_LINES:]
    if lines:
        complain("\n  ".join(["the last lines of the new worker:", *lines]))
    with instance.client() as client:
        watcher = from_state(client.state(deadline=ANSWER_WITHIN)).watcher(last.name)
    if watcher is not None and watcher.status == "active":
        old = last.total - len(last.replaced)
        new = f", beside {len(last.replaced)} new" if last.replaced else ""
        complain(f"{last.name}: {old} old worker{'s' * (old != 1)} serve{'s' * (old == 1)} on{new}")
    if not_begun:
        complain(f"not begun: {', '.join(not_begun)}")


@contextmanager
def _watching(instance: Instance, name: str, not_begun: Sequence[str]) -> Iterator[None]:
    """Say on a Ctrl-C that it ends the wait and nothing else; and of a circusd that is no more, that it has ended."""
    try:
        yield
    except CircusdGone:
        if instance.find() is None:
            told = (
                f"{name}: circusd ended in the middle of the reload; `xboard-circus start` starts it with the new code"
            )
            raise XboardError(told) from None
        raise
    except KeyboardInterrupt:
        rest = f"; not begun: {', '.join(not_begun)}" if not_begun else ""
        complain(f"no longer waiting; circusd goes on with the reload of {name}: `xboard-circus status`{rest}")
        raise
