"""A machine of a test's own, booted by a real systemd as process 1, on this host's files: what it writes is forgotten.

It has namespaces of its own for all but the network, so that a test reaches the ports of its services. It may be cut
off from its power, and boots again with another boot id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from .harness import eventually
from .service_host import SWEEP, SYSTEMD, Environed, UserManager, booted, pids_of, run

# What the host has besides is neither started nor waited for.
MASKED = (
    *("tmp.mount", "getty.target", "systemd-logind.service", "systemd-tmpfiles-clean.timer", "dbus.socket"),
    *("dbus.service", "systemd-sysctl.service", "systemd-binfmt.service", "systemd-modules-load.service"),
)
# For as long as the machine is there, on or off. An overlay takes no folder below what it lies on.
KEEP = """
set -eu
mount --make-rprivate /
mkdir -p "$ROOMS"
mount -t tmpfs tmpfs "$ROOMS"
cd "$ROOMS"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$ROOMS/upper,workdir=$ROOMS/work" root
for folder in $SHARED; do mount --bind "$folder" "root$folder"; done
: >root/etc/fstab
rm -rf root/etc/systemd/system/*
mkdir -p root/usr/local/bin
for unit in $MASKED; do ln -s /dev/null "root/etc/systemd/system/$unit"; done
: >root/.prepared
exec sleep infinity
"""
BOOT = f"""
set -eu
cd "$ROOMS/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind "$ROOMS/boot_id" proc/sys/kernel/random/boot_id
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=0755 tmpfs dev
mkdir dev/shm dev/pts
for device in null zero full random urandom tty; do : >dev/$device; mount --bind /dev/$device dev/$device; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . .
umount -l .
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    {SYSTEMD} --system --log-target=journal --show-status=no systemd.unit=multi-user.target
"""
GROUP = """
set -eu
echo "$BOOT_ID" >"$ROOMS/boot_id"
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$GROUP"
echo $$ >"/sys/fs/cgroup/$GROUP/cgroup.procs"
umount /sys/fs/cgroup
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -c "$BOOT"
"""


class Machine(UserManager):
    """A machine whose files are copies of this host's, but for *shared* and its own folder, which are the same."""

    def __init__(self, folder: Path, environ: Mapping[str, str], shared: Path) -> None:
        self.folder, self.log, self.user = folder, folder / "systemd.log", ""
        programs = folder / "bin"  # those that a test puts in the place of the host's
        programs.mkdir()
        self.environ = {**environ, "PATH": f"{programs}:{environ['PATH']}", "GROUP": folder.name, "BOOT": BOOT}
        self.environ |= {"ROOMS": str(folder / "rooms"), "SHARED": f"{shared} {folder}", "MASKED": " ".join(MASKED)}
        self._log = self.log.open("ab")
        self._keeper = self._spawn(["unshare", "--mount", "sh", "-c", KEEP])
        self._machine: subprocess.Popen[bytes] | None = None

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        log = self._log
        return subprocess.Popen(command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def boot(self) -> None:
        """Switch it on, with another boot id each time, and wait until it is up."""
        self.environ["BOOT_ID"] = str(uuid.uuid4())
        enter = ["nsenter", "--mount", f"--target={self._keeper.pid}", "--"]
        prepared = [*enter, "test", "-e", str(self.folder / "rooms" / "root" / ".prepared")]
        eventually(lambda: run(prepared, self.environ).returncode == 0, what="the files are there")
        self._machine = self._spawn([*enter, "unshare", "--mount", "sh", "-c", GROUP])
        eventually(lambda: self.ctl("is-active", "sysinit.target").returncode == 0, what="it has booted")
        self.units = Path(f"/proc/{self.pid}/root/etc/systemd/system")

    def cut_power(self) -> None:
        """End all of its processes at once, as a reset does."""
        assert self._machine is not None
        os.kill(self.pid, signal.SIGKILL)
        self._machine.wait(60)
        self._machine = None

    def shut_down(self) -> None:
        if self._machine is not None and self._machine.poll() is None:
            self.cut_power()
        self._keeper.kill()
        self._keeper.wait()
        self._log.close()
        subprocess.run(["unshare", "--mount", "sh", "-c", SWEEP], env=self.environ, check=False, capture_output=True)

    @property
    def pid(self) -> int:
        """Return the pid of its process 1 on this host."""
        assert self._machine is not None
        above = self._machine.pid
        return int(Path(f"/proc/{above}/task/{above}/children").read_text().split()[0])

    def processes(self, unit: str) -> list[int]:
        group = self.show(unit, "ControlGroup")
        return pids_of(f"/{self.folder.name}{group}") if group else []

    def ctl(self, *words: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run ``systemctl``, whatever it says."""
        return self.inside(["systemctl", *words], timeout=timeout)

    def inside(self, command: list[str], *, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        return run(
            ["nsenter", "--mount", "--pid", f"--target={self.pid}", "--", *command], self.environ, timeout=timeout
        )


def machine(c: Environed, shared: Path) -> AbstractContextManager[Machine]:
    """Run a machine for *c*; what it serves lies in *shared*."""
    return booted(c, "xb-pc-", lambda folder, environ: Machine(folder, environ, shared))
