"""The commands reload and retry: replace workers by new code, and start a held slot now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from xboard_circus import preflight as trial
from xboard_circus.circus_client import CircusdClient, CircusdGone, CommandRefused
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
    """Progress of a reload, as circusd reports it."""

    name: str
    state: str
    done: int
    total: int
    replaced: tuple[tuple[int, int], ...]
    reason: str
    log: str

    @classmethod
    def read(cls, name: str, told: Mapping[str, Any]) -> Reload:
        return cls(
            name=name,
            state=str(told["state"]),
            done=int(told["done"]),
            total=int(told["total"]),
            replaced=tuple((int(old), int(new)) for old, new in told["replaced"]),
            reason=str(told["reason"]),
            log=str(told["log"]),
        )


def slot_number(context: click.Context, parameter: click.Parameter, written: str) -> int:
    """Return the number of a slot, written as ``1`` or ``#1``."""
    digits = written.removeprefix("#")
    if not (digits.isascii() and digits.isdigit() and int(digits)):
        raise click.BadParameter(f"{written!r} is not a slot; write its number, such as 1", context, parameter)
    return int(digits)


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--no-preflight", is_flag=True, help="Skip the trial of the new code on a test worker.")
@ini_option
@click.pass_obj
def reload(asked: Asked, names: tuple[str, ...], no_preflight: bool) -> int:
    """Replace the workers of watcher NAME, or of all armed ones, by new code without a lost request.

    Workers are replaced one at a time, each new one ready first. If a new worker does not get ready, the reload ends
    and the old workers serve on.
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
        if last.reason:
            say(f"{name}: {last.reason}", "yellow")
    say("reloaded", "green")
    return DONE


@click.command()
@click.argument("watcher")
@click.argument("slot", callback=slot_number)
@ini_option
@click.pass_obj
def retry(asked: Asked, watcher: str, slot: int) -> int:
    """Start the held SLOT of WATCHER now, without waiting for its next try.

    SLOT is the number in the column SLOT of `xboard-circus status`, such as 1 or '#1'. Its failures are forgotten.
    """
    instance = asked.instance()
    (name,) = _chosen(instance, [watcher])
    with instance.client() as client:
        try:
            client.retry(name, slot)
        except CommandRefused as refused:
            hint = "`xboard-circus status` shows each slot and its next try"
            raise XboardError(f"{name} #{slot} was not started: {refused.reason}; {hint}") from refused
    say(f"{name} #{slot} is starting; `xboard-circus status` shows when it is up", "green")
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
    """Try the new code of each on a test worker; print the reason and return False where one does not get ready."""
    with instance.client() as client:
        for name in names:
            running = _look(client, name)
            if running is not None and running.state == "running":
                raise XboardError(f"a reload of {name} runs already: {running.done} of {running.total} done")
    for name in names:
        with progress() as shown:
            shown.waiting_for(f"{name}: trying the new code on a throw-away worker")
            try:
                outcome = trial.preflight(instance.config, instance.config.watcher(name))
            except KeyboardInterrupt:
                complain("the trial of the new code is stopped; nothing was replaced")
                raise
        if outcome.verdict is trial.TrialVerdict.FAILED:
            complain(f"{name}: {outcome.told()}")
            complain(f"nothing was replaced; {_serving(instance, name)}")
            return False
        say(f"{name}: {outcome.reason}")
    return True


def _rolled(client: CircusdClient, name: str, shown: Progress) -> Reload:
    """Reload one watcher and print the progress; return the last state."""
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
    watchers = client.state(deadline=ANSWER_WITHIN)["watchers"]
    told = next((each["reload"] for each in watchers if each["name"] == name), None)
    return None if told is None else Reload.read(name, told)


def _explain(instance: Instance, last: Reload, *, not_begun: Sequence[str]) -> None:
    complain(f"{last.name}: the reload {'failed' if last.state == 'failed' else 'was stopped'}: {last.reason}")
    lines = last.log.splitlines()[-TAIL_LINES:]
    if lines:
        complain("\n  ".join(["the last lines of the new worker:", *lines]))
    if last.state != "stopped":
        new = f", {len(last.replaced)} of them new" if last.replaced else ""
        complain(f"{last.name}: {_serving(instance, last.name)}{new}")
    if not_begun:
        complain(f"not begun: {', '.join(not_begun)}")


def _serving(instance: Instance, name: str) -> str:
    """Return how many workers of a watcher serve now, in words."""
    with instance.client() as client:
        watcher = from_state(client.state(deadline=ANSWER_WITHIN)).watcher(name)
    if watcher is None or watcher.serving == 0:
        return "no worker serves"
    return f"{watcher.serving} of {watcher.numprocesses} workers serve on"


@contextmanager
def _watching(instance: Instance, name: str, not_begun: Sequence[str]) -> Iterator[None]:
    """Report on Ctrl-C that only the wait ends; report a circusd that ended meanwhile."""
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
