"""Run as process 1 of a container: start one program, forward signals to it, reap every child that ends.

The kernel gives the orphans of a container to its process 1, and never ends that by a signal without a handler, so both
have to be done here. Below an init of Docker's (``--init``) we become the reaper of orphans (PR_SET_CHILD_SUBREAPER),
and all is the same.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from xboard_circus.host import procs

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
WAITED_FOR = {*ENDING, signal.SIGHUP, signal.SIGCHLD}
LOOK_EVERY = 0.5


class Init:
    """Run programs one after the other, as the parent of all their processes.

    Signals are blocked and taken one by one, so that none can come between a look and a wait.

    Attributes:
        end_signal: The signal that ordered us to end; the running program has then been sent SIGTERM.
    """

    def __init__(self, *, on_hangup: Callable[[], None] = lambda: None) -> None:
        self._on_hangup = on_hangup
        self._ended: dict[int, int] = {}
        self.end_signal: signal.Signals | None = None

    def take_over(self) -> None:
        """Become the receiver of the signals and the parent of the orphans."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
        if os.getpid() != 1:
            procs.adopt_orphans()

    def start(self, command: Sequence[str]) -> int:
        """Start *command* with both outputs on our stdout, in a session that a Ctrl-C at a terminal does not reach."""
        output = [(os.POSIX_SPAWN_DUP2, 1, 2)]
        return os.posix_spawn(
            command[0], [*command], os.environ, file_actions=output, setsid=True, setsigmask=[], setsigdef=WAITED_FOR
        )

    def tend(self, pid: int, *, is_overdue: Callable[[], bool] = lambda: False) -> int:
        """Wait for the end of *pid*, and forward signals meanwhile; return its exit code, 128 + N after a signal N.

        Once *is_overdue*, it is killed.
        """
        while pid not in self._ended:
            self._take_signal(pid)
            self._reap()
            if pid not in self._ended and is_overdue():
                _signal(pid, signal.SIGKILL)
        return self._ended.pop(pid)

    def end_the_rest(self, *, grace: float) -> None:
        """Send SIGTERM to every process that is left, and SIGKILL to those still there after *grace* seconds."""
        for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
            terminated: set[int] = set()
            give_up_at = time.monotonic() + patience
            # Again and again, because an ended process leaves its own children to us.
            while (left := children()) and time.monotonic() < give_up_at:
                for pid in left - terminated:
                    _signal(pid, signum)
                terminated |= left
                self._take_signal(None)
                self._reap()

    def _take_signal(self, pid: int | None) -> None:
        if (taken := signal.sigtimedwait(WAITED_FOR, LOOK_EVERY)) is None:
            return
        signum = signal.Signals(taken.si_signo)
        if signum in ENDING:
            self.end_signal = self.end_signal or signum
            if pid is not None:
                _signal(pid, signal.SIGTERM)
        elif signum == signal.SIGHUP and self.end_signal is None:
            self._on_hangup()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                code = os.waitstatus_to_exitcode(status)
                self._ended[pid] = code if code >= 0 else 128 - code


def children() -> set[int]:
    """Return our own children, also those that ended and are not reaped."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _signal(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
