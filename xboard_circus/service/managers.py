"""Run systemctl and launchctl."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xboard_circus.errors import XboardError
from xboard_circus.host.programs import run_captured
from xboard_circus.service.layout import NO_MANAGER, Layout

LOOK_EVERY = 1.0
ANSWERS_WITHIN = 60.0
UNLOAD_WITHIN = 120
UNLOAD_SLACK = 25  # launchd itself kills 15 s after the longest graceful_timeout
START_SLACK = 30
Report = Callable[[str], None]


class Shell:
    """Run programs and report each; with *dry_run* only report them."""

    def __init__(self, note: Report, *, dry_run: bool) -> None:
        self.note, self.dry_run = note, dry_run

    def report(self, what: str) -> None:
        """Report one step, done or only planned: "write: FILE"."""
        self.note(f"would {what}" if self.dry_run else what)

    def run(
        self, *command: str, may_fail: bool = False, within: int | None = None, late: str = "", half: str = ""
    ) -> None:
        """Run *command* in the root folder, without any module of a user's; XboardError if it fails.

        It is left after *within* seconds, with *late* as the error's cure. Where *half* says what it leaves when it is
        ended in its middle, Ctrl-C and the loss of the terminal do not reach it.
        """
        line = " ".join(command)
        self.report(f"run: {line}")
        if self.dry_run:
            return
        try:
            with subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, start_new_session=bool(half)) as process:
                code = self._wait(process, within, half)
        except subprocess.TimeoutExpired:
            raise XboardError(f"`{line}` has not ended within {within} s: {late}") from None
        except OSError as error:
            raise XboardError(f"{command[0]} cannot be run: {error.strerror}") from None
        if code and not may_fail:
            raise XboardError(f"`{line}` ended with exit code {code}; what it said is above")

    def _wait(self, process: subprocess.Popen[bytes], within: int | None, half: str) -> int:
        try:
            return process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        except KeyboardInterrupt:
            if half:
                self.note(f"waiting for its end: in its middle {half}. Ctrl-C again leaves pid {process.pid} running")
                process.wait()
            raise


def succeeds(*command: str, user: str = "") -> bool:
    """Return whether *command* succeeds, and keep its output; as *user* without our terminal, environment and keys.

    XboardError if it does not end, because another process of that user may stop it.
    """
    how: dict[str, Any] = {"env": os.environ}
    if user:
        uid, gid = pwd.getpwnam(user)[2:4]
        how = {"user": uid, "group": gid, "extra_groups": os.getgrouplist(user, gid), "env": {}}
    try:
        done = run_captured([*command], timeout=ANSWERS_WITHIN, cwd="/", **how)
    except OSError:
        return False
    if done is None:
        who = f": a process of {user}'s may hold it up" if user else ""
        raise XboardError(f"`{' '.join(command)}` has not ended within {ANSWERS_WITHIN:g} s{who}")
    return done.returncode == 0


class Manager:
    """A service manager of a host."""

    def __init__(self, layout: Layout, shell: Shell) -> None:
        self.layout, self.shell = layout, shell

    def refuse_if_absent(self) -> None:
        """Raise XboardError if it does not answer, or has a service of that name of its own."""

    def start(self, *, changed: bool, restart: bool, timeouts: tuple[int, int]) -> None:
        """Load the unit and start it; a running service is left alone without *restart*.

        *timeouts* are the longest stop and the longest start of its workers, in seconds.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the service and disable its start."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget the removed unit."""


class Systemd(Manager):
    """systemd, of the system or of a user."""

    def refuse_if_absent(self) -> None:
        layout = self.layout
        if not self.shell.dry_run and layout.system and not os.path.isdir(Path("/run/systemd/system")):
            raise XboardError(f"this host was not started by systemd; {NO_MANAGER}")
        if not self.shell.dry_run and not layout.system and not succeeds("systemctl", "--user", "show-environment"):
            cure = f"log in as that user, not by su or sudo, or: loginctl enable-linger {layout.user}"
            raise XboardError(f"no systemd of {layout.user}'s answers: {cure}")
        if os.path.exists(Path("/usr/lib/systemd", "system" if layout.system else "user", layout.unit_name)):
            raise XboardError(f"{layout.name} is a service of this host's own: choose another --name")

    def start(self, *, changed: bool, restart: bool, timeouts: tuple[int, int]) -> None:
        unit = self.layout.unit_name
        self._ctl("daemon-reload")
        self._ctl("enable", unit)
        # systemd waits for as long as circusd tries, which it does for ever where the new code does not start.
        late = "no worker gets ready; earlier ones serve on, and systemd goes on trying."
        start = self._systemctl("restart" if restart else "start", unit)
        self.shell.run(*start, within=sum(timeouts) + START_SLACK, late=f"{late} See `{self.layout.command} why`")
        if changed and not restart:
            command = " ".join(self._systemctl("restart", unit))
            self.shell.note(f"if {self.layout.name} was running: `{command}` applies it")
        if not self.layout.system and shutil.which("loginctl"):
            self.shell.note("to have it run while you are not logged in: loginctl enable-linger")

    def stop(self) -> None:
        self._ctl("stop", self.layout.unit_name)
        self._ctl("disable", self.layout.unit_name)

    def forget(self) -> None:
        self._ctl("daemon-reload")

    def _ctl(self, *words: str) -> None:
        self.shell.run(*self._systemctl(*words))

    def _systemctl(self, *words: str) -> tuple[str, ...]:
        return ("systemctl", *words) if self.layout.system else ("systemctl", "--user", *words)


class Launchd(Manager):
    """launchd, of the system or of a logged-in user; it is on every macOS, and forgets an unloaded job."""

    def start(self, *, changed: bool, restart: bool, timeouts: tuple[int, int]) -> None:
        if self._is_loaded():
            if not changed and not restart:
                self.shell.note(f"unchanged: {self.layout.unit_name} is loaded")
                return
            self._unload(timeouts[0])
        self.shell.run("launchctl", "enable", self._job)
        self.shell.run("launchctl", "bootstrap", self.layout.domain, str(self.layout.unit))

    def stop(self) -> None:
        if self._is_loaded():
            self._unload(UNLOAD_WITHIN)

    @property
    def _job(self) -> str:
        return f"{self.layout.domain}/{self.layout.unit_name}"

    def _is_loaded(self) -> bool:
        return succeeds("launchctl", "print", self._job)

    def _unload(self, within: int) -> None:
        """Unload the job and wait until it has ended.

        launchctl may return while the job drains, with an error for that; and a job that has not ended cannot be loaded
        anew.
        """
        self.shell.run("launchctl", "bootout", self._job, may_fail=True)
        if self.shell.dry_run:
            return
        give_up_at = time.monotonic() + within + UNLOAD_SLACK
        while self._is_loaded():
            if time.monotonic() > give_up_at:
                raise XboardError(f"{self.layout.unit_name} does not end; see: launchctl print {self._job}")
            time.sleep(LOOK_EVERY)


MANAGERS: dict[str, type[Manager]] = {"systemd": Systemd, "launchd": Launchd}
