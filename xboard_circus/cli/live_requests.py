"""The command requests: print what each worker is answering now, or what each route has answered."""

import json
import re

import click
from rich.table import Table

from xboard_circus.cli.context import complete_names, for_instance, json_option
from xboard_circus.cli.screen import out, plain, say
from xboard_circus.core.durations import lasted, seconds
from xboard_circus.core.history import PARTS, by_route
from xboard_circus.core.in_flight import RUNNING, by_age, requests_in
from xboard_circus.core.names import bus_name
from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.ledger.history_store import read_totals
from xboard_circus.ledger.location import PROBERS, history_in
from xboard_circus.masking import masked
from xboard_circus.options.reading import suggestion

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|)")
_LONGEST = 12
_SLOW = "Only what lasts that long: requests, or routes by p95."
_IN = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}


def read_age(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """Read an option's *text* as an age in seconds."""
    if (found := _SECONDS.fullmatch(text.strip().lower())) is None or len(text) > _LONGEST:
        raise click.BadParameter(f"{text!r} is no age; write 500ms, 1s or 2m", context, parameter)
    return float(found[1]) * _IN[found[2]]


@click.command()
@click.argument("name", metavar="[WATCHER]", required=False, shell_complete=complete_names)
@click.option("--slow", metavar="1s|500ms", default="0", callback=read_age, help=_SLOW)
@click.option("--routes", "is_by_route", is_flag=True, help="List what each route has answered, and how fast.")
@json_option
@for_instance
def requests(instance: Instance, name: str | None, slow: float, is_by_route: bool, as_data: bool) -> None:
    """List the requests in flight, the oldest first.

    circusd reads what its workers note, so those of a hung worker are shown too. --routes reads the history instead,
    without circusd: all that was counted since the history began.
    """
    if is_by_route:
        print_routes(instance, name, slow, as_data=as_data)
        return
    found = instance.running()
    if name is not None:
        instance.watcher(found, name)
    with instance.client() as client:
        answer = client.call("xboard_requests", name=name or "", deadline=instance.answer_within)
    workers = [each for each in answer.get("workers", ()) if isinstance(each, dict)]
    if as_data:
        for each in workers:
            each["requests"] = [request for request in requests_in(each) if request["age"] >= slow]
        print(json.dumps(masked(workers)))
        return
    rows = by_age(workers, slow=slow)
    table = _table("AGE", "REQUEST", "WORKER", "PID", "ID")
    for request in rows:
        is_running = request.get("state") == RUNNING
        what = f"{request.get('method')} {request.get('route')}" + (" (its event loop runs it)" if is_running else "")
        worker = f"{request['watcher']} #{request['slot']}"
        cells = (lasted(request["age"]), what, worker, request["pid"], request.get("id"))
        table.add_row(*(plain(str(cell), "red" if is_running else "") for cell in cells))
    if rows:
        out().print(table)
    else:
        say("no request is in flight" + (f" for {lasted(slow)} or longer" if slow else ""))
    for each in workers:
        if each.get("requests_unreadable"):
            say(f"{each['watcher']} #{each['slot']} (pid {each['pid']}): {Say.REQUESTS_UNREADABLE()}", "yellow")
        elif isinstance(more := each.get("requests_others"), int) and more:
            say(f"{each['watcher']} #{each['slot']} (pid {each['pid']}): and {more} more")


def print_routes(instance: Instance, name: str | None, slow: float, *, as_data: bool) -> None:
    """Print the requests, failures and latencies of each route, of one watcher or of all."""
    if (history := history_in(instance.config)) is None:
        cure = f"add [plugin:xboard] with use = {PROBERS[0]}, then `xboard-circus restart`"
        raise XboardError(f"{instance.shown}: no plugin keeps a history of traffic; {cure}")
    totals = read_totals(history)
    known = {*totals, *(bus_name(each.name) for each in instance.config.watchers)}
    if name is not None and bus_name(name) not in known:
        hint = suggestion(name, known, alike=0.6, otherwise=f"known are: {', '.join(sorted(known))}")
        raise XboardError(f"{instance.shown}: no watcher {name}; {hint}")
    rows = [
        {"watcher": watcher, **each}
        for watcher, found in sorted(totals.items())
        for each in by_route(found.traffic)
        if (name is None or bus_name(name) == watcher) and each["requests"] and (each["p95"] or 0.0) >= slow
    ]
    if as_data:
        print(json.dumps(rows))
        return
    if not rows:
        of = f" of {name}" if name else ""
        say(f"no request was counted{of}" + (f" whose p95 is {lasted(slow)}" if slow else ""))
        return
    table = _table("REQUESTS", "4XX", "5XX", *map(str.upper, PARTS), "ROUTE", "WATCHER")
    for each in rows:
        latencies = ("" if (value := each[part]) is None else seconds(value) for part in PARTS)
        cells = (*(each[key] for key in ("requests", "4xx", "5xx")), *latencies, each["route"], each["watcher"])
        table.add_row(*(plain(str(cell), "red" if key == 2 and cell else "") for key, cell in enumerate(cells)))
    out().print(table)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        is_text = title in ("REQUEST", "WORKER", "PID", "ID", "ROUTE", "WATCHER")
        table.add_column(title, justify="left" if is_text else "right", no_wrap=title not in ("REQUEST", "ROUTE"))
    return table
