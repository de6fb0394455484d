"""The first process of a container: start one program, hand signals on to it, reap whatever ends.

The kernel hands the orphans of a container to its process 1 and never ends that by a signal for which it has no
handler, so both have to be done here. Below an init of Docker's (``--init``) we make ourselves the one who gets the
orphans (PR_SET_CHILD_SUBREAPER), and all is the same.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
WAITED_FOR = {*ENDING, signal.SIGHUP, signal.SIGCHLD}
LOOK_EVERY = 0.5


class Init:
    """Runs programs one after the other, as the parent of all that comes from them.

    Signals are blocked and taken one by one, so that none can come between a look and a wait.

    Attributes:
        told_to_end: The signal that was to end us; whatever runs has been sent SIGTERM then.
    """

    def __init__(self, *, on_hangup: Callable[[], None] = lambda: None) -> None:
        self._on_hangup = on_hangup
        self._ended: dict[int, int] = {}
        self.told_to_end: signal.Signals | None = None

    def take_over(self) -> None:
        """Become the one who gets the signals and the orphans."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
        if os.getpid() != 1:
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, command: Sequence[str]) -> int:
        """Start *command* with both outputs on our stdout, in a session that a Ctrl-C at a terminal does not reach."""
        output = [(os.POSIX_SPAWN_DUP2, 1, 2)]
        return os.posix_spawn(
            command[0], [*command], os.environ, file_actions=output, setsid=True, setsigmask=[], setsigdef=WAITED_FOR
        )

    def tend(self, pid: int, *, is_overdue: Callable[[], bool] = lambda: False) -> int:
        """Wait for the end of *pid*, and hand signals on meanwhile; return its exit code, 128 + N after a signal N.

        Once *is_overdue*, it is killed.
        """
        while pid not in self._ended:
            self._take_signal(pid)
            self._reap()
            if pid not in self._ended and is_overdue():
                _signal(pid, signal.SIGKILL)
        return self._ended.pop(pid)

    def end_the_rest(self, *, grace: float) -> None:
        """SIGTERM to every process that is left, and SIGKILL to those that are there after *grace* seconds."""
        for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
            told: set[int] = set()
            give_up_at = time.monotonic() + patience
            # Again and again: what ends leaves its own children to us.
            while (left := children()) and time.monotonic() < give_up_at:
                for pid in left - told:
                    _signal(pid, signum)
                told |= left
                self._take_signal(None)
                self._reap()

    def _take_signal(self, pid: int | None) -> None:
        taken = signal.sigtimedwait(WAITED_FOR, LOOK_EVERY)
        if taken is None:
            return
        signum = signal.Signals(taken.si_signo)
        if signum in ENDING:
            self.told_to_end = self.told_to_end or signum
            if pid is not None:
                _signal(pid, signal.SIGTERM)
        elif signum == signal.SIGHUP and self.told_to_end is None:
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
    """Return our own children, those that ended and are not reaped among them."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _signal(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
