"""Lay out the state of all watchers for a terminal of any width: the verdict, then one table, trouble first."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from xboard_circus.cli.screen import plain
from xboard_circus.core.durations import roughly, span
from xboard_circus.core.headlines import VERDICTS, Headline, headlines, latency_text, rate_text, recent_of
from xboard_circus.core.history import WHOLE_WATCHER, shown
from xboard_circus.core.history import Figures as Traffic
from xboard_circus.core.names import CIRCUSD, bus_name, is_backend, is_helper
from xboard_circus.core.reason import Reason, key_of, reason_in
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import WatcherEntry, WorkerEntry
from xboard_circus.core.verdict import Word, is_up, running_reload, serving, word_of, workers_worst_first
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.ledger.history_store import last_figures
from xboard_circus.ledger.location import history_in, ledger_of
from xboard_circus.ledger.query import last_trouble
from xboard_circus.local_time import since
from xboard_circus.snapshot import Figures, Snapshot, measured

FEW = 12
"""So many workers are all listed: with the verdict they fit into 24 lines."""

FEW_HEALTHY = 3
"""So many healthy workers are listed beside those in trouble, where there are many in all."""

GAP = "  "
LEFT = ("NAME", "STATE", "PORT", "BUDGET")
_RIGHT = ("UP", "PID", "AGE", "NEXT TRY", "CPU", "MEMORY", "REQ/S", "P95", "IN FLIGHT")
COLUMNS = (*LEFT[:2], *_RIGHT, *LEFT[2:])
"""Titles of columns, in the order in which a narrow terminal keeps them."""

# Styles of verdicts, workers and ports.
STYLES = {
    **dict.fromkeys(("ok", "up", "bound"), "green"),
    **dict.fromkeys(("degraded", "deploying", "reload_failed", "unknown", "busy", "failing", "not ready"), "yellow"),
    **dict.fromkeys(("starting", "held", "leaving", "cleaning", "waiting"), "yellow"),
    **dict.fromkeys(
        ("down", "looping", "blocked", "dependency", "stopped", "nothing_serves", "sick", "hung", "taken"), "red"
    ),
}


class Summary(NamedTuple):
    """What circusd runs, with the figures of its workers, and of their requests by watcher and slot."""

    found: Snapshot
    figures: Figures
    traffic: Mapping[str, Mapping[int, Traffic]]
    quiet_for: float | None  # seconds since the last trouble in the ledger
    now: float  # wall-clock time


class SummaryRow(NamedTuple):
    """A row of the table, of a watcher (slot 0) or of one of its workers, with lines below it."""

    watcher: str
    slot: int
    cells: Mapping[str, Text]
    notes: Sequence[Text]


def gather(instance: Instance, names: Collection[str] = ()) -> Summary:
    """Query circusd, the processes and the history, of the watchers with those names or of all; XboardError."""
    found, now = instance.running(), time.time()
    if names:
        found = found._replace(watchers=instance.watchers(found, names))
    traffic: Mapping[str, Mapping[int, Traffic]] = {}
    last = None
    with suppress(XboardError):  # no plugin keeps them, or they cannot be read: `doctor` reports it
        if (history := history_in(instance.config)) is not None:
            traffic = last_figures(history, now=now)
        backends = [each["name"] for each in filter(is_backend, found.watchers)]
        last = last_trouble(ledger_of(instance.config), [*map(bus_name, backends), CIRCUSD])
    return Summary(found, measured(found), traffic, None if last is None else now - last, now)


def headline(summary: Summary) -> Text:
    """Return the verdict on all in a sentence: what is wrong, since when, why, what comes next, and the cure."""
    first, *others = headlines(
        summary.found.watchers, aged=since(summary.now), traffic=recent_of(summary.traffic, summary.quiet_for)
    )
    head, *rest = [line["reason"] for line in first["lines"]]
    text = plain(f"{head}.", STYLES["ok"] if first["word"] == "ok" else f"bold {STYLES.get(first['word'], '')}")
    also = ", ".join(map(_briefly, others))
    return text.append_text(plain("".join(f" {line}." for line in [*rest, *([f"Also: {also}"] if also else [])])))


def _briefly(line: Headline) -> str:
    name, word = line["watcher"], line["word"]
    return f"a reload of {name} failed" if word == "reload_failed" else f"{name} is {VERDICTS[word]()}"


def worst_first(watchers: Iterable[WatcherEntry]) -> list[WatcherEntry]:
    """Return the watchers with the worst verdict first, and backends before the page and plugins."""
    return sorted(
        watchers,
        key=lambda each: (-Word(each["verdict"]["word"]).rank, is_helper(each["name"]), each["is_page"], each["name"]),
    )


def rows(summary: Summary, *, whole: bool) -> Iterator[SummaryRow]:
    """Yield the rows of the table; without *whole*, healthy watchers without their workers if there are many."""
    watchers = worst_first(summary.found.watchers)
    is_whole = whole or sum(len(watcher["workers"]) for watcher in watchers) <= FEW
    found = headlines(summary.found.watchers, aged=since(summary.now))
    told = {each["watcher"]: each for each in found}
    for watcher in watchers:
        traffic = summary.traffic.get(watcher["name"], {})
        of_watcher = [*_notes(watcher, told.get(watcher["name"]), watcher["name"] == found[0]["watcher"])]
        is_ok, healthy = watcher["verdict"]["word"] == "ok", sum(word_of(each) == "up" for each in watcher["workers"])
        folds = not is_whole and (is_ok or healthy > FEW_HEALTHY)
        if folds and not is_ok:
            of_watcher.append(plain(f"{healthy} healthy workers: `xboard-circus status --all` lists them", "dim"))
        yield SummaryRow(watcher["name"], 0, _of_watcher(watcher, summary, traffic), of_watcher)
        for worker in workers_worst_first(watcher):
            if not folds or not (is_ok or word_of(worker) == "up"):
                cells = _of_worker(worker, summary.figures.get(worker["pid"]), traffic.get(worker["slot"]))
                # The verdict names the holder of the port, and each of forty workers would repeat it.
                notes = [plain(worker["reason"], "dim")] if worker["reason"] and worker["held_by"] != "port" else []
                yield SummaryRow(watcher["name"], worker["slot"], cells, notes)


def _of_watcher(watcher: WatcherEntry, summary: Summary, traffic: Mapping[int, Traffic]) -> dict[str, Text]:
    word, budget, port = watcher["verdict"]["word"], watcher["budget"], watcher["port"]
    known = [figures for each in watcher["workers"] if (figures := summary.figures.get(each["pid"]))]
    cells = {"NAME": plain(watcher["name"], "bold"), "STATE": plain(word, STYLES.get(word, ""))}
    cells["UP"] = Text(f"{serving(watcher)} of {watcher['numprocesses']}")
    cells |= _used((sum(rss for rss, _ in known), sum(cpu for _, cpu in known)) if known else None)
    active = [each["probe"]["requests_active"] for each in watcher["workers"]]
    cells |= _requests(traffic.get(WHOLE_WATCHER) if serving(watcher) else None, active)
    if port is not None:
        state = "taken" if port["state"] == "refused" else port["state"]
        cells["PORT"] = plain(f"{port['host']}:{port['port']}")
        if state != "waiting" or word != "stopped":  # for what?
            cells["PORT"].append_text(plain(f" {state}", STYLES.get(state, "")))
    if budget is not None:
        cells["BUDGET"] = Text(f"{budget['used']} of {budget['limit']} used")
    return cells


def _of_worker(worker: WorkerEntry, used: tuple[int, float] | None, traffic: Traffic | None) -> dict[str, Text]:
    word, age, next_try = word_of(worker), worker["age"], worker["next_try"]
    return {
        "NAME": Text(f"  #{worker['slot']}" if worker["slot"] > 0 else "  -"),
        "STATE": plain(word, STYLES.get(word, "")),
        "PID": Text(str(worker["pid"] or "-")),
        "AGE": Text("" if age is None else roughly(age)),
        "NEXT TRY": Text("" if next_try is None else f"in {roughly(int(next_try))}" if next_try >= 1 else "at once"),
        **_used(used),
        # Those of the last seconds are of the worker before it, or of one that it is to replace.
        **_requests(traffic if is_up(worker) else None, [worker["probe"]["requests_active"]]),
    }


def _used(used: tuple[int, float] | None) -> dict[str, Text]:
    if used is None:
        return {}
    return {"CPU": Text(f"{used[1]:.0f} %"), "MEMORY": Text(f"{used[0] / 2**20:.0f} MiB")}


def _requests(traffic: Traffic | None, active: Iterable[int | None]) -> dict[str, Text]:
    known = {} if traffic is None else shown(traffic)
    rate, p95 = known.get("requests"), known.get("p95")
    probed = [each for each in active if each is not None]
    return {
        "REQ/S": Text("" if rate is None else rate_text(rate), "red" if known.get("errors") else ""),
        "P95": Text("" if p95 is None else latency_text(p95)),
        "IN FLIGHT": Text(str(sum(probed)) if probed else ""),
    }


def _notes(watcher: WatcherEntry, told: Headline | None, in_headline: bool) -> Iterator[Text]:
    """Yield a watcher's reload, what is *told* of its trouble unless the headline has it, and the last reason."""
    if (reload := running_reload(watcher)) is not None:
        since = "" if reload["age"] is None else f", for {span(reload['age'])}"
        yield Text(f"reload: {reload['done']} of {reload['total']} replaced{since}", style="yellow")
    if told is not None and not in_headline:
        yield from (plain(line["reason"]) for line in told["lines"])
    is_held = any(each["phase"] == "held" for each in watcher["workers"])  # its row and the verdict say that, as of now
    reason = reason_in(watcher, "last_reason")
    preload = watcher["preload"]
    if preload is not None and (why := reason_in(preload)) and why != reason:
        yield plain(why, "dim")
    has_reason = told is not None and told["word"] == "reload_failed"
    has_reason = has_reason and key_of(reason) == Say.RELOAD_BROKEN_OFF.name
    if reason and not has_reason and not is_held:
        if isinstance(reason, Reason) and reason.key == Say.COUNTED.name:
            has_try = key_of(reason.fields["then"]) != Say.THEN_POISON.name
            reason = reason.fields["why"] if has_try else reason  # that try is over
        age = watcher["last_reason_age"]
        yield plain(f"last: {reason}" + ("" if age is None else f" ({span(age)} ago)"), "dim")


def table(given: Iterable[SummaryRow], width: int, *, wraps: bool) -> list[tuple[SummaryRow | None, Text]]:
    """Return the lines of the table, each with its row: the columns that fit, and below a row its notes.

    A column without a value is left out, as is one that does not fit, the last first: no word is ever cut.
    """
    found = [*given]
    titles = {title: Text(title, "dim") for title in COLUMNS}
    sizes: dict[str, int] = {}
    for title in COLUMNS:
        values = [cell.plain for row in found if (cell := row.cells.get(title))]
        size = max(map(cell_len, [title, *values])) + (len(GAP) if sizes else 0)
        if any(values) and (len(sizes) < 2 or sum(sizes.values()) + size <= width):
            sizes[title] = size
    lines: list[tuple[SummaryRow | None, Text]] = [(None, _line(titles, sizes))]
    for row in found:
        lines.append((row, _line(row.cells, sizes)))
        indent = "    " if row.slot else "  "
        for note in row.notes:
            lines += [(row, each) for each in folded(note, width if wraps else None, indent)]
    return lines


def _line(cells: Mapping[str, Text], sizes: Mapping[str, int]) -> Text:
    line = Text()
    for title, size in sizes.items():
        cell = cells.get(title, Text())
        room = Text(" " * (size - cell_len(cell.plain)))
        is_left = title in LEFT
        gap = Text(GAP if len(line) and is_left else "")
        line.append_text(gap + cell + room[len(gap) :] if is_left else room + cell)
    line.rstrip()
    return line


def folded(text: Text, width: int | None, indent: str = "") -> list[Text]:
    """Return the lines of *text*, broken between words to fit into *width*; without a width in one."""
    if width is None:
        return [Text(indent) + text]
    return [Text(indent) + line for line in text.wrap(Console(width=width), max(10, width - len(indent)))]
