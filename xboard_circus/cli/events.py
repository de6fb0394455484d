"""Define the commands events and why: print records of the ledger as text or JSON, even when circusd is down."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from xboard_circus.cli.context import complete_names, for_instance, json_option
from xboard_circus.cli.moments import since_option
from xboard_circus.cli.screen import complain, painted
from xboard_circus.core.frames import is_of_app
from xboard_circus.core.names import bus_name
from xboard_circus.core.reason import one_line, with_say
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.ledger import Record
from xboard_circus.ledger.database import Inode, inode_of
from xboard_circus.ledger.explain import story_of, text_of, when
from xboard_circus.ledger.location import ledger_of, unstored_in
from xboard_circus.ledger.query import last_with_reason, search
from xboard_circus.ledger.story import KINDS, TROUBLE
from xboard_circus.masking import masked, safe_line
from xboard_circus.options.reading import did_you_mean

LOOK_EVERY = 0.5
EVERYTHING = 1_000_000_000
WELL = ("ready", "recovered", "port_freed", "output_back", "before_done")
UNSTORED = " (not in the ledger yet)"


@click.command()
@click.argument("name", metavar="[WATCHER|PID]", required=False, shell_complete=complete_names)
@json_option
@for_instance
def why(instance: Instance, name: str | None, as_data: bool) -> None:
    """Show why the last worker of WATCHER, or the process PID, ended or was acted on.

    It reads the ledger, so it also works when circusd is down, and queries circusd for what is not stored yet.
    """
    found, history, text = explained(instance, name)
    if as_data:
        data = {"record": asdict(found), "history": [asdict(each) for each in history]}
        print(json.dumps({**masked(data), "text": text}))
    else:
        print_story(text)


def explained(instance: Instance, name: str | None) -> tuple[Record, list[Record], str]:
    """Return the record that `why` explains of a watcher, of a pid or of all, those around it, and the text."""
    path, unstored = _ledger(instance)
    # A word of digits is a pid, or otherwise the name of a watcher.
    by_pid = last_with_reason(path, pid=int(name), unstored=unstored) if name is not None and name.isdigit() else None
    answer = by_pid or last_with_reason(path, watcher=name, unstored=unstored)
    if answer is None:
        raise XboardError(f"{path}: nothing is recorded{f' of {name}' if name else ''} that would need a reason")
    found, history = answer
    return found, history, safe_line(text_of(story_of(found, history, now=time.time())))


def print_story(text: str) -> None:
    """Print the text of `why`, on a terminal with the frames of the app in bold."""
    for each in text.splitlines():
        print(painted(each, "bold" if is_of_app(each) else ""))


def _known_kinds(context: click.Context, parameter: click.Parameter, kinds: tuple[str, ...]) -> tuple[str, ...]:
    for unknown in sorted(set(kinds) - KINDS):
        near = did_you_mean(unknown, KINDS)
        hint = f"did you mean {near}? " if near else ""
        raise click.BadParameter(
            f"no event is of kind {unknown}; {hint}known are {', '.join(sorted(KINDS))}", context, parameter
        )
    return kinds


@click.command()
@since_option
@click.option(
    "--watcher", shell_complete=complete_names, help="Only events of this watcher; circusd for commands to all."
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    callback=_known_kinds,
    shell_complete=lambda *given: [kind for kind in sorted(KINDS) if kind.startswith(given[-1])],
    help="Only events of this kind, such as restart or command; may be repeated.",
)
@click.option(
    "--limit", type=click.IntRange(1, EVERYTHING), help="Number of events, the newest ones; 50 without --since."
)
@click.option("-f", "--follow", is_flag=True, help="Print new events as they happen, until Ctrl-C.")
@click.option("--json", "as_data", is_flag=True, help="Print one JSON object per line.")
@for_instance
def events(
    instance: Instance,
    since: float | None,
    watcher: str | None,
    kinds: tuple[str, ...],
    limit: int | None,
    follow: bool,
    as_data: bool,
) -> None:
    """List recorded events, oldest first."""
    # With --follow they come when they are stored.
    path, unstored = (ledger_of(instance.config), []) if follow else _ledger(instance)
    most = limit or (50 if since is None else EVERYTHING)
    query = partial(search, path, watcher=None if watcher is None else bus_name(watcher), kind=kinds or None)
    inode = inode_of(path)
    # First, because what is stored between the two queries must come from `coming`.
    newest = search(path, limit=1)
    past = query(since=since, limit=most, unstored=unstored)
    for record in past:
        _print(record, as_data)
    if not past:
        complain(f"{path}: nothing{' that fits' if watcher or kinds or since else ''} is recorded yet")
    if follow:
        last = max((record.id or 0 for record in [*newest, *past]), default=0)
        for record in coming(path, query, last=last, inode=inode):
            _print(record, as_data)


def coming(path: Path, query: Callable[..., list[Record]], *, last: int, inode: Inode | None) -> Iterator[Record]:
    """Yield the records after *last* for ever, also those of a new file that replaces a damaged one."""
    while True:
        time.sleep(LOOK_EVERY)
        if (found_inode := inode_of(path)) != inode:
            inode, last = found_inode, 0
        try:
            found = query(after=last, limit=EVERYTHING)
        except XboardError:
            continue  # the file is being made, or set aside
        for record in found:
            last = max(last, record.id or 0)
            yield record


def line(record: Record) -> str:
    """Return *record* as one line."""
    who = f" (pid {record.pid})" if record.pid is not None else ""
    cause = f" [{record.cause}]" if record.cause else ""
    text = f"{when(record.time)}  {record.watcher}{who}  {record.kind}{cause}{'' if record.stored else UNSTORED}"
    return f"{text}: {one_line(record.reason)}" if record.reason else text


def _ledger(instance: Instance) -> tuple[Path, list[Record]]:
    """Return the ledger, and the records that wait for it in circusd; XboardError without both."""
    path = ledger_of(instance.config)
    unstored = unstored_in(instance.config, instance.events(), now=time.time())
    if not unstored and not path.exists():
        raise XboardError(
            f"{path}: there is no ledger yet; the plugin of {instance.config.shown} makes it when circusd runs: "
            "`xboard-circus start`"
        )
    return path, unstored


def _print(record: Record, as_data: bool) -> None:
    data = {**masked(asdict(record)), **with_say(masked(record.reason))}
    print(json.dumps(data) if as_data else painted(safe_line(line(record)), style_of(record)), flush=True)


def style_of(record: Record) -> str:
    """Return the style of an event: trouble, what is held for it, what is well again."""
    styles = {**dict.fromkeys(TROUBLE, "red"), "cooldown": "yellow", "slow_request": "yellow", "end": "dim"}
    return {**styles, **dict.fromkeys(WELL, "green")}.get(record.kind, "")
