"""Mask in the path of a request what may be an id or a token."""

import re

LONGEST_PATH = 300
_WORDS = r"[A-Za-z][a-z]{0,19}(?:[A-Z][a-z]{1,19}){0,3}"
_NO_WORD = re.compile(rf"(?<=/)(?!(?:{_WORDS}(?:[-_.]{_WORDS}){{0,4}}|v\d{{1,2}})(?:/|\Z))[^/]+")


def masked_path(path: str) -> str:
    """Return a path without what may be an id or a token: all that is no plain word.

    >>> masked_path("/v1/reports/4711/getPages"), masked_path("/reset/Zx9dQ-1")
    ('/v1/reports/{id}/getPages', '/reset/{id}')
    """
    return _NO_WORD.sub("{id}", path[:LONGEST_PATH]) if path.startswith("/") else "/{id}"
