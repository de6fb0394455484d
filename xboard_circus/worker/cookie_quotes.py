"""Unquote cookies in a time that grows with their length: Python's own way up to 3.12.5 takes 9 s for 60 KB.

Each request to an app of FastAPI's is parsed for cookies, also where it wants none, and the event loop stands still
meanwhile: one header of an anonymous client had a worker killed as hung (CVE-2024-7592). Later Pythons do as here; so
do 3.11 from 3.11.10 on, and 3.10 from 3.10.15 on.
"""

import re
import sys

_ESCAPED = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


def mend() -> None:
    """Replace Python's way where it is the slow one, and where the app has imported it."""
    if (cookies := sys.modules.get("http.cookies")) is not None:
        parts = vars(cookies)
        if "_unquote" in parts and "_unquote_sub" not in parts:
            parts["_unquote"] = unquote


def unquote(text: str) -> str:
    r"""Return a value of a cookie without its quotes.

    >>> unquote(r'"a\054b\"c"'), unquote("plain")
    ('a,b"c', 'plain')
    """
    if text is None or len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)) if found[1] else found[2], text[1:-1])
