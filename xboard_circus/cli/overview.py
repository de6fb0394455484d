"""Define the command status: print the verdict, and a table of watchers and workers."""

import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from xboard_circus.cli.context import for_instance, json_option, names_argument
from xboard_circus.cli.error_boundary import INTERRUPTED
from xboard_circus.cli.screen import full_screen, need_terminal, out, plain
from xboard_circus.cli.strips import strips
from xboard_circus.cli.summary import Summary, folded, gather, headline, rows, table
from xboard_circus.core.durations import span
from xboard_circus.core.headlines import circusd_line, headlines, recent_of
from xboard_circus.core.verdict import running_reload, word_of
from xboard_circus.dashboard import views
from xboard_circus.errors import XboardError
from xboard_circus.instance import CircusdAbsent, Instance
from xboard_circus.ledger import Record
from xboard_circus.ledger.location import unstored_in
from xboard_circus.local_time import since
from xboard_circus.masking import masked

LATE = 10.0  # seconds: the plugin stores an event half a second later
WATCH_EVERY = 1.0
STRIPS_EVERY = 10.0  # seconds: each reads a month of events


@click.command()
@names_argument
@json_option
@click.option("-a", "--all", "whole", is_flag=True, help="List the workers of healthy watchers too, however many.")
@click.option("-w", "--watch", is_flag=True, help="Show it anew each second, until Ctrl-C.")
@for_instance
def status(instance: Instance, names: tuple[str, ...], as_data: bool, whole: bool, watch: bool) -> int | None:
    """Show the verdict, and the watchers NAME, or all, with their workers. Exits with 1 if circusd does not run."""
    whole = whole or bool(names)
    if watch:
        return _watch(instance, names, whole=whole)
    try:
        summary = gather(instance, names)
    except XboardError as error:
        if as_data:
            gone = error.headline if isinstance(error, CircusdAbsent) else circusd_line([str(error)])
            print(json.dumps({"circusd": None, "headlines": [gone], "traffic": {}, "watchers": []}, indent=2))
        raise
    if as_data:
        print(json.dumps(as_json(summary, _sockets(instance)), indent=2))
        return None
    console, now = out(), time.time()
    wraps = sys.stdout.isatty()
    drawn = strips(instance, summary, console) if wraps else {}
    lines = [*_lines(summary, drawn, console.width, wraps=wraps, whole=whole, config_file=instance.shown)]
    with suppress(XboardError):  # no plugin keeps a ledger, or it cannot be read: `why` reports it
        lines += _unstored(unstored_in(instance.config, instance.events(), now=now), now=now)
    for line in lines:
        console.print(line, soft_wrap=True)
    return None


def _watch(instance: Instance, names: Collection[str], *, whole: bool) -> int:
    need_terminal("--watch")
    drawn: Mapping[str, Text] = {}
    drawn_for, draw_at = 0, 0.0
    with suppress(KeyboardInterrupt), full_screen() as live:
        while True:
            width, now = live.console.width, time.monotonic()
            try:
                summary = gather(instance, names)
                if now >= draw_at or width != drawn_for:
                    drawn, drawn_for, draw_at = strips(instance, summary, live.console), width, now + STRIPS_EVERY
                lines = [*_lines(summary, drawn, width, wraps=True, whole=whole, config_file=instance.shown)]
            except XboardError as error:
                lines = folded(plain(str(error), "red"), width)
            live.update(Group(*lines), refresh=True)
            time.sleep(WATCH_EVERY)
    return INTERRUPTED


def _lines(
    summary: Summary, drawn: Mapping[str, Text], width: int, *, wraps: bool, whole: bool, config_file: str
) -> Iterator[Text]:
    yield from folded(headline(summary), width if wraps else None)
    circusd = summary.found.circusd
    version = f", xboard-circus {circusd['version']}" if circusd["version"] else ""
    version += f", Python {python}" if (python := circusd["python"]) else ""
    age = span(circusd["uptime"] or 0.0)
    about = f"circusd of {config_file} runs: pid {circusd['pid']}, for {age}, at {circusd['endpoint']}{version}"
    yield from folded(plain(about, "dim"), width if wraps else None)
    yield Text()
    found = [
        row._replace(notes=[drawn[row.watcher], *row.notes]) if not row.slot and row.watcher in drawn else row
        for row in rows(summary, whole=whole)
    ]
    yield from (line for _, line in table(found, width, wraps=wraps))


def _unstored(records: Sequence[Record], *, now: float) -> Iterator[Text]:
    """Yield that the ledger lacks events of a while ago, as on a full disk."""
    age = now - min((each.time for each in records), default=now)
    if age >= LATE:
        text = (
            f"{len(records)} of the events since {span(age)} ago are not in the ledger yet; circusd has them in memory "
            "and `xboard-circus why` shows them. `xboard-circus doctor` shows what is wrong with the ledger"
        )
        yield from (Text(), plain(text, "yellow"))


def _sockets(instance: Instance) -> list[Any]:
    with suppress(XboardError), instance.client() as client:
        return list(client.call("listsockets", deadline=instance.answer_within).get("sockets", []))
    return []


def as_json(summary: Summary, sockets: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the reply to ``status --json``: the state that the page shows; its names and nesting are fixed."""
    watchers = []
    for given in summary.found.watchers:
        figures = {pid: {"rss": rss, "cpu": cpu} for pid, (rss, cpu) in summary.figures.items()}
        shown = views.watcher(given, figures)
        for worker, entry in zip(shown["workers"], given["workers"], strict=True):
            worker["word"] = word_of(entry)
        watchers.append({**shown, "reload": running_reload(given) and shown["reload"], "last_reload": shown["reload"]})
    found, traffic = summary.found, recent_of(summary.traffic, summary.quiet_for)
    return {
        "circusd": found.circusd,
        "headlines": headlines(found.watchers, aged=since(summary.now), traffic=traffic),
        "traffic": traffic["watchers"],
        "probers": found.probers,
        "watchers": watchers,
        "sockets": masked(sockets),
    }
