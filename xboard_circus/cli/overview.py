"""The command status: print circusd, its watchers and workers with state and reason."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xboard_circus.circus_client import CircusdGone
from xboard_circus.cli.boundary import DONE, TOLD
from xboard_circus.cli.context import Asked, ini_option
from xboard_circus.cli.screen import complain, memory, out, printable
from xboard_circus.core.durations import span
from xboard_circus.instance import EndpointTaken, Instance, Silent
from xboard_circus.snapshot import ShownWorker, Snapshot, Watcher, as_json, measured

# Of verdicts, workers and ports.
STYLES = {
    **dict.fromkeys(("ok", "up", "bound"), "green"),
    **dict.fromkeys(("degraded", "deploying", "unknown", "busy", "failing", "not ready"), "yellow"),
    **dict.fromkeys(("starting", "held", "leaving", "cleaning", "waiting"), "yellow"),
    **dict.fromkeys(("down", "looping", "blocked", "dependency", "stopped", "sick", "hung", "taken"), "red"),
    "spare": "cyan",
}


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print JSON for programs.")
@ini_option
@click.pass_obj
def status(asked: Asked, as_data: bool) -> int:
    """Show circusd, its watchers and each worker. Exits with 1 if circusd does not run."""
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
        for line in _explained(watcher):
            console.print(_plain(f"  {line}"), soft_wrap=True)
        if watcher.workers:
            console.print(_table(watcher))


def _found(instance: Instance) -> Snapshot | str:
    """Return circusd's snapshot, or why it does not answer."""
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
    word = watcher.verdict["word"]
    line.append(_plain(word, STYLES.get(word, "")))
    line.append(f"  {watcher.serving} of {watcher.numprocesses} up")
    if watcher.budget is not None:
        line.append(f"  restart budget: {watcher.budget['used']} of {watcher.budget['limit']} used")
    if watcher.port is not None:
        state = "taken" if watcher.port.state == "refused" else watcher.port.state
        line.append_text(_plain(f"  port {watcher.port.host}:{watcher.port.port} "))
        line.append_text(_plain(state, STYLES.get(state, "")))
    if watcher.reload is not None:
        since = "" if watcher.reload.age is None else f", for {span(watcher.reload.age)}"
        line.append(f"  reload: {watcher.reload.done} of {watcher.reload.total} replaced{since}", "yellow")
    return line


def _explained(watcher: Watcher) -> Iterator[str]:
    """Yield a watcher's cause, next step and cure, and the last event."""
    verdict = watcher.verdict
    if verdict["word"] not in ("ok", "deploying"):
        since = f", for {span(watcher.incident['age'])}" if watcher.incident is not None else ""
        yield f"cause: {verdict['cause']}{since}"
        if verdict["next"]:
            yield f"next: {verdict['next']}" + (f" in {span(verdict['next_in'])}" if verdict["next_in"] else "")
        if verdict["cure"]:
            yield f"cure: {verdict['cure']}"
    if watcher.last_reason:
        age = watcher.last_reason_age
        yield f"last: {watcher.last_reason}" + ("" if age is None else f" ({span(age)} ago)")


def _table(watcher: Watcher) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("  PID", "SLOT", "STATE", "AGE", "MEMORY", "CPU", "NEXT TRY"):
        table.add_column(name, justify="left" if name == "STATE" else "right", no_wrap=True)
    table.add_column("REASON", overflow="fold")
    for worker in watcher.workers:
        table.add_row(*_cells(worker))
    return table


def _cells(worker: ShownWorker) -> list[Text]:
    return [
        Text(f"  {worker.pid}"),
        Text(f"#{worker.slot}" if worker.slot > 0 else ""),
        _plain(worker.word, STYLES.get(worker.word, "")),
        Text("" if worker.age is None else span(worker.age)),
        Text("" if worker.rss is None else memory(worker.rss)),
        Text("" if worker.cpu is None else f"{worker.cpu:.0f} %"),
        Text("" if worker.next_try is None else f"in {span(worker.next_try)}"),
        _plain(worker.reason),
    ]


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)
