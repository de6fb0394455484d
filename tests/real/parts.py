"""Programs that some tests start and that are not Python packages: a browser, Prometheus, containers."""

import os
import shutil

import pytest

EITHER = {"chromium": ("chromium-headless-shell", "chromium")}
"""Programs of which one is enough, the first that is there: the former has no window, and needs half the time."""


def needs(*programs: str) -> None:
    """Skip the test that calls this where one of *programs* is missing; with ``XBOARD_ALL_PARTS`` it fails there.

    Debian keeps some in /usr/sbin, which not every user's PATH has.
    """
    missing = [program for program in programs if find(program) is None]
    if missing and os.environ.get("XBOARD_ALL_PARTS"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def find(program: str) -> str | None:
    """Return the path of *program*, or None."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return next(filter(None, (shutil.which(each, path=path) for each in EITHER.get(program, (program,)))), None)
