"""Decide the cause of a process's end, and put it into words.

Nothing in this module asks the system: the caller brings what is known of the process. The cause decides whether the
death counts; its reason is what every log and table shows.
"""

import re
from enum import Enum
from signal import Signals
from typing import NamedTuple

from xboard_circus.core.reason import one_line
from xboard_circus.core.sentences import Say, as_said

NO_PROGRAM, NO_FOLDER, NO_USER, CIRCUSD_GONE, NO_LIMIT = 120, 121, 122, 123, 124
"""Exit codes of the launcher where it cannot become the command; it has no other way to report."""

_CANNOT_RUN = {NO_PROGRAM: Say.NO_PROGRAM, NO_FOLDER: Say.NO_FOLDER, NO_USER: Say.NO_USER, NO_LIMIT: Say.NO_LIMIT}

_ASKERS = {"reload": Say.FOR_RELOAD, "recycle": Say.FOR_RECYCLE}

# These patterns are compiled at their first use, and kept by `re`.
# The log may be shared with siblings that write on; the launcher signs its line.
_LAUNCHER = r"xboard-circus launcher: (.+)"
_SAID = r"(\S.*)"

# Not SIGHUP, SIGUSR1 and SIGQUIT: servers reload, reopen their logs or print their stacks on them, and may well crash a
# week later.
_TERMINATING = frozenset({Signals.SIGTERM, Signals.SIGKILL, Signals.SIGINT})

# asyncio writes "[errno 98]" in small letters inside its own message.
_PORT_TAKEN = r"(?i)address already in use|\berrno (?:98|48)\b"

# The last line of a traceback, perhaps after the "time [pid] | " of Circus's log stream.
_EXCEPTION = (
    r"^(?:.*?\| )?\s*("
    r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|ExceptionGroup|Exit|Interrupt|Timeout)(?::\s.*)?"
    r"|(?:[A-Za-z_]\w*\.)+[A-Z]\w*:\s.*"
    r")$"
)
_COMPLAINT = r"\b(?:ERROR|CRITICAL|FATAL|[Ee]rror|[Ff]atal)\b"
# Of a last line that no logger has written: the words of `sys.exit("...")`.
_LAST_WORDS = r"^(?:\S+ \S+ \[\d+\] \| )?(?!\W*(?:DEBUG|INFO|WARN)|\d{2,4}[-/:])(\S.*)"


class Cause(Enum):
    """Why a process ended."""

    CRASH = "crash"
    EXITED = "exited"
    FAILED_START = "failed start"
    CANNOT_RUN = "cannot be run"
    PORT_CONFLICT = "port conflict"
    KILLED = "killed from outside"
    OUT_OF_MEMORY = "out of memory"
    UNHEALTHY = "unhealthy"
    COMMANDED = "commanded"
    UNKNOWN = "unknown"

    @property
    def counts(self) -> bool:
        """Return whether such a death is a failure; only commanded ones are not."""
        return self is not Cause.COMMANDED


class Death(NamedTuple):
    """What is known of a process that has ended.

    Attributes:
        exit_code: Negative for the signal that ended it; None if unknown.
        was_up: It had come up, even if it was not at the end.
        commanded_by: What ordered it to leave: "operator", "reload", "recycle", "scale", ...
        signals: The signals that Circus sent to it, in any order.
        oom: How the kernel's OOM kill is known; "" where it is ruled out, None where it is unknown.
        our_kill: Why this project killed it; overrides everything else.
        our_reason: The words for *our_kill*, or for the order of *commanded_by*.
        log_tail: The last lines that it wrote, as far as they are known.
        command: What it was to run.
    """

    exit_code: int | None
    was_up: bool
    commanded_by: str | None = None
    signals: tuple[int, ...] = ()
    oom: str | None = None
    our_kill: Cause | None = None
    our_reason: str = ""
    log_tail: str = ""
    command: str = ""


def cause_of(death: Death) -> tuple[Cause, str]:
    """Return why the process ended, and the reason: one line of at most 300 characters.

    >>> cause_of(Death(exit_code=-11, was_up=True))
    (<Cause.CRASH: 'crash'>, 'died by SIGSEGV')
    >>> cause_of(Death(exit_code=1, was_up=False, log_tail="ValueError: no key"))
    (<Cause.FAILED_START: 'failed start'>, 'exited with code 1: "ValueError: no key"')
    """
    cause, reason = _judged(death)
    return cause, one_line(reason) or cause.value


def _judged(death: Death) -> tuple[Cause, str]:
    code = death.exit_code
    if death.our_kill is not None:
        return death.our_kill, death.our_reason
    if death.commanded_by:
        by = _ASKERS.get(death.commanded_by)
        return Cause.COMMANDED, death.our_reason or Say.COMMANDED(by=death.commanded_by if by is None else by())
    if sent := _terminating(death):
        return Cause.COMMANDED, Say.COMMANDED_BY_SIGNAL(signal=signal_name(sent))
    if code is None:
        return Cause.UNKNOWN, Say.UNSEEN()
    if code < 0:
        return _died_by(-code, death)
    if not death.was_up and (found := _launcher_failure(code, death)):
        return found
    # Even if it was ready, because that is guessed by uptime for a server that binds late and by itself.
    if code in (1, 3) and (line := _last(death.log_tail, _PORT_TAKEN)):
        return Cause.PORT_CONFLICT, Say.PORT_CONFLICT(line=line)
    return _exited(code, death)


def _terminating(death: Death) -> int | None:
    """Return the signal of Circus that explains the end: one that terminates, or the one that it died by."""
    return next((sent for sent in death.signals if sent in _TERMINATING or -sent == death.exit_code), None)


def _died_by(signum: int, death: Death) -> tuple[Cause, str]:
    if signum == Signals.SIGKILL:
        if death.oom:
            return Cause.OUT_OF_MEMORY, Say.OOM_KILLED(why=death.oom)
        return Cause.KILLED, Say.KILLED() if death.oom == "" else Say.KILLED_PERHAPS_OOM()
    if not death.was_up:
        return Cause.FAILED_START, Say.DIED_STARTING(signal=signal_name(signum))
    return Cause.CRASH, Say.DIED(signal=signal_name(signum))


def _launcher_failure(code: int, death: Death) -> tuple[Cause, str] | None:
    """Return the failure that the launcher reports by its exit code.

    Only for a process that was never ready: later the launcher has become the command, and Python itself exits with 120
    when it cannot flush its output.
    """
    if code in _CANNOT_RUN:
        line = _last(death.log_tail, _LAUNCHER) or _last(death.log_tail, _SAID)
        return Cause.CANNOT_RUN, Say.CANNOT_RUN(why=as_said(line) or _CANNOT_RUN[code](command=death.command))
    return (Cause.UNKNOWN, Say.CIRCUSD_GONE()) if code == CIRCUSD_GONE else None


def _exited(code: int, death: Death) -> tuple[Cause, str]:
    if code == 0 and death.was_up:
        return Cause.EXITED, Say.EXITED_UNASKED()
    if code == 0:
        return Cause.FAILED_START, Say.EXITED_UNASKED_STARTING()
    line = _last(death.log_tail, _EXCEPTION) or _last(death.log_tail, _COMPLAINT)
    if not line and code == 1 and not death.was_up:  # of Python's that code alone comes with such words
        line = _last(death.log_tail.rstrip().rpartition("\n")[2], _LAST_WORDS)
    cause = Cause.CRASH if death.was_up else Cause.FAILED_START
    if line:
        return cause, Say.EXITED_SAYING(code=code, line=line)
    return cause, Say.EXITED(code=code) if death.was_up else Say.EXITED_STARTING(code=code)


def _last(log_tail: str, pattern: str) -> str:
    """Return the last line with a match of *pattern*, or that match's group; "" without one."""
    for line in reversed(log_tail.splitlines()):
        if found := re.search(pattern, one_line(line)):
            return found.group(1) if found.re.groups else one_line(line)
    return ""


def signal_name(signum: int) -> str:
    """Return the name of a signal, such as SIGTERM."""
    try:
        return Signals(signum).name
    except ValueError:
        return f"signal {signum}"
