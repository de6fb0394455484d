"""Keep the tests that make network interfaces and those that watch a browser from running at the same time.

Chromium breaks off every request of the moment in which an interface comes or goes (ERR_NETWORK_CHANGED), whichever
it is and whatever the request goes to.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / f"xboard-circus-tests-{os.geteuid()}.interfaces"


@contextlib.contextmanager
def _locked(kind: int) -> Iterator[None]:
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind)  # released by the kernel however the test ends
        yield
    finally:
        os.close(descriptor)


def unchanged() -> contextlib.AbstractContextManager[None]:
    """Wait until no test makes interfaces, and let none begin; many may hold this at once."""
    return _locked(fcntl.LOCK_SH)


def changing() -> contextlib.AbstractContextManager[None]:
    """Wait until no test watches a browser, and let none begin."""
    return _locked(fcntl.LOCK_EX)
