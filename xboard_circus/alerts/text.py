"""Render a notice: a title of one line, a text for people, a document for programs."""

import shlex
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from xboard_circus.alerts.message import Message
from xboard_circus.core.alert_gate import About, Notice
from xboard_circus.core.alert_sentences import AlertSay
from xboard_circus.core.alerting import Trouble
from xboard_circus.core.durations import span
from xboard_circus.core.names import CIRCUSD
from xboard_circus.core.reason import data_of
from xboard_circus.translations import sentences, translated


class Origin(NamedTuple):
    """Origin of alerts."""

    host: str
    config_file: str


def rendered(
    notice: Notice,
    origin: Origin,
    *,
    lang: str = "en",
    shift: float = 0.0,
    lines: Sequence[str] = (),
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
) -> Message:
    """Render *notice* as a message.

    Args:
        shift: Turns its times into those of the wall clock.
        lines: With what the page and `status` begin now; none where they have nothing on it.
    """

    def words(key: AlertSay, **fields: object) -> str:
        return sentences(lang).get(key.name, key.value).format(**fields)

    trouble, is_over = notice.trouble, notice.is_over
    lasted = translated(span(round(notice.at - notice.since)), lang)
    mark = "INFO" if notice.about is About.STOPPED else notice.severity.name
    mark = "OK" if notice.about in (About.RECOVERED, About.TEST) else mark
    facts = {"watcher": notice.watcher, "host": origin.host, "count": notice.count, "lasted": lasted}
    facts["trouble"] = words(AlertSay[f"TROUBLE_{trouble.name}"]) if trouble else ""
    kind = AlertSay.TITLE_HEAD if lines else AlertSay[f"TITLE_{notice.about.name}"]
    title = words(kind, head=translated(lines[0], lang) if lines else "", **facts)
    document: dict[str, Any] = {"id": new_id(), "event": notice.about.value, "kind": trouble.value if trouble else None}
    document |= {"severity": notice.severity.value, "watcher": notice.watcher or None, "host": origin.host}
    document |= {"config_file": origin.config_file, "reason": translated(notice.reason, lang)}
    document |= {"say": data_of(notice.reason), "since": clock_time(notice.since + shift)}
    document |= {"time": clock_time(notice.at + shift), "seconds": round(notice.at - notice.since, 1)}
    done = words(AlertSay[f"DONE_{trouble.name}"]) if trouble and not is_over else None
    document |= {"count": notice.count, "done": done, "next": _next_step(notice, origin)}
    document |= {"note": translated(notice.note, lang) or None, "title": f"[{mark}] {title}"}
    labels = {
        "NOW" if is_over else "REASON": document["reason"],
        "SINCE": document["since"] if trouble else "",
        "LASTED": lasted if is_over else "",
        "COUNT": words(AlertSay.TIMES, count=notice.count) if trouble and notice.count > 1 else "",
        "DONE": document["done"],
        "MORE" if lines else "NEXT": document["next"],
        "NOTE": document["note"],
    }
    labelled = {words(AlertSay[f"LABEL_{label}"]): value for label, value in labels.items() if value}
    shown = [translated(each, lang) for each in lines[1:]]
    shown += [words(AlertSay.LINE, label=label, value=value) for label, value in labelled.items()]
    text = "\n".join([document["title"], *shown])
    return Message(document["id"], document["title"], text, {**document, "text": text}, notice.fold)


def _next_step(notice: Notice, origin: Origin) -> str | None:
    if notice.trouble is None:
        return None
    if notice.trouble is Trouble.LOST:
        # Once circusd has been started again, `why` explains the loss.
        what = ["why", CIRCUSD] if notice.is_over else ["start"]
    else:
        what = ["status"] if notice.watcher == CIRCUSD else ["why", notice.watcher]
    return shlex.join(["xboard-circus", "-c", origin.config_file, *what])


def clock_time(wall: float) -> str:
    """Format a time of the wall clock with its zone."""
    return datetime.fromtimestamp(int(wall)).astimezone().isoformat()
