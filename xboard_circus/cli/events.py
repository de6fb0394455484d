"""Define the commands events and why: print records of the ledger as text or JSON, even when circusd is down."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from xboard_circus.cli.context import Number, complete_names, for_instance, is_number, json_option
from xboard_circus.cli.moments import since_option
from xboard_circus.cli.screen import complain, fitted, painted
from xboard_circus.core.durations import lasted
from xboard_circus.core.frames import is_of_app
from xboard_circus.core.incidents import CLOSED_BY, Folded, IncidentRecord, Present, fold, folded, present, worst
from xboard_circus.core.names import bus_name
from xboard_circus.core.reason import one_line, with_say
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance, Silent
from xboard_circus.ledger import Record
from xboard_circus.ledger.database import Inode, inode_of
from xboard_circus.ledger.explain import named, story_of, text_of, when
from xboard_circus.ledger.location import ledger_of, unstored_in
from xboard_circus.ledger.query import MOST_FOLDED, around, explaining, last_with_reason, month_of, search
from xboard_circus.ledger.story import KINDS, TROUBLE
from xboard_circus.masking import masked, safe_line
from xboard_circus.options.reading import did_you_mean
from xboard_circus.snapshot import Snapshot

LOOK_EVERY = 0.5
EVERYTHING = 1_000_000_000
LATELY = 3600.0  # seconds of which `why` alone explains the worst incident
WELL = ("ready", "recovered", "port_freed", "output_back", "before_done")
UNSTORED = " (not in the ledger yet)"


@click.command()
@click.argument("name", metavar="[WATCHER|PID]", required=False, shell_complete=complete_names)
@json_option
@for_instance
def why(instance: Instance, name: str | None, as_data: bool) -> None:
    """Show why the last worker of WATCHER, or the process PID, ended or was acted on.

    Without a name it shows the worst incident of the last hour and what fixed it, or what happened last. It reads the
    ledger, so it also works when circusd is down, and queries circusd for what is not stored yet.
    """
    complain_of_silence(instance)
    found, history, text = explained(instance, name)
    if as_data:
        data = {"record": found._asdict(), "history": [each._asdict() for each in history]}
        print(json.dumps({**masked(data), "text": text}))
    else:
        for each in text.splitlines():
            print(painted(fitted(each), "bold" if is_of_app(each) else ""))


def complain_of_silence(instance: Instance) -> None:
    """Say on stderr what `status` does of a circusd that is frozen: nothing has recorded that yet."""
    if isinstance(found := instance.find(), Silent):
        try:
            instance.answered(found)
        except XboardError as error:
            complain(str(error))


def explained(instance: Instance, name: str | None) -> tuple[Record, list[Record], str]:
    """Return the record that `why` explains of a watcher, of a pid or of all, those around it, and the text."""
    path, unstored = _ledger(instance)
    if name is None and (told := _worst_lately(instance, path, unstored)) is not None:
        return told
    # A word of digits is a pid, or otherwise the name of a watcher.
    by_pid = last_with_reason(path, pid=int(name), unstored=unstored) if name is not None and is_number(name) else None
    current = _current(instance).get(bus_name(name or ""))
    answer = by_pid or last_with_reason(path, watcher=name, unstored=unstored, current=current)
    if answer is None:
        raise XboardError(f"{path}: nothing is recorded{f' of {name}' if name else ''} that would need a reason")
    found, history = answer
    return found, history, safe_line(text_of(story_of(found, history, now=time.time())))


def _worst_lately(
    instance: Instance, path: Path, unstored: Sequence[Record]
) -> tuple[Record, list[Record], str] | None:
    """Return what `explained` does of the worst incident of the last hour; None without one."""
    now = time.time()
    known, found, current = _incidents(instance, path, unstored, now=now)
    lately = [each for each in found if each.until is None or each.until >= now - LATELY]
    if (incident := worst(lately, known, current, now=now)) is None:
        return None
    name = incident.first.watcher
    if (record := explaining(path, incident, known, unstored)) is None:
        return None  # the ledger has just removed it, for its age
    history = around(path, record, unstored)
    orders = search(path, since=incident.first.time, kind={"command"}, limit=MOST_FOLDED, unstored=unstored)
    own = [each for each in orders if each.watcher in (name, "circusd") and each.time <= (incident.until or now)]
    line = incident.line()
    # Of one decision the headline has it.
    facts = [("incident", _length(incident, now) if line == record.reason else f"{line} ({_length(incident, now)})")]
    if incident.until is not None:
        facts.append(("ended by" if incident.last.kind == "stop" else "fixed by", _fixed_by(incident, own)))
    if more := len(lately) - 1:
        facts.append(("more", f"{more} more in the last hour: `xboard-circus events --since 1h`"))
    story = story_of(record, history, now=now)
    story = story._replace(facts=[story.facts[0], *facts, *story.facts[1:]])
    return record, history, safe_line(text_of(story))


def _fixed_by(incident: IncidentRecord, orders: Sequence[Record]) -> str:
    """Return the last order of an operator in an incident, and the event that ended it."""
    last = incident.successors.get(incident.last.pid) or incident.last
    steps = [one_line(each.reason) for each in orders[-1:]]
    if last.kind in ("ready", *CLOSED_BY) or (last.kind == "stop" and not steps):
        slot = f" #{last.data['slot']}" if last.data.get("slot") else ""
        who = f" (pid {last.pid})" if last.kind == "ready" else ""
        why = f": {one_line(last.reason)}" if last.reason else ""
        steps.append(f"{last.kind.replace('_', ' ')}{slot}{who}{why}")
    return "; then ".join(steps) or "not recorded"


def _incidents(
    instance: Instance, path: Path, unstored: Sequence[Record], *, now: float
) -> tuple[list[Record], list[IncidentRecord], Mapping[str, Present]]:
    """Return the events of a month, the incidents in them, and how the watchers are now."""
    known, _ = month_of(path, now=now, unstored=unstored)
    current = _current(instance)
    # What was not over when circusd was lost is not over.
    troubled = [name for name, each in current.items() if each.is_troubled]
    return known, fold(known, troubled if current else {each.watcher for each in known}), current


def _current(instance: Instance) -> Mapping[str, Present]:
    """Return how the watchers are now, by their names on the bus; none without a circusd that answers."""
    with suppress(XboardError):
        if isinstance(found := instance.find(), Snapshot):
            return {bus_name(each["name"]): present(each, now=time.time()) for each in found.watchers}
    return {}


def _known_kinds(context: click.Context, parameter: click.Parameter, kinds: tuple[str, ...]) -> tuple[str, ...]:
    for unknown in sorted(set(kinds) - KINDS):
        near = did_you_mean(unknown, KINDS)
        hint = f"{f'did you mean {near}? ' if near else ''}known are {', '.join(sorted(KINDS))}"
        raise click.BadParameter(f"no event is of kind {unknown}; {hint}", context, parameter)
    return kinds


def _complete_kinds(_: click.Context, __: click.Parameter, beginning: str) -> list[str]:
    return [kind for kind in sorted(KINDS) if kind.startswith(beginning)]


_OF_KIND = "Only events of this kind, such as restart or command; may be repeated."


@click.command()
@since_option
@click.option(
    "--watcher", shell_complete=complete_names, help="Only events of this watcher; circusd for commands to all."
)
@click.option("--kind", "kinds", multiple=True, callback=_known_kinds, shell_complete=_complete_kinds, help=_OF_KIND)
@click.option("--limit", type=Number(1, EVERYTHING), help="Number of events, the newest ones; 50 without --since.")
@click.option("--rows", "--all", "in_rows", is_flag=True, help="Print each event of an incident, not a line for all.")
@click.option("-f", "--follow", is_flag=True, help="Print new events as they happen, until Ctrl-C.")
@click.option("--json", "as_data", is_flag=True, help="Print one JSON object per line.")
@for_instance
def events(
    instance: Instance,
    since: float | None,
    watcher: str | None,
    kinds: tuple[str, ...],
    limit: int | None,
    in_rows: bool,
    follow: bool,
    as_data: bool,
) -> None:
    """List recorded events, oldest first; those of an incident as one line, unless --kind, -f or --json is given."""
    # With --follow they come when they are stored.
    path, unstored = (ledger_of(instance.config), []) if follow else _ledger(instance)
    most = limit or (50 if since is None else EVERYTHING)
    query = partial(search, path, watcher=None if watcher is None else bus_name(watcher), kind=kinds or None)
    if not (in_rows or kinds or follow or as_data):
        now = time.time()
        _, incidents, _ = _incidents(instance, path, unstored, now=now)
        rows = query(since=since, limit=max(MOST_FOLDED, limit or 0), unstored=unstored, is_brief=True)
        for item in folded(rows, incidents)[-most:]:
            _print_folded(item, now) if isinstance(item, Folded) else _print(item, as_data)
        if not rows:
            _complain_of_nothing(path, bool(watcher or since))
        return
    inode = inode_of(path)
    # First, because what is stored between the two queries must come from `coming`.
    newest = search(path, limit=1)
    past = query(since=since, limit=most, unstored=unstored)
    for record in past:
        _print(record, as_data)
    if not past:
        _complain_of_nothing(path, bool(watcher or kinds or since))
    if follow:
        last = max((record.id or 0 for record in [*newest, *past]), default=0)
        for record in coming(path, query, last=last, inode=inode):
            _print(record, as_data)


def _complain_of_nothing(path: Path, is_filtered: bool) -> None:
    complain(f"{path}: nothing{' that fits' if is_filtered else ''} is recorded yet")


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
    cause = f" [{named(record.cause)}]" if record.cause else ""
    text = f"{when(record.time)}  {record.watcher}{who}  {named(record.kind)}{cause}{'' if record.stored else UNSTORED}"
    return f"{text}: {one_line(record.reason)}" if record.reason else text


def _ledger(instance: Instance) -> tuple[Path, list[Record]]:
    """Return the ledger, and the records that wait for it in circusd; XboardError without both."""
    path = ledger_of(instance.config)
    unstored = unstored_in(instance.config, instance.events(), now=time.time())
    if not unstored and not os.path.exists(path):
        how = f"the plugin of {instance.config.shown} makes it when circusd runs: `xboard-circus start`"
        raise XboardError(f"{path}: there is no ledger yet; {how}")
    return path, unstored


def _print(record: Record, as_data: bool) -> None:
    data = {**masked(record._asdict()), **with_say(masked(record.reason))}
    print(json.dumps(data) if as_data else painted(fitted(safe_line(line(record))), style_of(record)), flush=True)


def _print_folded(found: Folded, now: float) -> None:
    incident, count = found.incident, len(found.events)
    if count == 1:
        _print(found.events[0], as_data=False)
        return
    about = f"incident ({_length(incident, now)}, {count} events)"
    unstored = "" if all(each.stored for each in found.events) else UNSTORED
    text = f"{when(incident.first.time)}  {incident.first.watcher}  {about}{unstored}: {one_line(incident.line())}"
    print(painted(fitted(safe_line(text)), "bold red" if incident.until is None else "red"), flush=True)


def _length(incident: IncidentRecord, now: float) -> str:
    """Return how long an incident lasted, or until when a slot of it cools down."""
    if incident.until is not None:
        return f"over after {lasted(incident.until - incident.first.time)}"
    if incident.next_try is not None and incident.next_try > now:
        return f"cooling down until {when(incident.next_try).split()[1]}"
    return "not over"


def style_of(record: Record) -> str:
    """Return the style of an event: trouble, what is held for it, what is well again."""
    styles = {**dict.fromkeys(TROUBLE, "red"), "cooldown": "yellow", "slow_request": "yellow", "end": "dim"}
    return {**styles, **dict.fromkeys(WELL, "green")}.get(record.kind, "")
