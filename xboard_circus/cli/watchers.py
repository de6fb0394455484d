"""Define the commands scale and signal, which act on one watcher by its name."""

import signal as signals
from shlex import quote

import click

from xboard_circus.cli.context import Number, complete_names, for_instance, name_argument, timeout_option
from xboard_circus.cli.lifecycle import await_ready, inactive, one_by_one
from xboard_circus.cli.screen import agree, interrupted, say
from xboard_circus.core.names import some_of
from xboard_circus.core.state_schema import MOST_SLOTS, WatcherEntry, WorkerEntry
from xboard_circus.core.verdict import serving
from xboard_circus.core.worker_phases import ORDERS
from xboard_circus.errors import XboardError
from xboard_circus.host import procs
from xboard_circus.instance import Instance
from xboard_circus.options.reading import suggestion
from xboard_circus.snapshot import Snapshot

NAMED = 3


def signal_named(context: click.Context, parameter: click.Parameter, text: str) -> signals.Signals:
    """Return the signal of that name, such as HUP or SIGHUP, or number."""
    names = {each.name.removeprefix("SIG").lower(): each for each in signals.Signals}
    name = text.lower().removeprefix("sig")
    found = names.get(name) or next((each for each in names.values() if text == f"{each:d}"), None)
    if found is None:
        hint = suggestion(name, names, alike=0.6, otherwise="write one such as HUP or USR1")
        raise click.BadParameter(f"{text!r} is no signal; {hint}", context, parameter)
    return found


@click.command()
@name_argument
@click.argument("count", metavar="N", type=Number(0, MOST_SLOTS))
@timeout_option
@for_instance
def scale(instance: Instance, name: str, count: int, timeout: float) -> None:
    """Run N workers of watcher NAME, until circusd restarts.

    Workers that are too many leave after they have answered what they have.
    """
    with interrupted("nothing was scaled"):
        watcher = instance.watcher(instance.running(), name)
    name, before = watcher["name"], watcher["numprocesses"]
    if not count:
        cure = f"`xboard-circus stop {quote(name)}` stops it and closes its port"
        raise XboardError(
            f"{name} keeps its {before}: with 0 workers its port would take requests without answer; {cure}"
        )
    try:
        with instance.client() as client:
            client.scale(name, count, deadline=timeout)
        kept = f"numprocesses = {count} in {instance.shown} keeps it"
        say(f"{name}: {before} -> {count} workers until circusd restarts; {kept}")
        if watcher["status"] not in ("active", "starting"):
            say(inactive(watcher), "yellow")
        elif count > before:
            await_ready(instance, {name: watcher["armed"]}, timeout=timeout)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_how_far(instance, name, count)) from error


def _how_far(instance: Instance, name: str, count: int) -> str:
    """Return what an interrupted `scale` has done, and what not."""
    try:
        watcher = instance.watcher(instance.running(), name)
    except XboardError as error:
        return f"whether {name} is set to {count} workers is not known: {error}"
    wanted, up = watcher["numprocesses"], serving(watcher)
    if wanted != count:
        return f"{name} was not set to {count} workers: it keeps {wanted}, {up} of them up"
    return f"{name} is set to {count} workers, and {up} are up; circusd goes on: `xboard-circus status {quote(name)}`"


@click.command()
@click.argument("target", metavar="NAME[:SLOT|:PID]", shell_complete=complete_names)
@click.argument("signum", metavar="SIG", callback=signal_named)
@click.option("--yes", is_flag=True, help="Do not ask, although the signal ends workers at once.")
@for_instance
def signal(instance: Instance, target: str, signum: signals.Signals, yes: bool) -> None:
    """Send signal SIG, such as HUP or USR1, to each worker of watcher NAME, or to one by slot or pid.

    Where a worker has no handler for SIG, which would end it with what it has in flight, it asks first; not for INT,
    TERM and KILL, which order an end. A worker that SIG ends is replaced, and counts as no failure.
    """
    with interrupted("no signal was sent"):
        watcher, workers = _targets(instance, instance.running(), target)
        pids = {f"{watcher['name']} #{each['slot']} (pid {each['pid']})": each["pid"] for each in workers}
        ending = [named for named, pid in pids.items() if signum not in ORDERS and procs.would_end(pid, signum)]
        if ending and not yes:
            cost = f"{signum.name} would end {some_of(ending, NAMED)} with what is in flight: it has no handler there"
            name = quote(watcher["name"])
            cure = f"`xboard-circus reload {name}` replaces workers, `stop {name}` ends them, --yes sends it anyway"
            agree(cost, f"Send it? `xboard-circus reload {name}` loses nothing.", f"no signal was sent: {cure}")
    for named, rest in one_by_one(pids):
        with interrupted(f"whether {named} got {signum.name} is not known{rest}"), instance.client() as client:
            client.call("signal", name=watcher["name"], pid=pids[named], signum=int(signum))
        say(f"sent {signum.name} to {named}")


def _targets(instance: Instance, found: Snapshot, target: str) -> tuple[WatcherEntry, list[WorkerEntry]]:
    """Return the watcher of *target*, and those of its workers that run and are meant; XboardError without any."""
    name, _, number = target.rpartition(":")
    if found.watcher(target) is not None or not (name and number):
        name, number = target, ""
    watcher = instance.watcher(found, name)
    running = [each for each in watcher["workers"] if each["pid"]]
    slot = number.removeprefix("#")
    # A number is a slot, or otherwise a pid.
    chosen = running if not number else [each for each in running if str(each["slot"]) == slot]
    if not (chosen := chosen or [each for each in running if str(each["pid"]) == slot]):
        what = f"no running worker {number}" if number else "no running worker"
        name = watcher["name"]
        raise XboardError(f"{name} has {what}; no signal was sent: `xboard-circus status {quote(name)}`")
    return watcher, chosen
