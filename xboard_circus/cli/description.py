"""Define the command describe: print all about one watcher, with the place of each option."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
from rich.text import Text

from xboard_circus.cli.context import for_instance, name_argument
from xboard_circus.cli.screen import out, plain
from xboard_circus.cli.summary import Summary, folded, gather, headline, rows, table
from xboard_circus.config import Config
from xboard_circus.core.state_schema import WatcherEntry
from xboard_circus.dashboard.in_force import options_of
from xboard_circus.instance import Instance


@click.command()
@name_argument
@click.option("-a", "--all", "whole", is_flag=True, help="List the options that have their defaults too.")
@for_instance
def describe(instance: Instance, name: str, whole: bool) -> None:
    """Show all about watcher NAME: verdict, workers, listeners, last reason, and its options with their places.

    Secrets are masked; of environment variables only the names are shown.
    """
    summary = gather(instance, [name])
    (watcher,) = summary.found.watchers
    with instance.client() as client:
        live = client.options(watcher["name"])
    console = out()
    width = console.width if sys.stdout.isatty() else None
    for line in _lines(summary, watcher, instance.config, live, whole=whole, width=width or console.width):
        for each in folded(line, width):
            console.print(each, soft_wrap=True)


def _lines(
    summary: Summary, watcher: WatcherEntry, config: Config, live: Mapping[str, Any], *, whole: bool, width: int
) -> Iterator[Text]:
    yield headline(summary)
    yield from (Text(), *(line for _, line in table(rows(summary, whole=True), width, wraps=True)))
    yield from (Text(), plain("listeners", "bold"), *map(plain, _listeners(watcher, config)))
    if (output := watcher["output"]) is not None and output["reason"]:
        yield plain(f"output: {output['reason']}", "red")
    ends = ", ".join(f"{cause} {count}" for cause, count in watcher["ends"].items() if count)
    yield plain(f"workers ended since circusd started: {ends or 'none'}")
    yield from (Text(), plain("options", "bold"))
    defaults = 0
    for name, value, place in options_of(watcher, config, live):
        if place or whole:
            yield plain(f"  {name} = {value}").append_text(plain(f"  ({place or 'default'})", "dim"))
        defaults += not place
    if defaults and not whole:
        yield plain(f"  {defaults} more have their defaults: `describe --all` lists them, `options` explains", "dim")


def _listeners(watcher: WatcherEntry, config: Config) -> Iterator[str]:
    port, found = watcher["port"], config.find(watcher["name"])
    if port is not None:
        state = "taken" if port["state"] == "refused" else port["state"]
        yield f"  {port['host']}:{port['port']} {state}" + (f": {port['reason']}" if port["reason"] else "")
    for socket in map(config.socket, () if found is None else found.sockets_used):
        if socket is not None and (port is None or socket.port != port["port"]):
            yield f"  {socket.path or f'{socket.host}:{socket.port}'} of [{socket.section}]"
    yield from (f"  {each['socket']}, private, of #{each['slot']}" for each in watcher["workers"] if each["socket"])
