"""The command status: what runs, how it is, and why it is so."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xboard_circus.circus_client import CircusdGone
from xboard_circus.cli.boundary import DONE, TOLD
from xboard_circus.cli.context import Asked, ini_option
from xboard_circus.cli.screen import complain, memory, out, printable
from xboard_circus.core.reasons import span
from xboard_circus.core.states import nobody_wanted
from xboard_circus.instance import EndpointTaken, Instance, Silent
from xboard_circus.snapshot import Snapshot, Watcher, Worker, as_json, measured

STYLES = {
    "ready": "green",
    "active": "green",
    "bound": "green",
    "busy": "yellow",
    "starting": "yellow",
    "cleaning": "yellow",
    "waiting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "spare": "cyan",
    "sick": "red",
    "wedged": "red",
    "refused": "red",
    "stopped": "red",
}


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print JSON for programs.")
@ini_option
@click.pass_obj
def status(asked: Asked, as_data: bool) -> int:
    """Show circusd, its watchers and each worker. Ends with 1 when circusd does not run."""
    instance = asked.instance()
    found = _found(instance)
    snapshot = measured(found) if isinstance(found, Snapshot) else None
    if as_data:
        print(json.dumps(as_json(snapshot), indent=2))
    elif snapshot is not None:
        show(snapshot, out(), config_file=instance.shown)
    if isinstance(found, str):
        complain(found)
        return TOLD
    return DONE


def show(snapshot: Snapshot, console: Console, *, config_file: str) -> None:
    """Print *snapshot* for a person."""
    circusd = snapshot.circusd
    line = f"circusd of {config_file} runs: pid {circusd.pid}, for {span(circusd.uptime)}, at {circusd.endpoint}"
    version = f", xboard-circus {circusd.version}" if circusd.version else ""
    console.print(_plain(line + version), soft_wrap=True)
    for watcher in snapshot.watchers:
        console.print()
        console.print(_headline(watcher), soft_wrap=True)
        port = watcher.port.reason if watcher.port is not None and watcher.port.state != "bound" else ""
        if port and port not in watcher.last_reason:
            console.print(_plain(f"  port: {port}"), soft_wrap=True)
        if watcher.wants_nobody:
            console.print(_plain(f"  note: {nobody_wanted(watcher.name)}", "red"), soft_wrap=True)
        if watcher.last_reason:
            console.print(_plain(f"  last: {watcher.last_reason}"), soft_wrap=True)
        if watcher.workers:
            console.print(_table(watcher))


def _found(instance: Instance) -> Snapshot | str:
    """Return what circusd tells, or why it tells nothing."""
    try:
        found = instance.find()
    except (EndpointTaken, CircusdGone) as error:
        return str(error)
    if found is None:
        return f"{instance.not_running()}; `xboard-circus start` starts it"
    if isinstance(found, Silent):
        return f"circusd of {instance.shown} runs (pid {found.identity.pid}) and does not answer: {found.why}"
    return found


def _headline(watcher: Watcher) -> Text:
    line = _plain(watcher.name, "bold")
    line.append("  ")
    line.append(_plain(watcher.status, STYLES.get(watcher.status, "")))
    line.append(f"  {watcher.serving} of {watcher.numprocesses} ready")
    if watcher.armed:
        line.append(f"  restarts {watcher.restarts}")
    if watcher.port is not None:
        line.append_text(_plain(f"  port {watcher.port.host}:{watcher.port.port} "))
        line.append_text(_plain(watcher.port.state, STYLES.get(watcher.port.state, "")))
    if watcher.reload is not None:
        since = "" if watcher.reload.age is None else f", for {span(watcher.reload.age)}"
        line.append(f"  reload: {watcher.reload.done} of {watcher.reload.total} replaced{since}", "yellow")
    if watcher.cooldown_until is not None:
        line.append(f"  cooling down, next try in {span(watcher.cooldown_until)}", "red")
    return line


def _table(watcher: Watcher) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("  PID", "WID", "STATE", "AGE", "MEMORY", "CPU", "NEXT TRY"):
        table.add_column(name, justify="left" if name == "STATE" else "right", no_wrap=True)
    table.add_column("REASON", overflow="fold")
    for worker in watcher.workers:
        table.add_row(*_cells(worker))
    return table


def _cells(worker: Worker) -> list[Text]:
    state = worker.state + (" (not ready)" if worker.ready is False and worker.state == "ready" else "")
    return [
        Text(f"  {worker.pid}"),
        Text("" if worker.wid is None else str(worker.wid)),
        _plain(state, STYLES.get(worker.state, "")),
        Text("" if worker.age is None else span(worker.age)),
        Text("" if worker.rss is None else memory(worker.rss)),
        Text("" if worker.cpu is None else f"{worker.cpu:.0f} %"),
        Text("" if worker.next_try is None else f"in {span(worker.next_try)}"),
        _plain(worker.reason),
    ]


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)
