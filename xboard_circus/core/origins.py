"""Check the Host and origin of a request to the page.

A name that somebody else's DNS points at 127.0.0.1 makes a browser send that name as Host: it is refused, as no name
but `localhost` and those that the ini gives is ours. An address in figures can't be pointed anywhere, so it is let in.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(\d{1,5}))?", re.IGNORECASE)
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_ORIGIN = re.compile(r"https?://([^/?#@\\]{1,300})", re.IGNORECASE)


def host_name(host: str) -> str | None:
    """Return the name in a Host header, without the port and in small letters; None where it is none.

    >>> host_name("LocalHost:8080"), host_name("[::1]:8080"), host_name("a b")
    ('localhost', '[::1]', None)
    """
    match = _HOST.fullmatch(host)
    return match[1].lower().rstrip(".") if match else None


def is_for_us(host: str, names: Collection[str]) -> bool:
    """Return whether a request with this Host header is for this page; *names* are those that the ini gives it.

    >>> is_for_us("127.0.0.1:8080", ()), is_for_us("rebound.example", ()), is_for_us("ops.example", ("ops.example",))
    (True, False, True)
    """
    name = host_name(host)
    if name is None:
        return False
    return name == "localhost" or name.startswith("[") or bool(_IPV4.fullmatch(name)) or name in names


def is_same_site(*, host: str, origin: str | None, fetch_site: str | None, names: Collection[str]) -> bool:
    """Return whether a request that changes something was sent by a page of ours, or by no page at all.

    Args:
        host: The Host header; a proxy may have put its own idea of it there.
        origin: The Origin header; None where there is none, as with curl.
        fetch_site: The header Sec-Fetch-Site, which only a browser can set.
        names: The names that the ini gives this page.
    """
    if fetch_site is not None:
        return fetch_site == "same-origin"
    if origin is None:
        return True
    match = _ORIGIN.fullmatch(origin)
    if match is None:  # "null" too: a sandboxed frame, or a page that hides where it is from
        return False
    return match[1].lower() == host.lower() or host_name(match[1]) in names
