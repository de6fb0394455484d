"""Define the command logs: print the logs of workers, circusd and plugins, even when circusd is down."""

import io
import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from shlex import quote

import click

from xboard_circus.cli.context import DEFAULT, Number, for_instance, slot_number
from xboard_circus.cli.error_boundary import DONE, INTERRUPTED
from xboard_circus.cli.moments import since_option
from xboard_circus.cli.screen import complain, painted
from xboard_circus.config import Config, load
from xboard_circus.core.names import bus_name
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.ledger.location import ledger_of
from xboard_circus.ledger.query import slots_of
from xboard_circus.logs import Line, LogFile, LogFollower, log_files, tail
from xboard_circus.logs.files import Streams
from xboard_circus.logs.follow import polled
from xboard_circus.logs.lines import LEVELS, LinesAbove, level_of, merged, pid_of, time_of, without_colours
from xboard_circus.masking import printable, safe_line

LINES, MOST_LINES = 100, 100_000
LOOK_EVERY = 0.25
LEVEL = click.Choice([name.lower() for name in LEVELS], case_sensitive=False)
COLOURS = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta")


class LineFilter:
    """Choose lines; one without a level or a pid, as of a traceback, goes with the line above it in the same log."""

    def __init__(self, *, pattern: re.Pattern[str] | None, level: str | None, pids: Collection[int] | None) -> None:
        self._pattern, self._level, self._pids = pattern, 0 if level is None else LEVELS[level.upper()], pids
        self.is_of_slot = pids is not None
        self.is_open = pattern is None and level is None and pids is None
        self._above = LinesAbove()

    def __call__(self, log: LogFile, line: Line) -> bool:
        pid, level = self._above.labels(log, line.text)
        is_chosen = level >= self._level and (self._pids is None or pid in self._pids)
        return is_chosen and (self._pattern is None or self._pattern.search(line.text) is not None)


def pattern(context: click.Context, parameter: click.Parameter, text: str | None) -> re.Pattern[str] | None:
    """Compile an option's *text* as a regular expression."""
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"{text!r} is no regular expression: {error}", context, parameter) from None


def complete_logs(context: click.Context, parameter: click.Parameter, beginning: str) -> list[str]:
    """Return the logs that begin so, by the ini file."""
    with suppress(XboardError):
        return [log.id for log in log_files(load(context.obj or DEFAULT, looks=True)) if log.id.startswith(beginning)]
    return []


@click.command()
@click.argument("name", required=False, shell_complete=complete_logs)
@click.option("-f", "--follow", "on_and_on", is_flag=True, help="Print new lines as they are written, until Ctrl-C.")
@click.option("-n", "--lines", type=Number(0, MOST_LINES), help=f"Lines of each log.  [default: {LINES}]")
@since_option
@click.option("--grep", "pattern", metavar="RE", callback=pattern, help="Only lines that match the regular expression.")
@click.option("--level", type=LEVEL, help="Only lines of that level and above, with their tracebacks.")
@click.option("--slot", metavar="N", callback=slot_number, help="Only lines of the workers in slot N, past ones too.")
@click.option("--list", "only_names", is_flag=True, help="List the logs, and print no lines.")
@click.option("--json", "as_data", is_flag=True, help="Print one JSON object per line.")
@for_instance
def logs(
    instance: Instance,
    name: str | None,
    on_and_on: bool,
    lines: int | None,
    since: float | None,
    pattern: re.Pattern[str] | None,
    level: str | None,
    slot: int | None,
    only_names: bool,
    as_data: bool,
) -> int:
    """Show the logs: all of them, those of the watcher NAME, or the log NAME (see --list).

    Lines of several logs are merged by time; a log without times is shown by itself.
    """
    config = instance.config
    chosen = of_name(config, name, None if config.scans else _streams_of(instance))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a log may hold characters that the terminal's encoding does not have
    try:
        if only_names:
            _list(chosen, config.folder, as_data=as_data)
        else:
            if not any(os.path.exists(log.path) or log.old() for log in chosen):
                _note(f"nothing has been written to {', '.join(log.id for log in chosen)} yet")
            most = lines if lines is not None else LINES if since is None else MOST_LINES
            pids = None if slot is None else _pids_of(instance, chosen, slot)
            choose = LineFilter(pattern=pattern, level=level, pids=pids)
            _show(chosen, most, since, choose, as_data=as_data, on_and_on=on_and_on)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def of_name(config: Config, name: str | None, streams: Mapping[str, Streams] | None = None) -> list[LogFile]:
    """Return the logs of *name*: a watcher's, one by its id, or all without a name; for *streams* see `log_files`."""
    found = log_files(config, streams)
    if name is None:
        return found
    by_id = [each for each in found if each.id == name]
    if chosen := [each for each in found if (each.watcher or "").lower() == name.lower()] or by_id:
        return chosen
    if name.lower() in {watcher.name.lower() for watcher in config.watchers}:
        hint = "write stderr_stream.class = FileStream and stderr_stream.filename = logs/NAME.log into its section"
        raise XboardError(f"{config.shown}: watcher {name} has no log; {hint}")
    raise XboardError(f"{config.shown}: there is no log {name}; known are {', '.join(each.id for each in found)}")


def _streams_of(instance: Instance) -> dict[str, Streams]:
    """Return the streams of the watchers that circusd runs, by name, because the ini file is gone; none without it."""
    found: dict[str, Streams] = {}
    with suppress(XboardError), instance.client() as client:
        for watcher in instance.running().watchers:
            options = client.options(watcher["name"])
            given = {stream: options.get(f"{stream}_stream_conf") for stream in ("stderr", "stdout")}
            found[watcher["name"]] = {
                stream: {str(key): str(value) for key, value in conf.items()}
                for stream, conf in given.items()
                if isinstance(conf, dict)
            }
    return found


def unseen(shown: list[str], new: list[str]) -> list[str]:
    """Return the *new* lines without those with which *shown* ends.

    >>> unseen(["one", "two"], ["two", "three"]), unseen(["one"], ["two"]), unseen([], ["one"])
    (['three'], ['two'], ['one'])
    """
    for count in range(min(len(shown), len(new)), 0, -1):
        if shown[-count:] == new[:count]:
            return new[count:]
    return new


def _pids_of(instance: Instance, chosen: Collection[LogFile], slot: int) -> set[int]:
    """Return the pids that a slot of the watchers of these logs has had; XboardError if none is known."""
    names = {bus_name(log.watcher) for log in chosen if log.watcher is not None}
    pids: set[int] = set()
    with suppress(XboardError):  # no plugin keeps a ledger
        pids = {pid for pid, had in slots_of(ledger_of(instance.config), names, limit=MOST_LINES) if had == slot}
    with suppress(XboardError):
        for watcher in instance.running().watchers:
            if bus_name(watcher["name"]) in names:
                pids |= {worker["pid"] for worker in watcher["workers"] if worker["slot"] == slot and worker["pid"]}
    if not pids:
        raise XboardError(f"no worker in slot {slot} is known of {', '.join(sorted(names)) or 'these logs'}")
    return pids


def _with_pids(ends: Mapping[LogFile, Sequence[Line]]) -> None:
    """Name the logs whose lines have no pid; XboardError if no log has lines with one."""
    filled = [log for log, lines in ends.items() if lines]
    without = [log for log in filled if not any(pid_of(line.text) for line in ends[log])]
    for log in without:
        what = f"{log.id}: its lines have no pid, so those of one slot are not known"
        cure = f"set time_format for its stream, then `xboard-circus reload {quote(log.watcher or log.id)}`"
        if without == filled:
            raise XboardError(f"{what}; {cure}")
        _note(f"{what}; {cure}")


def _show(
    chosen: list[LogFile], most: int, since: float | None, choose: LineFilter, *, as_data: bool, on_and_on: bool
) -> None:
    # Before the ends are read, so that no line between is lost; lines in both are left out by `_followed`.
    followers = []
    for log in chosen if on_and_on else ():
        with suppress(OSError):  # `_ends` reports it
            followers.append(LogFollower(log))
    ends = _ends(chosen, most if choose.is_open else MOST_LINES, since)
    if choose.is_of_slot:
        _with_pids(ends)
    is_mixed = len(chosen) > 1 and not as_data
    colours = {log.id: COLOURS[place % len(COLOURS)] for place, log in enumerate(chosen)} if is_mixed else {}
    show = partial(_print, as_data=as_data, colours=colours)
    left = {log: [each for each in lines if choose(log, each)][-most:] if most else [] for log, lines in ends.items()}
    timed = {log: lines for log, lines in left.items() if any(line.time is not None for line in lines)}
    untimed = {log: lines for log, lines in left.items() if lines and log not in timed}
    _show_untimed(untimed, since, as_data=as_data, with_titles=is_mixed)
    if untimed and timed and is_mixed:
        print("==> with times <==")
    for log, line in merged(timed):
        show(log, line)
    for log, text in _followed(followers, ends) if on_and_on else ():
        if choose(log, line := Line(time_of(text), text)):
            show(log, line)


def _show_untimed(
    ends: Mapping[LogFile, Sequence[Line]], since: float | None, *, as_data: bool, with_titles: bool
) -> None:
    for log, lines in ends.items():
        if since is not None:
            _note(f"{log.id}: its lines have no time, so they may be older; set time_format for its stream")
        if with_titles:
            print(printable(f"==> {log.id} ({log.path}), without times <=="))
        for line in lines:
            _print(log, line, as_data=as_data, colours={})


def _followed(followers: list[LogFollower], ends: Mapping[LogFile, Sequence[Line]]) -> Iterator[tuple[LogFile, str]]:
    """Yield (log, line) for each new line, on and on, without those of the *ends* that were read."""
    for follower in followers:
        log = follower.log_file
        for text in unseen([line.text for line in ends.get(log, ())], follower.poll()):
            yield log, text
    while True:
        yield from polled(followers)
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


def level_style(text: str) -> str:
    """Return the style of a line by its level."""
    level = level_of(text) or LEVELS["INFO"]
    return "red" if level >= LEVELS["ERROR"] else "yellow" if level >= LEVELS["WARNING"] else ""


def _print(log: LogFile, line: Line, *, as_data: bool, colours: Mapping[str, str]) -> None:
    text = safe_line(without_colours(line.text).expandtabs())
    if as_data:
        print(json.dumps({"log": log.id, "watcher": log.watcher, "time": line.time, "text": text}))
    else:
        name = f"{painted(log.id, colours[log.id])} | " if colours else ""
        print(name + painted(text, level_style(text)))


def _list(chosen: list[LogFile], folder: Path, *, as_data: bool) -> None:
    for each in chosen:
        size = each.path.stat().st_size if os.path.exists(each.path) else None
        if as_data:
            entry = {"log": each.id, "watcher": each.watcher, "title": each.title, "path": str(each.path), "size": size}
            print(json.dumps(entry))
        else:
            shown = os.path.relpath(each.path, folder)
            there = "not there yet" if size is None else f"{size / 1024:.0f} KiB, {len(each.old())} older"
            print(printable(f"{each.id}: {shown} ({there}): {each.title}"))


def _note(message: str) -> None:
    sys.stdout.flush()
    complain(message)
