"""Whether the packages that the backend rests on are there, in versions that it is known to work with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from xboard_circus.checks.findings import Finding, bad, good, unknown
from xboard_circus.core.versions import Requirement, requirement_in, satisfies
from xboard_circus.doctor.case import Case

TOPIC = "dependencies"
PACKAGE = "xboard-circus"


def look(_case: Case) -> Iterator[Finding]:
    """Yield a line for Python, one for all packages that are right, and one for each that is not."""
    try:
        own = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        yield unknown(TOPIC, f"{PACKAGE} is not installed for {sys.executable}", "pip install it there")
        return
    wanted = str(own.metadata["Requires-Python"] or "")
    python = ".".join(map(str, sys.version_info[:3]))
    if satisfies(python, wanted):
        yield good(TOPIC, f"Python {python} ({sys.executable})")
    else:
        yield bad(TOPIC, f"Python {python} is not {wanted}", "make the virtual environment with another Python")
    yield from compared(filter(None, map(requirement_in, own.requires or ())))


def compared(wanted: Iterable[Requirement], *, installed: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """Yield findings on the required packages."""
    right = []
    for each in wanted:
        if not each.is_for_all:
            continue
        fix = f"{sys.executable} -m pip install '{each.name}{each.versions}'"
        try:
            version = installed(each.name)
        except metadata.PackageNotFoundError:
            yield bad(TOPIC, f"{each.name} is not installed", fix)
            continue
        if satisfies(version, each.versions):
            right.append(f"{each.name} {version}")
        else:
            yield bad(TOPIC, f"{each.name} {version} is installed, and {each.versions} is what works", fix)
    if right:
        yield good(TOPIC, f"as required: {', '.join(sorted(right))}")
