"""Judge the result of a `run.before` command."""

from signal import Signals
from typing import NamedTuple

from xboard_circus.core.durations import exactly
from xboard_circus.core.sentences import Say, as_said

LAUNCHER = "xboard-circus launcher: "
_SIGNALLED = 128
"""A shell adds this to the number of the signal that ended a command."""


class RunEnd(NamedTuple):
    """The result of one run.

    Attributes:
        code: As a shell reports it; None where the run ended without a report.
        timeout: The limit in seconds at which it was ended; None if it ended before.
        stopped: It was ended because the watcher stops.
        not_run: Why it could not be run at all.
        output: The last lines that it wrote.
    """

    code: int | None = None
    timeout: float | None = None
    stopped: bool = False
    not_run: str = ""
    output: str = ""


def failure_of(end: RunEnd) -> str | None:
    """Return why a run failed, None if it succeeded.

    >>> failure_of(RunEnd(code=0)), failure_of(RunEnd(code=1, output="Traceback:\\nno such table\\n"))
    (None, 'run.before exited with code 1: "no such table"')
    """
    line = next((line.strip() for line in reversed(end.output.splitlines()) if line.strip()), "")
    if end.stopped:
        return Say.BEFORE_STOPPED()
    if end.timeout is not None:
        return Say.BEFORE_TIMED_OUT(timeout=exactly(end.timeout))
    if end.not_run:
        return Say.BEFORE_NOT_RUN(why=end.not_run)
    if end.code == 0:
        return None
    if end.code is None:
        said = line.removeprefix(LAUNCHER)
        return Say.BEFORE_NOT_RUN(why=as_said(said)) if said != line else Say.BEFORE_KILLED()
    if (number := end.code - _SIGNALLED) in {each.value for each in Signals}:
        return Say.BEFORE_DIED(signal=Signals(number).name)
    return Say.BEFORE_EXITED_SAYING(code=end.code, line=line) if line else Say.BEFORE_EXITED(code=end.code)
