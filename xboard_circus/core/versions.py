"""Whether an installed version lies in a range such as ``>=0.19,<0.20``: releases only, as our own ranges are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(;.*)?")
_CLAUSE = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*([0-9][0-9A-Za-z.*+!-]*)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package and the versions that will do; *is_for_all* is False where a marker stands behind it."""

    name: str
    versions: str
    is_for_all: bool


def requirement_in(line: str) -> Requirement | None:
    """Return what a line of a package's metadata requires, or None.

    >>> requirement_in("circus<0.20,>=0.19")
    Requirement(name='circus', versions='<0.20,>=0.19', is_for_all=True)
    >>> requirement_in('ruff>=0.9; extra == "test"').is_for_all
    False
    """
    match = _REQUIREMENT.fullmatch(line)
    return None if match is None else Requirement(match[1], match[2].strip(), not match[3])


def satisfies(version: str, versions: str) -> bool:
    """Return whether *version* is one of *versions*.

    >>> satisfies("0.19.0", ">=0.19,<0.20"), satisfies("0.20", ">=0.19,<0.20"), satisfies("1.0rc1", ">=1")
    (True, False, False)
    """
    return all(_holds(version, sign, bound) for sign, bound in _CLAUSE.findall(versions))


def _holds(version: str, sign: str, bound: str) -> bool:
    if sign in ("==", "!="):
        wanted = bound.removesuffix(".*")
        parts = len(wanted.split("."))
        equal = _compare(_first(version, parts) if bound.endswith(".*") else version, wanted) == 0
        return equal == (sign == "==")
    order = _compare(version, bound)
    if sign == "~=":
        above = ".".join(bound.split(".")[:-1])
        return order >= 0 and _compare(_first(version, len(above.split("."))), above) == 0
    return {">=": order >= 0, "<=": order <= 0, ">": order > 0, "<": order < 0}[sign]


def _first(version: str, parts: int) -> str:
    return ".".join(version.split(".")[:parts])


def _compare(one: str, other: str) -> int:
    for left, right in zip_longest(_numbers(one), _numbers(other), fillvalue=0):
        if left != right:
            return -1 if left < right else 1
    return _is_early(other) - _is_early(one)


def _numbers(version: str) -> list[int]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return [int(part) for part in match[0].split(".")] if match else []


def _is_early(version: str) -> int:
    """Return 1 for a release before its number, such as 1.0rc1."""
    return int(bool(re.search(r"\d\.?(a|b|rc|dev|alpha|beta)", version)))
