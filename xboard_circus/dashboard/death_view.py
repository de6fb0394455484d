"""Show deaths and other events of the ledger, and the logs. Everything here reads from a disk, so in a thread."""

import contextlib
import os
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from xboard_circus.core import incidents
from xboard_circus.core.frames import is_of_app
from xboard_circus.core.headlines import Recent, recent_of
from xboard_circus.core.history import MARKS, PACE, WHOLE_WATCHER, Figures, curves, filling, mark_of, shown, step_for
from xboard_circus.core.in_flight import by_age
from xboard_circus.core.incidents import Present
from xboard_circus.core.names import CIRCUSD, bus_name
from xboard_circus.core.reason import reason_in, with_say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.code_version import versions
from xboard_circus.dashboard.settings import Settings
from xboard_circus.errors import XboardError
from xboard_circus.instance import Instance
from xboard_circus.ledger import LedgerError, Record
from xboard_circus.ledger.explain import Story, story_of, text_of
from xboard_circus.ledger.history_store import Totals, last_figures, read_points, read_totals
from xboard_circus.ledger.location import history_in, ledger_of, unstored_in
from xboard_circus.ledger.query import last_trouble, last_with_reason, month_of, search, slots_of
from xboard_circus.logs import LogFile, log_files
from xboard_circus.masking import masked

SHORTEST, LONGEST = 60, 7 * 86_400  # seconds of a curve
FEW = 8  # watchers and the page, of which the page shows small curves
MOST_MARKS = 200
MOST_RELOADS, MOST_STARTS = 10, 500
MOST_REQUESTS = 50
"""Requests in flight that are shown of each watcher."""
MOST_EVENTS = 1000


class Evidence:
    """The ledger and the logs of the circusd beside us. A request chooses among the files that the ini names."""

    def __init__(self, settings: Settings) -> None:
        self.ledger: Path | None = None
        self.history: Path | None = None
        self._settings = settings
        self.logs: dict[str, LogFile] = {}
        if settings.config is not None:
            self.logs = {each.id: each for each in log_files(settings.config)}
            self.history = history_in(settings.config)
            with contextlib.suppress(XboardError):  # no plugin keeps one
                self.ledger = ledger_of(settings.config)

    def events(
        self, *, watcher: str | None = None, kind: str | None = None, span: float = 0.0, limit: int, **more: Any
    ) -> list[dict[str, Any]]:
        """Return the newest matching events of the last *span* seconds, or of all time, the oldest first. LedgerError.

        *more* is as in `ledger.query.search`.
        """
        if self.ledger is None:
            return []
        name, kinds, most = watcher and bus_name(watcher), {kind} if kind else None, max(1, min(limit, MOST_EVENTS))
        since = time.time() - span if span > 0 else None
        return [*map(_shown, search(self.ledger, since=since, watcher=name, kind=kinds, limit=most, **more))]

    def slots(self, logs: Collection[LogFile]) -> dict[int, int]:
        """Return by pid the slots of the last workers that wrote *logs*; nothing if the ledger cannot be read."""
        names = {bus_name(each.watcher) for each in logs if each.watcher is not None}
        with contextlib.suppress(LedgerError):
            return dict(slots_of(self.ledger, names, limit=MOST_EVENTS)) if self.ledger and names else {}
        return {}

    def beats(self, watchers: Mapping[str, Present], *, span: float) -> dict[str, Any]:
        """Return the cells and the curves of each of *watchers* over *span* seconds, and its shares of time served."""
        if self.ledger is None:
            return {}
        now, span = time.time(), max(SHORTEST, min(span, max(incidents.SHARES)))
        found, begun = month_of(self.ledger, now=now)
        present, beats = self._present(now), {}
        for name, current in watchers.items():
            cells, shares = incidents.heartbeat(found, bus_name(name), current, begun=begun, now=now, span=span)
            figures = present.get(name, {}).get(WHOLE_WATCHER)
            beats[name] = {"cells": [*map(_cell, cells)], "shares": shares, "now": figures and shown(figures)}
            if len(watchers) <= FEW:
                with contextlib.suppress(LedgerError):
                    beats[name]["pulse"] = self._series(name, WHOLE_WATCHER, int(span), until=now)
                    beats[name]["filling"] = filling(self._points(name, WHOLE_WATCHER, PACE, until=now))
        return beats

    def incidents(self, troubled: Collection[str]) -> list[dict[str, Any]]:
        """Return the incidents of a month, the oldest first; *troubled* are the watchers that have one now."""
        found = [] if self.ledger is None else month_of(self.ledger, now=time.time())[0]
        return [
            {"id": each.first.id, "last": each.last.id, "watcher": each.first.watcher, "time": each.first.time}
            | {"until": each.until, "next_try": each.next_try, **with_say(masked(each.line()))}
            for each in incidents.fold(found, map(bus_name, troubled))
        ]

    def reloads(self, watcher: str) -> list[dict[str, Any]]:
        """Return the last reloads of a watcher, the newest first, each with the code before and after.

        The code before is that of the worker that came up last before the reload.
        """
        if self.ledger is None or self._settings.config is None:
            return []
        name = bus_name(watcher)
        rows: list[dict[str, Any]] = []
        for each in search(self.ledger, watcher=name, kind={"reload_begin", "reload_end"}, limit=2 * MOST_RELOADS):
            if each.kind == "reload_begin" or not rows or rows[-1]["state"] != "running":
                rows.append({"began": each.time - float(each.data.get("took") or 0.0), "state": "running"})
            told = {name: each.data.get(name) for name in ("state", "took", "total", "replaced", "cut", "log")}
            rows[-1] |= {key: value for key, value in told.items() if value is not None}
            rows[-1] |= with_say(each.reason) | with_say(reason_in(each.data, "by"), "by")
        ready = search(self.ledger, watcher=name, kind={"ready"}, limit=MOST_STARTS, is_brief=True)
        starts = [each.time for each in ready]
        before = [max((at for at in starts if at < row["began"]), default=0.0) for row in rows]
        if found := [each for each in self._settings.config.watchers if bus_name(each.name) == name]:
            code = versions(found[0].working_dir, [*before, *(row["began"] for row in rows)])
            for row, old, new in zip(rows, code, code[len(rows) :], strict=False):
                row |= {"old": old, "new": new}
        return [*map(masked, rows[: -MOST_RELOADS - 1 : -1])]

    def recent(self, watchers: Collection[str]) -> Recent:
        """Return the requests a second and the p95 of each of *watchers* now, and the age of the last trouble."""
        now, last = time.time(), None
        with contextlib.suppress(LedgerError):
            last = last_trouble(self.ledger, [*map(bus_name, watchers), CIRCUSD]) if self.ledger is not None else None
        present = {name: slots for name, slots in self._present(now).items() if name in watchers}
        return recent_of(present, None if last is None else max(0.0, now - last))

    def _present(self, now: float) -> dict[str, dict[int, Figures]]:
        """Return the figures of each watcher now; nothing where none are kept, or they cannot be read."""
        with contextlib.suppress(LedgerError):
            return last_figures(self.history, now=now) if self.history is not None else {}
        return {}

    def totals(self) -> dict[str, Totals]:
        """Return the counts of each watcher's workers; nothing if they cannot be read."""
        with contextlib.suppress(LedgerError):
            return read_totals(self.history) if self.history is not None else {}
        return {}

    def traffic(self, watcher: str, *, slot: int, span: int) -> dict[str, Any]:
        """Return the curves of a slot, with 0 of the whole watcher, over *span* seconds, and what happened in them."""
        span, until = max(SHORTEST, min(span, LONGEST)), time.time()
        series, marks = self._series(watcher, slot, span, until=until), self._marks(watcher, slot, since=until - span)
        return {"span": span, "until": until, "series": series, "marks": marks}

    def _series(self, watcher: str, slot: int, span: int, *, until: float) -> dict[str, list[float | None]]:
        return curves(self._points(watcher, slot, span, until=until), step=step_for(span), span=span)

    def _points(self, watcher: str, slot: int, span: int, *, until: float) -> list[tuple[int, Figures]]:
        if self.history is None:
            return []
        return read_points(self.history, watcher, slot=slot, step=step_for(span), since=until - span, until=until)

    def _marks(self, watcher: str, slot: int, *, since: float) -> list[dict[str, Any]]:
        """Return the last events that the curves of a slot mark; those of no slot concern all."""
        if self.ledger is None:
            return []
        query = partial(search, self.ledger, kind=MARKS, since=since, limit=MOST_MARKS, is_brief=True)
        found = [*query(watcher=bus_name(watcher)), *query(watcher=CIRCUSD)]
        return [
            {"time": each.time, "mark": mark, **with_say(masked(each.reason))}
            for each in sorted(found, key=lambda each: each.time)
            if slot == WHOLE_WATCHER or each.data.get("slot") in (None, slot)
            if (mark := mark_of(each.kind, each.cause))
        ]

    def requests(self) -> list[dict[str, Any]]:
        """Return what is in flight now, the oldest first; XboardError where circusd does not answer."""
        if (config := self._settings.config) is None:
            return []
        deadline = self._settings.deadline
        with Instance(config.path, answer_within=deadline).client() as client:
            answer = client.call("xboard_requests", deadline=deadline)
        # The page itself answers one all along, and this one.
        others = [each for each in answer.get("workers", ()) if each.get("pid") != os.getpid()]
        return [*map(masked, by_age(others, most=MOST_REQUESTS))]

    def why(self, *, watcher: str | None, pid: int | None, current: Present | None = None) -> dict[str, Any]:
        """Return why the last event happened: the text of `xboard-circus why`, and its parts."""
        age, now = None, time.time()
        about: dict[str, Any] = {"watcher": watcher, "pid": pid, "current": current}
        if self.ledger is None:
            story = Story(Answer.NO_LEDGER(), [], [])
        elif (found := last_with_reason(self.ledger, unstored=self._unstored(), **about)) is None:
            story = Story(Answer.NOTHING_RECORDED(what=pid or watcher or "anything"), [], [])
        else:
            story, age = story_of(*found, now=now), now - found[0].time
        safe = Story(*masked([story.headline, story.facts, story.blocks]))
        return {
            "text": text_of(safe),
            "age": age,
            **with_say(safe.headline, "headline"),
            "facts": [{"title": title, **with_say(fact, "text")} for title, fact in safe.facts],
            "blocks": [{"title": title, "lines": [*map(_line, lines)]} for title, lines in safe.blocks],
        }

    def _unstored(self) -> list[Record]:
        if (config := self._settings.config) is None:
            return []
        instance = Instance(config.path, answer_within=self._settings.deadline)
        return unstored_in(config, instance.events(), now=time.time())


def _line(text: str) -> dict[str, Any]:
    return {**with_say(text, "text"), "is_app": is_of_app(text)}


def _cell(beat: incidents.Beat) -> dict[str, Any]:
    line = "" if beat.incident is None else beat.incident.line()
    return {"word": beat.word, "since": beat.since, "until": beat.until, **with_say(masked(line))}


def _shown(record: Record) -> dict[str, Any]:
    plain = {name: getattr(record, name) for name in ("id", "time", "watcher", "kind", "pid", "wid", "cause")}
    return {**masked(plain), **with_say(masked(record.reason)), "data": masked(record.data)}
