"""Define the command status: print circusd, its watchers and workers with state and reason."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xboard_circus.cli.context import for_instance, json_option
from xboard_circus.cli.screen import out, plain
from xboard_circus.core.durations import span
from xboard_circus.core.state_schema import WatcherEntry, WorkerEntry
from xboard_circus.core.verdict import running_reload, serving, word_of
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.ledger import Record
from xboard_circus.ledger.location import unstored_in
from xboard_circus.snapshot import Figures, Snapshot, as_json, measured

LATE = 10.0  # seconds: the plugin stores an event half a second later

# Styles of verdicts, workers and ports.
STYLES = {
    **dict.fromkeys(("ok", "up", "bound"), "green"),
    **dict.fromkeys(("degraded", "deploying", "unknown", "busy", "failing", "not ready"), "yellow"),
    **dict.fromkeys(("starting", "held", "leaving", "cleaning", "waiting"), "yellow"),
    **dict.fromkeys(("down", "looping", "blocked", "dependency", "stopped", "sick", "hung", "taken"), "red"),
    "spare": "cyan",
}


@click.command()
@json_option
@for_instance
def status(instance: Instance, as_data: bool) -> None:
    """Show circusd, its watchers and each worker. Exits with 1 if circusd does not run."""
    try:
        snapshot = instance.running()
    except XboardError:
        if as_data:
            print(json.dumps(as_json(None, {}), indent=2))
        raise
    figures = measured(snapshot)
    if as_data:
        print(json.dumps(as_json(snapshot, figures), indent=2))
    else:
        console = out()
        show(snapshot, figures, console, config_file=instance.shown)
        now = time.time()
        with suppress(XboardError):  # no plugin keeps a ledger, or it cannot be read: `why` reports it
            show_unstored(unstored_in(instance.config, instance.events(), now=now), console, now=now)


def show_unstored(records: Sequence[Record], console: Console, *, now: float) -> None:
    """Print that the ledger lacks events of a while ago, as on a full disk."""
    age = now - min((each.time for each in records), default=now)
    if age >= LATE:
        console.print()
        text = (
            f"{len(records)} of the events since {span(age)} ago are not in the ledger yet; circusd has them in memory "
            "and `xboard-circus why` shows them. `xboard-circus doctor` shows what is wrong with the ledger"
        )
        console.print(plain(text, "yellow"), soft_wrap=True)


def show(snapshot: Snapshot, figures: Figures, console: Console, *, config_file: str) -> None:
    """Print *snapshot* for a person."""
    circusd = snapshot.circusd
    age, endpoint = span(circusd["uptime"] or 0.0), circusd["endpoint"]
    line = f"circusd of {config_file} runs: pid {circusd['pid']}, for {age}, at {endpoint}"
    version = f", xboard-circus {circusd['version']}" if circusd["version"] else ""
    console.print(plain(line + version), soft_wrap=True)
    for watcher in snapshot.watchers:
        console.print()
        console.print(_headline(watcher), soft_wrap=True)
        for line in _explained(watcher):
            console.print(plain(f"  {line}"), soft_wrap=True)
        if watcher["workers"]:
            console.print(_table(watcher, figures))


def _headline(watcher: WatcherEntry) -> Text:
    verdict, budget, port, reload = watcher["verdict"], watcher["budget"], watcher["port"], running_reload(watcher)
    line = plain(watcher["name"], "bold")
    line.append("  ")
    line.append(plain(verdict["word"], STYLES.get(verdict["word"], "")))
    line.append(f"  {serving(watcher)} of {watcher['numprocesses']} up")
    if budget is not None:
        line.append(f"  restart budget: {budget['used']} of {budget['limit']} used")
    if port is not None:
        state = "taken" if port["state"] == "refused" else port["state"]
        line.append_text(plain(f"  port {port['host']}:{port['port']} "))
        line.append_text(plain(state, STYLES.get(state, "")))
    if reload is not None:
        since = "" if reload["age"] is None else f", for {span(reload['age'])}"
        line.append(f"  reload: {reload['done']} of {reload['total']} replaced{since}", "yellow")
    return line


def _explained(watcher: WatcherEntry) -> Iterator[str]:
    """Yield a watcher's cause, next step and cure, and the last event."""
    verdict, incident = watcher["verdict"], watcher["incident"]
    if verdict["word"] not in ("ok", "deploying"):
        since = "" if incident is None else f", for {span(incident['age'])}"
        yield f"cause: {verdict['cause']}{since}"
        if verdict["next"]:
            yield f"next: {verdict['next']}" + (f" in {span(verdict['next_in'])}" if verdict["next_in"] else "")
        if verdict["cure"]:
            yield f"cure: {verdict['cure']}"
    if watcher["last_reason"]:
        age = watcher["last_reason_age"]
        yield f"last: {watcher['last_reason']}" + ("" if age is None else f" ({span(age)} ago)")


def _table(watcher: WatcherEntry, figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("  PID", "SLOT", "STATE", "AGE", "MEMORY", "CPU", "NEXT TRY"):
        table.add_column(name, justify="left" if name == "STATE" else "right", no_wrap=True)
    table.add_column("REASON", overflow="fold")
    for worker in watcher["workers"]:
        table.add_row(*_cells(worker, *figures.get(worker["pid"], (None, None))))
    return table


def _cells(worker: WorkerEntry, rss: int | None, cpu: float | None) -> list[Text]:
    word, age, next_try = word_of(worker), worker["age"], worker["next_try"]
    return [
        Text(f"  {worker['pid'] or '-'}"),
        Text(f"#{worker['slot']}" if worker["slot"] > 0 else ""),
        plain(word, STYLES.get(word, "")),
        Text("" if age is None else span(age)),
        Text("" if rss is None else f"{rss / 2**20:.0f} MiB"),
        Text("" if cpu is None else f"{cpu:.0f} %"),
        Text("" if next_try is None else f"in {span(next_try)}"),
        plain(worker["reason"]),
    ]
