"""Check the Host header of a request to the page, against DNS rebinding.

A foreign DNS name that points at 127.0.0.1 makes a browser send that name as Host. It is refused, because only
`localhost` and the names in the ini are ours. A numeric address cannot be pointed anywhere, so it is accepted.
"""

import re
from collections.abc import Collection

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(\d{1,5}))?", re.IGNORECASE)
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


def host_name(host: str) -> str | None:
    """Return the name in a Host header, without the port and in lower case; None for an invalid one.

    >>> host_name("LocalHost:8080"), host_name("[::1]:8080"), host_name("a b")
    ('localhost', '[::1]', None)
    """
    match = _HOST.fullmatch(host)
    return match[1].lower().rstrip(".") if match else None


def is_for_us(host: str, names: Collection[str]) -> bool:
    """Return whether a request with this Host header is for this page; *names* are those in the ini.

    >>> is_for_us("127.0.0.1:8080", ()), is_for_us("rebound.example", ()), is_for_us("ops.example", ("ops.example",))
    (True, False, True)
    """
    if (name := host_name(host)) is None:
        return False
    return name == "localhost" or name.startswith("[") or bool(_IPV4.fullmatch(name)) or name in names
