"""Translate reasons into another language, for the page and the alerts.

`sentences.LANGUAGE.json` holds a sentence for each key of the catalogues (`core.sentences`, `core.alert_sentences`,
`ledger.event_text`, `dashboard.answers`), with the same fields. English needs no file: the text of a reason is English.
"""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xboard_circus.core.reason import Reason, filled, one_line

BETWEEN = "between"
"""Key of the separator between the items of a list."""


@functools.cache
def sentences(language: str) -> Mapping[str, str]:
    """Return the sentences of *language* by key, `BETWEEN` among them; none for English or an unknown language."""
    path = Path(__file__).with_name(f"sentences.{language.partition('-')[0]}.json")
    if not os.path.isfile(path):
        return {}
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def translated(reason: str, language: str) -> str:
    """Return *reason* as one line in *language*; plain text, and text of other programs, stays as it is.

    >>> from xboard_circus.core.sentences import Say
    >>> translated(Say.CANCELLED(), "zh"), translated("no such table", "zh")
    ('已取消', 'no such table')
    """
    return one_line(str.__str__(_rendered(reason, sentences(language))))


def _rendered(value: Any, known: Mapping[str, str]) -> str:
    if isinstance(value, list):
        return known.get(BETWEEN, ", ").join(_rendered(each, known) for each in value)
    if not isinstance(value, Reason) or value.key not in known:
        return str.__str__(value) if isinstance(value, str) else str(value)
    return filled(known[value.key], lambda name: _rendered(value.fields[name], known))
