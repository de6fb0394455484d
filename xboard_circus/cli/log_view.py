"""Define the command logs: print the logs of workers, circusd and plugins, even when circusd is down."""

import io
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import accumulate
from operator import itemgetter
from pathlib import Path

import click

from xboard_circus.cli.context import for_instance
from xboard_circus.cli.error_boundary import DONE, INTERRUPTED
from xboard_circus.cli.moments import since_option
from xboard_circus.cli.screen import complain
from xboard_circus.config import Config
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.logs import Line, LogFile, LogFollower, log_files, tail
from xboard_circus.logs.follow import polled
from xboard_circus.logs.lines import time_of
from xboard_circus.masking import safe_line

LINES = 100
MOST_LINES = 100_000
LOOK_EVERY = 0.25
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@click.command()
@click.argument("name", required=False)
@click.option("-f", "--follow", "on_and_on", is_flag=True, help="Print new lines as they are written, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, MOST_LINES), help=f"Lines of each log.  [default: {LINES}]")
@since_option
@click.option("--list", "only_names", is_flag=True, help="List the logs, and print no lines.")
@click.option("--json", "as_data", is_flag=True, help="Print one JSON object per line.")
@for_instance
def logs(
    instance: Instance,
    name: str | None,
    on_and_on: bool,
    lines: int | None,
    since: float | None,
    only_names: bool,
    as_data: bool,
) -> int:
    """Show the logs: all of them, those of the watcher NAME, or the log NAME (see --list).

    Lines of several logs are merged by time; a log without times is shown by itself.
    """
    config = instance.config
    chosen = of_name(config, name)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a log may hold characters that the terminal's encoding does not have
    try:
        if only_names:
            _list(chosen, config.folder, as_data=as_data)
        else:
            if not any(log.path.exists() or log.old() for log in chosen):
                _note(f"nothing has been written to {', '.join(log.id for log in chosen)} yet")
            most = lines if lines is not None else LINES if since is None else MOST_LINES
            _show(chosen, most, since, as_data=as_data, on_and_on=on_and_on)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def of_name(config: Config, name: str | None) -> list[LogFile]:
    """Return the logs of *name*: a watcher's, one by its id, or all without a name."""
    found = log_files(config)
    if name is None:
        return found
    by_id = [each for each in found if each.id == name]
    if chosen := [each for each in found if (each.watcher or "").lower() == name.lower()] or by_id:
        return chosen
    if name.lower() in {watcher.name.lower() for watcher in config.watchers}:
        hint = "write stderr_stream.class = FileStream and stderr_stream.filename = logs/NAME.log into its section"
        raise XboardError(f"{config.shown}: watcher {name} has no log; {hint}")
    raise XboardError(f"{config.shown}: there is no log {name}; known are {', '.join(each.id for each in found)}")


def merged(ends: Mapping[LogFile, list[Line]]) -> list[tuple[LogFile, Line]]:
    """Return the lines of all logs in the order of their times; those of one log keep their order."""
    order: list[tuple[float, LogFile, Line]] = []
    for log, lines in ends.items():
        # A clock that was set back, or two writers of one log, must not tear its lines apart.
        times = accumulate((line.time or 0.0 for line in lines), max)
        order += [(at, log, line) for at, line in zip(times, lines, strict=True)]
    return [(log, line) for _, log, line in sorted(order, key=itemgetter(0))]


def unseen(shown: list[str], new: list[str]) -> list[str]:
    """Return the *new* lines without those with which *shown* ends.

    >>> unseen(["one", "two"], ["two", "three"]), unseen(["one"], ["two"]), unseen([], ["one"])
    (['three'], ['two'], ['one'])
    """
    for count in range(min(len(shown), len(new)), 0, -1):
        if shown[-count:] == new[:count]:
            return new[count:]
    return new


def _show(chosen: list[LogFile], most: int, since: float | None, *, as_data: bool, on_and_on: bool) -> None:
    # Before the ends are read, so that no line between is lost; lines in both are left out below.
    followers = []
    for log in chosen if on_and_on else ():
        with suppress(OSError):  # `_ends` reports it
            followers.append(LogFollower(log))
    has_several = len(chosen) > 1
    show = partial(_print, as_data=as_data, with_id=has_several)
    ends = _ends(chosen, most, since)
    timed = {log: lines for log, lines in ends.items() if any(line.time is not None for line in lines)}
    untimed = {log: lines for log, lines in ends.items() if lines and log not in timed}
    for log, lines in untimed.items():
        if since is not None:
            _note(f"{log.id}: its lines have no time, so they may be older; set time_format for its stream")
        if has_several and not as_data:
            print(f"==> {log.id} ({log.path}), without times <==")
        for line in lines:
            _print(log, line, as_data=as_data, with_id=False)
    if untimed and timed and not as_data:
        print("==> with times <==")
    for log, line in merged(timed):
        show(log, line)
    for follower in followers:
        log = follower.log_file
        for text in unseen([line.text for line in ends.get(log, ())], follower.poll()):
            show(log, Line(time_of(text), text))
    while on_and_on:
        for log, text in polled(followers):
            show(log, Line(time_of(text), text))
        sys.stdout.flush()
        time.sleep(LOOK_EVERY)


def _ends(chosen: list[LogFile], most: int, since: float | None) -> dict[LogFile, list[Line]]:
    """Return the last lines of each readable log."""
    ends = {}
    for log in chosen:
        try:
            ends[log] = tail(log, most, since)
        except OSError as error:
            _note(f"{log.path} cannot be read: {error.strerror}")
    return ends


def _print(log: LogFile, line: Line, *, as_data: bool, with_id: bool) -> None:
    text = safe_line(_COLOURS.sub("", line.text).expandtabs())
    if as_data:
        print(json.dumps({"log": log.id, "watcher": log.watcher, "time": line.time, "text": text}))
    else:
        print(f"{log.id} | {text}" if with_id else text)


def _list(chosen: list[LogFile], folder: Path, *, as_data: bool) -> None:
    for each in chosen:
        size = each.path.stat().st_size if each.path.exists() else None
        if as_data:
            entry = {"log": each.id, "watcher": each.watcher, "title": each.title, "path": str(each.path), "size": size}
            print(json.dumps(entry))
        else:
            shown = os.path.relpath(each.path, folder)
            there = "not there yet" if size is None else f"{size / 1024:.0f} KiB, {len(each.old())} older"
            print(f"{each.id}: {shown} ({there}): {each.title}")


def _note(message: str) -> None:
    sys.stdout.flush()
    complain(message)
