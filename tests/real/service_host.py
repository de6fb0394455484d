"""A real ``systemd --user`` of a test's own, on a host that was not booted by systemd.

It runs in a mount namespace of its own, on a cgroup v2 tree and a /run of its own, so that it meets nothing of the
host's. Its runtime folder lies in /tmp, so that ``systemctl`` reaches it from outside.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from .harness import Circusd, eventually
from .operations import ROOT, small_checkout
from .parts import needs

SCRIPT = ROOT / "scripts" / "install_service.sh"
NAME = "xb-test"
UNIT = f"{NAME}.service"
SYSTEMD = "/usr/lib/systemd/systemd"

BOOT = f"""
set -eu
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "/sys/fs/cgroup/$GROUP"
echo $$ > "/sys/fs/cgroup/$GROUP/cgroup.procs"
if [ -n "$AS_USER" ]; then
    chown -R "$AS_USER" "/sys/fs/cgroup/$GROUP"
    exec setpriv --reuid "$AS_USER" --regid "$AS_USER" --clear-groups {SYSTEMD} --user --log-target=console
fi
exec {SYSTEMD} --user --log-target=console
"""
# What is killed stays in its group until it is reaped.
SWEEP = """
mount -t cgroup2 none /sys/fs/cgroup
group="/sys/fs/cgroup/$GROUP"
echo 1 >"$group/cgroup.kill"
for _ in $(seq 50); do
    find "$group" -depth -type d -exec rmdir {} +
    [ -d "$group" ] || exit 0
    sleep 0.1
done
"""


class UserManager:
    """A ``systemd --user`` that runs, and the folders that it and its units live in.

    Attributes:
        user: Whom it and its services run as; root where that is empty.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], *, user: str) -> None:
        self.folder = folder
        self.user = user
        self.home = folder / "home"
        self.runtime = folder / "run"
        self.units = folder / "config" / "systemd" / "user"
        self.log = folder / "systemd.log"
        self.environ = {
            **environ,
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "GROUP": folder.name,
            "AS_USER": user,
        }
        for made in (self.home, self.units):
            made.mkdir(parents=True)
        self.runtime.mkdir(0o700)
        if user:
            run(["chown", "-R", user, str(folder)], environ)
        self._popen: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", BOOT],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: self.ctl("show", "default.target").returncode == 0, what="systemd answers")

    def shut_down(self) -> None:
        assert self._popen is not None
        self._popen.send_signal(signal.SIGRTMIN + 24)  # "exit at once"
        try:
            self._popen.wait(90)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        subprocess.run(["unshare", "--mount", "sh", "-c", SWEEP], env=self.environ, check=False, capture_output=True)

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def ctl(self, *words: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run ``systemctl --user``, whatever it says."""
        return self.inside(["systemctl", "--user", *words], timeout=timeout)

    def inside(self, command: list[str], *, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run *command* as who the manager runs as."""
        enter = ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups"] if self.user else []
        return run([*enter, *command], self.environ, timeout=timeout)

    def show(self, unit: str, name: str) -> str:
        """Return one property of *unit*."""
        return self.ctl("show", unit, f"--property={name}", "--value").stdout.strip()

    def processes(self, unit: str) -> list[int]:
        """Return the pids in the control group of *unit*."""
        group = self.show(unit, "ControlGroup")
        return pids_of(group) if group else []

    def drop_in(self, unit: str, text: str) -> None:
        """Change *unit* by a file beside it."""
        folder = self.units / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text(text)
        self.ctl("daemon-reload")


def pids_of(group: str) -> list[int]:
    """Return the pids whose unified control group is *group* or below it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                lines = (entry / "cgroup").read_text().splitlines()
                own = next((line[3:] for line in lines if line.startswith("0::")), "")
                if own == group or own.startswith(f"{group}/"):
                    found.append(int(entry.name))
    return found


def run(command: list[str], environ: Mapping[str, str], *, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def needs_systemd() -> None:
    """Skip the test that calls this where there can be no systemd of its own."""
    if os.geteuid() != 0:
        pytest.skip("takes root: systemd gets a private mount namespace")
    needs("systemctl", "systemd-analyze", "unshare", "nsenter", "setpriv")
    if not os.access(SYSTEMD, os.X_OK):
        pytest.skip(f"not installed: {SYSTEMD}")
    trial = ["unshare", "--mount", "mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"]
    if (done := run(trial, os.environ)).returncode != 0:
        pytest.skip(f"no mount namespace with a control group tree of its own: {done.stderr.strip()}")


Host = TypeVar("Host", bound=UserManager)


class Environed(Protocol):
    """Whatever a service manager is started for: its environment carries the mark of the test."""

    def environ(self) -> dict[str, str]: ...


def user_manager(c: Environed, *, user: str = "") -> contextlib.AbstractContextManager[UserManager]:
    """Run one whose services carry the mark of the test's *c*, which has an ini file and is not started."""
    return booted(c, "xb-sd-", lambda folder, environ: UserManager(folder, environ, user=user))


@contextlib.contextmanager
def booted(c: Environed, prefix: str, made: Callable[[Path, Mapping[str, str]], Host]) -> Iterator[Host]:
    """Run what is *made* with a folder below /tmp and the environment of *c*; its log is shown after a failure."""
    needs_systemd()
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    environ = {name: value for name, value in c.environ().items() if not name.startswith(("XBOARD_RUNTIME", "XDG_"))}
    folder.chmod(0o755)
    manager = made(folder, environ)
    try:
        manager.boot()
        yield manager
    except BaseException:
        print(manager.log.read_text(errors="replace")[-6000:], file=sys.stderr)
        raise
    finally:
        manager.shut_down()
        shutil.rmtree(folder, ignore_errors=True)


def script() -> str:
    """Return the path of the script in a checkout with a small .venv: as root it looks at each file there, thrice."""
    return str(small_checkout() / "scripts" / SCRIPT.name)


def lead_to(python: str, packages: Path) -> None:
    """Make a .venv that is one file, which runs *python*: root looks at each file of the .venv of a service."""
    program = packages / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    program.chmod(0o755)


def install(manager: UserManager, c: Circusd, *words: str, action: str = "install") -> str:
    """Let the script do *action* with a service of the folder of *c*, and return what it printed.

    From then on *c* finds circusd where the service has it. The service runs the Python that runs the tests.
    """
    packages = c.folder / ".venv"
    if not packages.exists():
        lead_to(sys.executable, packages)
    done = run([script(), action, "--user", "--name", NAME, "--dir", str(c.folder), *words], manager.environ)
    assert done.returncode == 0, done.stderr
    c.endpoint = f"ipc://{manager.runtime}/{NAME}/circusd.sock"
    return done.stderr
