"""Run the backend in a container: check its mounts and the ini file, start circusd, and report how it ended."""

import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from xboard_circus.container.first_process import Init
from xboard_circus.container.volumes import complaints, warnings
from xboard_circus.core.restart_limits import RestartBudget, RestartLimits
from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError
from xboard_circus.host import circusd_record, last_words, procs, runtime

DONE, TOLD, OUR_BUG = 0, 1, 3
VARIABLE = re.compile(r"\$\(circus\.env\.(\w+)\)")
REST_GRACE = 10.0
PATIENCE = 20.0
QUESTIONS = 3
QUIT_WITHIN = 10.0


class CircusdWatch:
    """Watch the circusd of *ini* that runs as *pid*: it hangs, or had to quit long ago and is still there.

    circusd renews the time of its record every 5 s, so watching it costs nothing. One that has not for *patience*
    seconds is queried, three times, because a disk that cannot be written is no reason to kill it. A record of the
    circusd of another container, on the same volume, is none of ours, and renews nothing.
    """

    def __init__(self, ini: Path, pid: int, *, patience: float = PATIENCE) -> None:
        self._ini, self._patience = ini, patience
        self._circusd = procs.Identity(pid, procs.start_time(pid) or 0)
        self._instance = runtime.instance_id(ini)
        self._quits_since: float | None = None
        self._seen: float | None = None
        self._seen_at, self._unanswered = time.monotonic(), 0

    def is_overdue(self) -> bool:
        """Return whether circusd has to be killed now; record the reason if it hangs."""
        now = time.monotonic()
        if last_words.read(self._instance) is not None:
            self._quits_since = self._quits_since or now
            return now > self._quits_since + QUIT_WITHIN
        life = circusd_record.read(self._instance)
        # None: it has no record yet.
        seen = life.seen if life is not None and self._circusd == (life.pid, life.started) else self._seen
        if seen is None or seen != self._seen:
            self._seen, self._seen_at, self._unanswered = seen, now, 0
        elif now > self._seen_at + self._patience and self._unanswered < QUESTIONS:
            # Here and not above: zmq takes 3 MiB, which almost no container ever needs in this process.
            from xboard_circus.container.health_check import circusd_answers

            self._unanswered = 0 if circusd_answers(self._ini) else self._unanswered + 1
            if self._unanswered == QUESTIONS:
                circusd_record.amend(self._instance, self._circusd, why=Say.FIRST_PROCESS_ENDED_IT())
        return self._unanswered == QUESTIONS


def say(message: str) -> None:
    print(f"xboard-circus: {message}", flush=True)


def run(ini: Path, *, patience: float = PATIENCE) -> int:
    """Run the backend of *ini* until it ends; return the exit code. *patience*: see `CircusdWatch`."""
    try:
        return _run(ini, patience)
    except (XboardError, OSError) as error:
        say(str(error))
        return error.exit_code if isinstance(error, XboardError) else TOLD


def _run(ini: Path, patience: float) -> int:
    command_line = [sys.executable, "-m", "xboard_circus", "-c", str(ini)]
    init = Init(on_hangup=lambda: _reload(init, [*command_line, "reload"]))
    init.take_over()
    instance = runtime.instance_id(ini)
    for warning in warnings():
        say(f"warning: {warning}")
    problems = complaints()
    if not problems:
        last_words.forget(instance)
        if (code := init.tend(init.start([*command_line, "check"]))) and init.end_signal is None:
            problems = [check_failure(ini, code)]
    if problems:
        for problem in problems:
            say(problem)
        return TOLD
    if init.end_signal is not None:
        return DONE
    budget = RestartBudget(RestartLimits(), slots=1)
    while True:
        pid = init.start([sys.executable, "-m", "circus.circusd", str(ini)])
        code = init.tend(pid, is_overdue=CircusdWatch(ini, pid, patience=patience).is_overdue)
        reason = last_words.read(instance)
        is_over = code <= 128 or reason is not None or init.end_signal is not None
        if is_over or budget.failed(1, time.monotonic()).cooling:
            break
        say(f"circusd was ended by {_signal_of(code)}: starting it again; its workers serve on")
    # A stop of circusd leaves no process. After a kill of it, its workers may finish their requests.
    init.end_the_rest(grace=REST_GRACE)
    return _verdict(init, code, reason)


def _verdict(init: Init, code: int, reason: str | None) -> int:
    if init.end_signal is not None:
        # A circusd that could not handle the signal yet was ended by it, as ordered.
        return DONE if code == 128 + signal.SIGTERM else code
    if reason is not None:
        say(f"giving up: {reason}")
        return TOLD
    how = f"ended with exit code {code}" if code else "received a stop request"
    say(f"circusd {f'was ended by {_signal_of(code)}; its workers go with it' if code > 128 else how}")
    return code


def check_failure(ini: Path, code: int) -> str:
    """Return why nothing was started after `check` ended with *code*, and which variables its values come from."""
    if code == OUR_BUG:
        # In a file, which is lost with the container.
        for report in sorted(runtime.root_path().glob("crash-*.log"))[-1:]:
            print(report.read_text(encoding="utf-8", errors="replace"), flush=True)
        return f"nothing was started: the check of {ini} failed by an error of its own, see above"
    if code > 128:
        return f"nothing was started: the check of {ini} was ended by {_signal_of(code)}; is there too little memory?"
    taken = sorted(set(VARIABLE.findall(_text(ini))))
    hint = f"; of its values, these are the container's environment's: {', '.join(taken)}" if taken else ""
    return f"nothing was started: {ini} is at fault, see above{hint}"


def _text(ini: Path) -> str:
    """Return the readable part of the file; with a fault it may be no text, or not readable for us."""
    try:
        return ini.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _signal_of(code: int) -> str:
    return signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code - 128)


def _reload(init: Init, command: Sequence[str]) -> None:
    say("SIGHUP: rolling reload")
    init.start(command)
