"""Define the commands reload and retry: replace workers by new code, and start a held slot now."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from shlex import quote

import click

from xboard_circus import config
from xboard_circus import preflight as trial
from xboard_circus.circus_client import CircusdClient, CircusdGone, CommandRefused
from xboard_circus.cli import launching
from xboard_circus.cli.context import complete_names, for_instance, names_argument, slot_number
from xboard_circus.cli.lifecycle import check_file, inactive, left_running, one_by_one
from xboard_circus.cli.screen import Progress, complain, interrupted, progress, say
from xboard_circus.core.reason import with_say
from xboard_circus.core.state_schema import ReloadEntry
from xboard_circus.core.verdict import held_by_budget, predecessors, running_reload, serving
from xboard_circus.errors import XboardError
from xboard_circus.host.lock_file import NoLockFile
from xboard_circus.instance import LOOK_EVERY, Instance
from xboard_circus.snapshot import Snapshot, from_state

ANSWER_WITHIN, ENDS_WITHIN = 20.0, 5.0
TRIES = 3


no_preflight_option = click.option(
    "--no-preflight", is_flag=True, help="Skip the trial of the new code on a test worker."
)


@click.command()
@names_argument
@no_preflight_option
@for_instance
def reload(instance: Instance, names: tuple[str, ...], no_preflight: bool) -> None:
    """Replace the workers of watcher NAME, or of all armed ones, by new code without a lost request.

    Workers are replaced one at a time, each new one ready first. If a new worker does not get ready, the reload ends
    and the old workers serve on.
    """
    with interrupted("nothing was reloaded"):
        found = _settled(instance)
        wanted = _chosen(instance, found, names)
        check_file(instance, starts=False)
        if not no_preflight:
            _refuse_second(found, wanted)
            try_new_code(instance, wanted)
    for name, rest in one_by_one(wanted):
        reload_one(instance, name, rest)
    say("reloaded", "green")


def reload_one(instance: Instance, name: str, rest: str) -> None:
    """Reload one watcher, again where a restart has replaced circusd meanwhile; XboardError if it fails.

    Args:
        rest: A clause with what is not begun then.
    """
    for tries_left in reversed(range(TRIES)):
        circusd = _settled(instance).identity
        try:
            _reload_once(instance, name, rest)
            return
        except XboardError:
            if not tries_left or not instance.is_replaced(circusd):
                raise
        say(f"{name}: circusd was replaced meanwhile, as by a restart; the reload begins again", "yellow")


def _settled(instance: Instance) -> Snapshot:
    """Return what circusd runs once no start, stop or restart of it is under way, and its watchers are armed."""
    with suppress(NoLockFile), launching.alone(instance):
        pass
    give_up_at = time.monotonic() + ANSWER_WITHIN
    while True:
        found = instance.running()
        is_new = (found.circusd["uptime"] or 0.0) < ANSWER_WITHIN
        is_armed = any(each["armed"] for each in found.watchers) or not any(
            map(config.is_armed, instance.config.watchers)
        )
        is_starting = any(each["status"] == "starting" and not each["armed"] for each in found.watchers)
        if time.monotonic() > give_up_at or not is_new or (is_armed and not is_starting):
            return found
        time.sleep(LOOK_EVERY)


def _reload_once(instance: Instance, name: str, rest: str) -> None:
    with _waiting(instance, name, rest), progress() as shown, instance.client() as client:
        last = _reload(client, name, shown)
    if last["state"] != "done":
        _fail(instance, name, last, rest)
    if not last["total"]:
        say(f"{name}: no worker runs; those that wait start with the new code", "yellow")
    if last["reason"]:
        say(f"{name}: {last['reason']}", "yellow")


@click.command()
@click.argument("watcher", shell_complete=complete_names)
@click.argument("slot", required=False, callback=slot_number)
@for_instance
def retry(instance: Instance, watcher: str, slot: int | None) -> None:
    """Start the held SLOT of WATCHER now, or all its held slots, without waiting for the next try.

    SLOT is the number of a row of `xboard-circus status`, such as 1 or '#1'. Its failures are forgotten.
    """
    with interrupted("nothing was started"):
        found = instance.running()
        name = _reloadable(instance, found, watcher)
    held = held_by_budget(instance.watcher(found, name)["workers"])
    hint = "`xboard-circus status` shows each slot and its next try"
    if not (numbers := sorted(each["slot"] for each in held) if slot is None else [slot]):
        raise XboardError(f"{name} has no held slot, so nothing was started; {hint}")
    slots = {f"{name} #{each}": each for each in numbers}
    for named, rest in one_by_one(slots):
        try:
            unsure = f"whether {named} was started is not known: `xboard-circus status`{rest}"
            with interrupted(unsure), instance.client() as client:
                client.retry(name, slots[named])
        except CommandRefused as refused:
            raise XboardError(f"{named} was not started: {refused.reason}; {hint}") from refused
        say(f"{named} is starting; `xboard-circus status` shows when it is up", "green")


def _chosen(instance: Instance, found: Snapshot, names: Sequence[str]) -> list[str]:
    """Return the watchers to reload, spelled as in circusd; XboardError if one cannot be."""
    if names:
        return list(dict.fromkeys(_reloadable(instance, found, name) for name in names))
    armed = {watcher["name"]: watcher["status"] for watcher in found.watchers if watcher["armed"]}
    for name in (name for name, status in armed.items() if status != "active"):
        say(f"{name} is not active and is left out", "yellow")
    if not (wanted := [name for name, status in armed.items() if status == "active"]):
        raise XboardError(f"circusd of {instance.shown} runs no armed watcher; `xboard-circus restart` restarts all")
    return wanted


def _reloadable(instance: Instance, found: Snapshot, name: str) -> str:
    watcher = instance.watcher(found, name)
    name = watcher["name"]
    if not watcher["armed"]:
        raise XboardError(f"{name} is not armed; `xboard-circus restart {quote(name)}` restarts it")
    if watcher["status"] != "active":
        raise XboardError(inactive(watcher))
    return name


def _refuse_second(found: Snapshot, names: Sequence[str]) -> None:
    """Raise XboardError if a reload of one of the watchers runs already."""
    for watcher in found.watchers:
        if watcher["name"] in names and (running := running_reload(watcher)):
            name = watcher["name"]
            raise XboardError(f"a reload of {name} runs already: {running['done']} of {running['total']} done")


def try_new_code(instance: Instance, names: Sequence[str]) -> None:
    """Try the new code of each watcher on a test worker; XboardError if one does not get ready."""
    for name in names:
        with progress() as shown:
            shown.waiting_for(f"{name}: trying the new code on a throw-away worker")
            outcome = trial.preflight(instance.config, instance.config.watcher(name))
        if outcome.failed:
            with suppress(CircusdGone, CommandRefused), instance.client() as client:
                client.call("xboard_event", name=name, event="preflight_failed", **with_say(outcome.reason))
            complain(f"{name}: {outcome.with_log()}")
            raise XboardError(f"nothing was replaced; {_serving(instance, name)}")
        say(f"{name}: {outcome.reason}")


def _reload(client: CircusdClient, name: str, shown: Progress) -> ReloadEntry:
    """Reload one watcher and print the progress; return the last state."""
    try:
        last: ReloadEntry | None = client.reload(name)
    except CommandRefused as refused:
        raise XboardError(f"{name}: {refused.reason}") from refused
    while last is not None:
        for number, (old, new) in enumerate(last["replaced"], start=1):
            shown.report(f"{name} {number}", f"{name}: {number} of {last['total']} replaced: pid {old} -> {new}")
        if last["state"] != "running":
            return last
        waits_for = "the old workers to drain" if last["done"] == last["total"] else "the next new worker to get ready"
        so_far = f"{last['done']} of {last['total']} done, waiting for {waits_for}"
        shown.waiting_for(f"{name}: {last['reason'] or so_far}")
        time.sleep(LOOK_EVERY)
        watchers = client.state(deadline=ANSWER_WITHIN)["watchers"]
        last = next((each["reload"] for each in watchers if each["name"] == name), None)
    raise XboardError(f"{name}: circusd knows nothing of its reload any more; was circusd restarted?")


def _fail(instance: Instance, name: str, last: ReloadEntry, rest: str) -> None:
    """Print why the reload ended, with the log of the new worker, and what serves now; raise XboardError."""
    lines = [f"{name}: the reload {'failed' if last['state'] == 'failed' else 'was stopped'}: {last['reason']}"]
    if last["log"]:
        lines.append("\n  ".join(["the last lines written:", *last["log"].splitlines()[-trial.TAIL_LINES :]]))
    if last["state"] != "stopped":
        new = f", {len(last['replaced'])} of them new" if last["replaced"] else ""
        lines.append(f"{name}: {_serving(instance, name)}{new}")
    if rest:
        lines.append(rest.removeprefix("; "))
    for line in lines[:-1]:
        complain(line)
    raise XboardError(lines[-1])


def _serving(instance: Instance, name: str) -> str:
    """Return how many workers of a watcher serve now, in words."""
    try:
        with instance.client() as client:
            watcher = from_state(client.state(deadline=ANSWER_WITHIN)).watcher(name)
    except CircusdGone as gone:
        return f"how many workers serve is unknown: {gone}"
    if watcher is not None and (n := predecessors(watcher)):
        return f"{n} {'worker' if n == 1 else 'workers'} of an earlier circusd serve on"
    if watcher is None or serving(watcher) == 0:
        return "no worker serves"
    return f"{serving(watcher)} of {watcher['numprocesses']} workers serve on"


@contextmanager
def _waiting(instance: Instance, name: str, rest: str) -> Iterator[None]:
    """Report on Ctrl-C that only the wait ends; report a circusd that ended meanwhile."""
    try:
        with left_running(f"circusd goes on with the reload of {name}: `xboard-circus status`{rest}"):
            yield
    except CircusdGone as gone:
        give_up_at = time.monotonic() + ENDS_WITHIN
        while (found := instance.find()) is not None:
            if gone.listening or isinstance(found, Snapshot) or time.monotonic() > give_up_at:
                raise
            time.sleep(LOOK_EVERY)  # its sockets are closed a moment before it is gone
        cure = "`xboard-circus start` starts it with the new code"
        raise XboardError(f"{name}: circusd ended in the middle of the reload; {cure}") from None
