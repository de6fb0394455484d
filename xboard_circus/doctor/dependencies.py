"""Examine whether the packages that the backend needs are installed, in suitable versions."""

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from xboard_circus.checks.findings import Finding, bad, good, unknown
from xboard_circus.doctor.case import Case

PACKAGE = "xboard-circus"


def look(_case: Case) -> Iterator[Finding]:
    """Yield a line for Python, one for all suitable packages, and one for each unsuitable one."""
    try:
        own = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        yield unknown(f"{PACKAGE} is not installed for {sys.executable}", "pip install it there")
        return
    wanted = SpecifierSet(own.metadata["Requires-Python"] or "")
    python = ".".join(map(str, sys.version_info[:3]))
    if wanted.contains(python, prereleases=True):
        yield good(f"Python {python} ({sys.executable})")
    else:
        yield bad(f"Python {python} is not {wanted}", "make the virtual environment with another Python")
    yield from compared(map(Requirement, own.requires or ()))


def compared(wanted: Iterable[Requirement], *, installed: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """Yield findings on the required packages."""
    right = []
    for each in wanted:
        if each.marker and not each.marker.evaluate({"extra": ""}):
            continue
        fix = f"{sys.executable} -m pip install '{each.name}{each.specifier}'"
        try:
            version = installed(each.name)
        except metadata.PackageNotFoundError:
            yield bad(f"{each.name} is not installed", fix)
            continue
        if each.specifier.contains(version, prereleases=True):
            right.append(f"{each.name} {version}")
        else:
            yield bad(f"{each.name} {version} is installed, and {each.specifier} is what works", fix)
    if right:
        yield good(f"as required: {', '.join(sorted(right))}")
