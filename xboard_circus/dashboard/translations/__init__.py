"""Translate the words of the page itself: one catalogue for each language, all with the same keys.

Reasons have their own, `xboard_circus.translations`.
"""

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path

from xboard_circus.core.headlines import VERDICTS
from xboard_circus.translations import translated

LANGUAGES = {"en": "English", "zh-CN": "简体中文"}
"""Tags of the languages, the default first, and the name of each in itself."""

COOKIE = "xboard_language"
"""Name of the cookie with the user's language."""

THEME_COOKIE = "xboard_theme"
"""The same for ``light`` and ``dark``; without it the browser's own setting applies."""

THEMES = ("light", "dark")

_ACCEPTED = re.compile(r"(?:^|,)\s*([a-z*][a-z0-9-]*)\s*(?:;\s*q=(\d(?:\.\d+)?)\s*)?(?=,|$)")


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the texts of *language*, one of LANGUAGES; the words of verdicts are those of the other faces."""
    texts: dict[str, str] = json.loads(Path(__file__).with_name(f"{language}.json").read_text(encoding="utf-8"))
    return {**texts, **{f"verdict.{word}": translated(say(), language) for word, say in VERDICTS.items()}}


def choose(cookie: str | None, accept_language: str | None) -> str:
    """Return the language for a browser: the one chosen before, otherwise the first that it accepts, otherwise English.

    >>> choose(None, "de, zh-Hans;q=0.8, en;q=0.5")
    'zh-CN'
    >>> choose("en", "zh-CN")
    'en'
    """
    if cookie in LANGUAGES:
        return str(cookie)
    for tag in _by_preference(accept_language or ""):
        for language in LANGUAGES:
            if tag.partition("-")[0] == language.partition("-")[0].lower():
                return language
    return next(iter(LANGUAGES))


def theme(cookie: str | None) -> str:
    """Return the theme chosen before, or an empty text."""
    return str(cookie) if cookie in THEMES else ""


def _by_preference(accept_language: str) -> list[str]:
    ranked = [(tag, float(quality or 1)) for tag, quality in _ACCEPTED.findall(accept_language.lower())]
    return [tag for tag, quality in sorted(ranked, key=lambda each: -each[1]) if quality > 0]
