"""The command requests: print what each worker is answering now."""

import json
import re

import click
from rich.table import Table

from xboard_circus.cli.context import complete_names, for_instance, json_option
from xboard_circus.cli.screen import out, plain, say
from xboard_circus.core.durations import lasted
from xboard_circus.core.in_flight import RUNNING, by_age, requests_in
from xboard_circus.core.sentences import Say
from xboard_circus.instance import Instance
from xboard_circus.masking import masked

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|)")
_LONGEST = 12
_IN = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}


def read_age(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """Read an option's *text* as an age in seconds."""
    found = _SECONDS.fullmatch(text.strip().lower())
    if found is None or len(text) > _LONGEST:
        raise click.BadParameter(f"{text!r} is no age; write 500ms, 1s or 2m", context, parameter)
    return float(found[1]) * _IN[found[2]]


@click.command()
@click.argument("name", metavar="[WATCHER]", required=False, shell_complete=complete_names)
@click.option("--slow", metavar="1s|500ms", default="0", callback=read_age, help="Only requests as old as that.")
@json_option
@for_instance
def requests(instance: Instance, name: str | None, slow: float, as_data: bool) -> None:
    """List the requests in flight, the oldest first.

    circusd reads what its workers note, so those of a hung worker are shown too.
    """
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
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("AGE", "REQUEST", "WORKER", "PID", "ID"):
        table.add_column(title, justify="right" if title == "AGE" else "left", no_wrap=title != "REQUEST")
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
