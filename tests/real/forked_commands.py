"""Runs of the command line in forks of a process that has imported it, which is most of the time of a start.

Each run has the folder, environment, arguments and descriptors of its own, and ends as any process does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# What Python, or what the command line imports, reads when it starts. A run with another one of these is started.
AT_START = ("PYTHON", "PYZMQ", "PSUTIL", "TORNADO", "LANG", "LC_", "LD_", "TZ", "MALLOC_", "GLIBC_")
# What a process takes over from its parent, beside the environment. A run after a change of these is started too.
OF_THE_PARENT = ("Umask", "Uid", "Gid", "Groups", "Sig", "Shd", "Cap", "NoNewPrivs", "Seccomp", "Cpus_allowed")
# By any other mark of ours circusd, `clean` and `doctor` find a process, in what the kernel keeps of its start.
MARKS = {"XBOARD_TEST", "XBOARD_RUNTIME_DIR"}
PENDING = ("SigQ", "SigPnd", "SigCgt", "ShdPnd")
MOST = 1 << 18
HERE = Path(__file__).resolve().parent
_RUNNING: list[Prepared] = []
_LOCK = threading.Lock()


class Prepared:
    """A process that forks one for each run; it ends with this one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.began_with = at_start(environ), of_the_parent()
        # It outlives the test, whose end would kill what carries its marks.
        unmarked = {name: value for name, value in environ.items() if not name.startswith("XBOARD_")}
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, str(theirs.fileno())]
        with theirs:
            self._popen = subprocess.Popen(
                command,
                env=unmarked,
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,  # as in a run: a file can be sought in, a pipe cannot
                stderr=subprocess.PIPE,
            )

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def run(
        self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``xboard-circus ARGUMENTS``, as `subprocess.run` does with its output captured."""
        order = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
        pipes = [os.pipe() for _ in range(3)]
        found = {read: b"" for read, _ in pipes}
        out, err, end = found
        command, code = ["xboard-circus", *arguments], b""
        try:
            try:
                socket.send_fds(self._orders, [order], [write for _, write in pipes])
            finally:
                for _, write in pipes:
                    os.close(write)
            is_over = read_all(found, time.monotonic() + timeout)
        finally:  # also where pytest ends the test in its middle
            if not found[end] and select.select([end], [], [], 5)[0]:  # it has been ended before it read that
                found[end] = os.read(end, MOST)
            pid, _, code = found[end].partition(b" ")
            if pid and not code:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)  # its parent reaps it before it tells of its end
            for read in found:
                os.close(read)
        if not is_over:
            raise subprocess.TimeoutExpired(command, timeout, found[out], found[err])
        if not code:
            raise RuntimeError(f"no end is told of {command}: {self.close(signal.SIGKILL)}")
        return subprocess.CompletedProcess(command, int(code), text_of(found[out]), text_of(found[err]))

    def close(self, signum: int = 0) -> str:
        """End it, and return what it has complained of; the next run makes another."""
        self._orders.close()
        if signum:
            self._popen.send_signal(signum)
        try:
            complaints = self._popen.communicate(timeout=10)[1]
        except subprocess.TimeoutExpired:  # it is stopped, say
            self._popen.kill()
            complaints = self._popen.communicate()[1]
        return complaints.decode(errors="replace")


def at_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(AT_START)}


def of_the_parent() -> list[str]:
    """List what a process that this one starts now has from it: its rights, its limits, the signals that it ignores."""
    status = Path("/proc/thread-self/status").read_text().splitlines()
    facts = [line for line in status if line.startswith(OF_THE_PARENT) and not line.startswith(PENDING)]
    facts += [Path("/proc/self", name).read_text() for name in ("limits", "cgroup", "oom_score_adj")]
    facts += [os.readlink(f"/proc/self/{name}") for name in ("root", "fd/0", "ns/mnt", "ns/net", "ns/pid", "ns/user")]
    return [*facts, str(os.getpriority(os.PRIO_PROCESS, 0))]


def run(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """Run the command line in a fork; None where that would not be the same as a start."""
    if any(name.startswith("XBOARD_") and name not in MARKS for name in env):
        return None
    with _LOCK:
        if not (_RUNNING and _RUNNING[0].is_alive):
            end()
            _RUNNING.append(Prepared(env))
        prepared = _RUNNING[0]
    if prepared.began_with != (at_start(env), of_the_parent()):
        return None
    return prepared.run(arguments, cwd=cwd, env=env, timeout=timeout)


def end() -> None:
    while _RUNNING:
        _RUNNING.pop().close()


def read_all(found: dict[int, bytes], deadline: float) -> bool:
    """Read each of the descriptors to its end; False where that has not come before *deadline*."""
    with selectors.DefaultSelector() as selector:
        for descriptor in found:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and (seconds := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(seconds):
                part = os.read(key.fd, 1 << 16)
                found[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
        return not selector.get_map()


def text_of(output: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(output)).read()


# -- in the process that forks --


def serve(orders: socket.socket) -> bool:
    """Fork for each order; return True in the process that is to run the command line, and False at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps those that wait for a run
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C ends the tests, and that ends this one
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, MOST, 3)
        if not order:
            return False
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            fork_run(*descriptors)
            signal.signal(signal.SIGINT, interrupt)
            become(**json.loads(order))
            return True
        for descriptor in descriptors:
            os.close(descriptor)


def fork_run(out: int, err: int, end: int) -> None:
    """Fork the process of a run, and return in that alone: the other one tells its pid, and how it has ended."""
    if (pid := os.fork()) == 0:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, max(out, err, end) + 1)
        return
    os.close(out)
    os.close(err)
    os.write(end, f"{pid} ".encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    """Have this process look as one that `python -m xboard_circus ARGUMENTS` has started there."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [str(command_line.__file__), *arguments]
    sys.orig_argv = [sys.executable, "-m", "xboard_circus", *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, cwd)
    sys.modules["__main__"] = command_line


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # nothing of this folder is taken for a library
    from xboard_circus import __main__ as command_line
    from xboard_circus.cli import main as imported  # noqa: F401  # as the command line itself does first

    own = sys.modules["__main__"]  # kept: its functions run on
    with socket.socket(fileno=int(sys.argv[1])) as given:
        if not serve(given):
            sys.exit()
    command_line.pass_shared_folder_by()
    command_line.main()
