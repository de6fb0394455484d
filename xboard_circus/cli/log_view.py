"""The command logs: print the logs of workers, circusd and plugins, even when circusd is down."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from xboard_circus.cli.boundary import DONE, INTERRUPTED
from xboard_circus.cli.context import Asked, ini_option
from xboard_circus.cli.moments import moment, written
from xboard_circus.cli.screen import complain, printable
from xboard_circus.config import Config
from xboard_circus.errors import XboardError
from xboard_circus.logs import Line, LogFile, follow, log_files, tail
from xboard_circus.logs.follow import LogFollower, polled
from xboard_circus.logs.lines import time_of

LINES = 100
MOST_LINES = 100_000
LOOK_EVERY = 0.25
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line and the log in which it stands."""

    log: LogFile
    line: Line


@click.command()
@click.argument("name", required=False)
@click.option("-f", "--follow", "on_and_on", is_flag=True, help="Print new lines as they are written, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, MOST_LINES), help=f"Lines of each log.  [default: {LINES}]")
@click.option(
    "--since",
    metavar="10m|DATE",
    callback=written,
    help="Only lines since then: 90s, 10m, 2h, 3d, 14:30, yesterday or a date.",
)
@click.option("--list", "only_names", is_flag=True, help="List the logs, and print no lines.")
@click.option("--json", "as_data", is_flag=True, help="Print one JSON object per line.")
@ini_option
@click.pass_obj
def logs(
    asked: Asked,
    name: str | None,
    on_and_on: bool,
    lines: int | None,
    since: str | None,
    only_names: bool,
    as_data: bool,
) -> int:
    """Show the logs: all of them, those of the watcher NAME, or the log NAME (see --list).

    Lines of several logs are merged by time; a log without times is shown by itself.
    """
    config = asked.instance().config
    chosen = of_name(config, name)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a log may hold what the terminal's encoding has no letter for
    try:
        if only_names:
            _list(chosen, config.folder, as_data=as_data)
        else:
            most = lines if lines is not None else LINES if since is None else MOST_LINES
            at = None if since is None else moment(since, time.time())
            if not any(log.path.exists() or log.old() for log in chosen):
                _note(f"nothing has been written to {', '.join(log.id for log in chosen)} yet")
            _show(chosen, most, at, as_data=as_data, on_and_on=on_and_on)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def of_name(config: Config, name: str | None) -> list[LogFile]:
    """Return the logs of *name*: a watcher's, one by its id, or all without a name."""
    found = log_files(config)
    if name is None:
        return found
    chosen = [each for each in found if each.id == name]
    chosen = [each for each in found if (each.watcher or "").lower() == name.lower()] or chosen
    if chosen:
        return chosen
    watchers = {watcher.name.lower() for watcher in config.watchers}
    if name.lower() in watchers:
        hint = "write stderr_stream.class = FileStream and stderr_stream.filename = logs/NAME.log into its section"
        raise XboardError(f"{config.shown}: watcher {name} has no log; {hint}")
    raise XboardError(f"{config.shown}: there is no log {name}; known are {', '.join(each.id for each in found)}")


def merged(told: Iterable[LogLine]) -> list[LogLine]:
    """Return the lines in the order of their times; those of one log stay in theirs."""
    order: list[tuple[float, LogLine]] = []
    latest: dict[str, float] = {}
    for each in told:
        # A clock that was set back, or two writers of one log, must not tear its lines apart.
        at = max(each.line.time or 0.0, latest.get(each.log.id, 0.0))
        latest[each.log.id] = at
        order.append((at, each))
    return [each for _, each in sorted(order, key=lambda pair: pair[0])]


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
    # Before the ends are read, so that no line is lost between; what is in both is left out below.
    followers = _followers(chosen) if on_and_on else []
    has_several = len(chosen) > 1
    timed, untimed = _ends(chosen, most, since)
    for log, lines in untimed.items():
        if since is not None:
            _note(f"{log.id}: its lines have no time, so they may be older; set time_format for its stream")
        if has_several and not as_data:
            print(f"==> {log.id} ({log.path}), without times <==")
        for line in lines:
            _print(LogLine(log, line), as_data=as_data, with_id=False)
    if untimed and timed and not as_data:
        print("==> with times <==")
    for each in merged(timed):
        _print(each, as_data=as_data, with_id=has_several)
    if on_and_on:
        shown = {log.id: [each.line.text for each in timed if each.log.id == log.id] for log in chosen}
        shown.update({log.id: [line.text for line in lines] for log, lines in untimed.items()})
        for follower in followers:
            for text in unseen(shown[follower.log_file.id], follower.poll()):
                _print_new(follower.log_file, text, as_data=as_data, with_id=has_several)
        _follow(followers, as_data=as_data, with_id=has_several)


def _followers(chosen: list[LogFile]) -> list[LogFollower]:
    found = []
    for log in chosen:
        with contextlib.suppress(OSError):  # `_ends` says so
            found.append(follow(log))
    return found


def _ends(chosen: list[LogFile], most: int, since: float | None) -> tuple[list[LogLine], dict[LogFile, list[Line]]]:
    """Return the last lines of all logs: those with times, and those of logs without any."""
    timed: list[LogLine] = []
    untimed: dict[LogFile, list[Line]] = {}
    for log in chosen:
        try:
            lines = tail(log, most, since)
        except OSError as error:
            _note(f"{log.path} cannot be read: {error.strerror}")
            continue
        if any(line.time is not None for line in lines):
            timed += [LogLine(log, line) for line in lines]
        elif lines:
            untimed[log] = lines
    return timed, untimed


def _follow(followers: list[LogFollower], *, as_data: bool, with_id: bool) -> None:
    while True:
        for log, text in polled(followers):
            _print_new(log, text, as_data=as_data, with_id=with_id)
        sys.stdout.flush()
        time.sleep(LOOK_EVERY)


def _print_new(log: LogFile, text: str, *, as_data: bool, with_id: bool) -> None:
    _print(LogLine(log, Line(time_of(text), text)), as_data=as_data, with_id=with_id)


def _print(told: LogLine, *, as_data: bool, with_id: bool) -> None:
    text = printable(_COLOURS.sub("", told.line.text).expandtabs())
    if as_data:
        print(json.dumps({"log": told.log.id, "watcher": told.log.watcher, "time": told.line.time, "text": text}))
    else:
        print(f"{told.log.id} | {text}" if with_id else text)


def _list(chosen: list[LogFile], folder: Path, *, as_data: bool) -> None:
    for each in chosen:
        try:
            size: int | None = each.path.stat().st_size
        except OSError:
            size = None
        if as_data:
            told = {"log": each.id, "watcher": each.watcher, "title": each.title, "path": str(each.path), "size": size}
            print(json.dumps(told))
        else:
            shown = os.path.relpath(each.path, folder)
            there = "not there yet" if size is None else f"{size / 1024:.0f} KiB, {len(each.old())} older"
            print(f"{each.id}: {shown} ({there}): {each.title}")


def _note(message: str) -> None:
    sys.stdout.flush()
    complain(message)
