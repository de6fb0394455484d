"""Put a notice into words: a title of one line, a text for people, a document for programs."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xboard_circus.alerts.languages import DONE, LABELS, TITLES, TROUBLES
from xboard_circus.alerts.message import Message
from xboard_circus.core.alert_gate import About, Notice
from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.core.durations import span
from xboard_circus.core.names import CIRCUSD
from xboard_circus.core.reason import data_of
from xboard_circus.translations import translated


@dataclass(frozen=True, slots=True)
class Origin:
    """Where alerts come from."""

    host: str
    config_file: str


_MARKS = {
    Severity.CRITICAL: "CRITICAL",
    Severity.WARNING: "WARNING",
    Severity.INFO: "INFO",
}


def rendered(
    notice: Notice,
    origin: Origin,
    *,
    lang: str = "en",
    shift: float = 0.0,
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
) -> Message:
    """Return *notice* as a message; *shift* turns its times into those of the wall clock."""
    identity = new_id()
    reason, note = translated(notice.reason, lang), translated(notice.note, lang)
    lasted = translated(span(round(notice.at - notice.since)), lang)
    words = {
        "watcher": notice.watcher,
        "host": origin.host,
        "count": str(notice.count),
        "lasted": lasted,
        "trouble": TROUBLES[lang][notice.trouble] if notice.trouble else "",
    }
    mark = _MARKS[Severity.INFO if notice.about is About.STOPPED else notice.severity]
    mark = "OK" if notice.about in (About.RECOVERED, About.TEST) else mark
    title = f"[{mark}] {TITLES[lang][notice.about].format(**words)}"
    since, at = clock_time(notice.since + shift), clock_time(notice.at + shift)
    done = DONE[lang][notice.trouble] if notice.trouble and not notice.is_over else ""
    document: dict[str, Any] = {
        "id": identity,
        "event": notice.about.value,
        "kind": notice.trouble.value if notice.trouble else None,
        "severity": notice.severity.value,
        "watcher": notice.watcher or None,
        "host": origin.host,
        "config_file": origin.config_file,
        "reason": reason,
        "say": data_of(notice.reason),
        "since": since,
        "time": at,
        "seconds": round(notice.at - notice.since, 1),
        "count": notice.count,
        "done": done or None,
        "next": _next_step(notice, origin),
        "note": note or None,
        "title": title,
    }
    text = "\n".join([title, *_lines(notice, document, lasted, lang)])
    return Message(identity, title, text, {**document, "text": text}, notice.fold)


def _lines(notice: Notice, document: Mapping[str, Any], lasted: str, lang: str) -> list[str]:
    labels = LABELS[lang]
    is_over = notice.is_over
    has_trouble = notice.trouble is not None
    rows = [
        (labels["now" if is_over else "reason"], document["reason"]),
        (labels["since"], document["since"] if has_trouble else ""),
        (labels["lasted"], lasted if is_over else ""),
        (labels["count"], labels["times"].format(count=notice.count) if has_trouble and notice.count > 1 else ""),
        (labels["done"], document["done"]),
        (labels["next"], document["next"]),
        (labels["note"], document["note"]),
    ]
    return [f"{label}{labels[':']}{value}" for label, value in rows if value]


def _next_step(notice: Notice, origin: Origin) -> str | None:
    if notice.trouble is None:
        return None
    if notice.trouble is Trouble.LOST:
        # Where it was started again already, that says so.
        what = ["why", CIRCUSD] if notice.is_over else ["start"]
    else:
        what = ["status"] if notice.watcher == CIRCUSD else ["why", notice.watcher]
    return shlex.join(["xboard-circus", "-c", origin.config_file, *what])


def clock_time(wall: float) -> str:
    """Return a time of the wall clock as people and programs read it, with its zone."""
    local = time.localtime(wall)
    zone = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f"{zone[:3]}:{zone[3:]}"
