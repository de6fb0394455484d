import os
import platform
import resource
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from xboard_circus.host import listeners, procs
from xboard_circus.host.procs import Identity

from .children import Child, Children, children
from .processes import as_nobody

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

SLEEPER = "print('ready'); import time; time.sleep(60)"
# The first thread ends alone, by the system call for one thread (exit, not exit_group); the other one sleeps on.
HALF_GONE = """
import ctypes, sys, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready")
ctypes.CDLL(None).syscall(int(sys.argv[1]), 0)
"""
WITHOUT_PIDFD = """
import os, sys
del os.pidfd_open
from xboard_circus.host import procs
pid, started = map(int, sys.argv[1:])
print([procs.send_signal(pid, started + late, 15, {os.geteuid()}) for late in (1, 0)])
"""
# Any user can show a region of zeros, which takes no memory, as an environment or a command line. 32 MiB are enough.
SHOWS_ZEROS = """
import ctypes, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
size, noreserve = 32 << 20, 0x4000
zeros = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | noreserve, -1, 0)
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
code, data, stack = stat[23:25], stat[42:45], stat[25]
places = [*map(int, [*code, *data]), libc.sbrk(0), *map(int, [stack, *stat[45:49]])]
at = {"command line": 7, "environment": 9}[sys.argv[1]]
places[at : at + 2] = zeros, zeros + size
libc.prctl(15, b"fifteen letters")
given = ctypes.create_string_buffer(struct.pack("11QQIi", *places, 0, 0, -1))
failed = libc.prctl(35, 14, given, ctypes.c_ulong(104), 0)  # PR_SET_MM, PR_SET_MM_MAP
print(os.strerror(ctypes.get_errno()) if failed else "shown", flush=True)
sys.stdin.read()
"""
EXIT_THREAD = {"x86_64": 60, "aarch64": 93}


@pytest.fixture
def start() -> Iterator[Children]:
    with children() as started:
        yield started


@pytest.fixture
def sleeper(start: Children) -> Child:
    child = start.run(SLEEPER)
    child.line()
    return child


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """No file can be opened: what the system knows can't be read."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def eventually_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 30
    while (stat := procs.read_stat(pid)) is None or stat.state != state:
        assert time.monotonic() < deadline, f"{pid} is not in state {state} but {stat}"
        time.sleep(0.01)


def test_a_process_runs_under_its_own_start_time_alone(sleeper: Child) -> None:
    pid, started = sleeper.pid, sleeper.identity.started

    assert [procs.is_running(pid, at) for at in (started - 1, started, started + 1)] == [False, True, False]


def test_the_age_is_that_of_the_process(sleeper: Child) -> None:
    before = procs.age(sleeper.identity.started)
    wanted = time.time() - psutil.Process(sleeper.pid).create_time()
    after = procs.age(sleeper.identity.started)

    assert before - 1 < wanted < after + 1


def test_a_zombie_has_a_start_time_and_does_not_run(sleeper: Child) -> None:
    """Given a killed process that nobody has reaped, then it is there, does not run, and takes no signal."""
    sleeper.process.kill()
    eventually_state(sleeper.pid, "Z")

    pid, started = sleeper.pid, sleeper.identity.started
    assert procs.start_time(pid) == started
    assert not procs.is_running(pid, started)
    assert not procs.send_signal(pid, started, signal.SIGTERM, {os.geteuid()})
    assert not procs.environ(pid)


def test_a_reaped_process_is_gone(sleeper: Child) -> None:
    pid, started = sleeper.end().pid, sleeper.identity.started

    assert [procs.start_time(pid), Identity.of(pid), procs.environ(pid)] == [None, None, None]
    assert not procs.is_running(pid, started)
    assert not procs.send_signal(pid, started, signal.SIGTERM, {os.geteuid()})


@pytest.mark.skipif(platform.machine() not in EXIT_THREAD, reason="the number of the system call is not known")
def test_a_process_runs_until_its_last_thread_ends(start: Children) -> None:
    """Given a process whose first thread has ended, when it is shown as a zombie, then it runs, and can be killed."""
    child = start.run(HALF_GONE, EXIT_THREAD[platform.machine()])
    child.line()
    eventually_state(child.pid, "Z")

    assert procs.is_running(child.pid, child.identity.started)
    assert procs.send_signal(child.pid, child.identity.started, signal.SIGKILL, {os.geteuid()})
    assert child.process.wait() == -signal.SIGKILL


def test_a_program_can_be_called_anything(start: Children) -> None:
    child = start.run("open('/proc/self/comm', 'w').write('a) Z 1 (b'); " + SLEEPER)
    child.line()

    assert procs.is_running(child.pid, child.identity.started)


def test_a_signal_reaches_the_process(sleeper: Child) -> None:
    assert procs.send_signal(sleeper.pid, sleeper.identity.started, signal.SIGTERM, {os.geteuid()})
    assert sleeper.process.wait() == -signal.SIGTERM


def test_a_signal_for_the_one_before_is_not_sent(sleeper: Child) -> None:
    assert not procs.send_signal(sleeper.pid, sleeper.identity.started - 1, signal.SIGKILL, {os.geteuid()})
    assert sleeper.process.poll() is None


@pytest.mark.parametrize(
    "pid", [-1, 0, 1, os.getpid(), os.getppid()], ids=["everybody", "our group", "init", "ourselves", "our parent"]
)
def test_some_are_never_signalled(pid: int) -> None:
    with pytest.raises(ValueError, match="no signal 0"):
        procs.send_signal(pid, procs.start_time(abs(pid)) or 0, 0, {0})


def test_we_run_under_our_parent_and_its_parents() -> None:
    assert procs.ancestors() == [parent.pid for parent in psutil.Process().parents()]


def test_a_process_that_cannot_be_read_is_not_taken_for_gone(sleeper: Child) -> None:
    """Given no descriptor left, then a process runs until it is known not to, and is not signalled on a guess."""
    with no_descriptor_left():
        runs = procs.is_running(sleeper.pid, sleeper.identity.started)
        with pytest.raises(PermissionError):
            procs.send_signal(sleeper.pid, sleeper.identity.started, signal.SIGKILL, {os.geteuid()})
        gone = procs.is_running(sleeper.end().pid, sleeper.identity.started)

    assert (runs, gone) == (True, False)


def test_without_a_pidfd_signals_still_go(start: Children, sleeper: Child) -> None:
    """Given a Python that knows no pidfd, then the signal goes by pid, once the start time is seen to be right."""
    child = start.run(WITHOUT_PIDFD, sleeper.pid, sleeper.identity.started)

    assert child.line() == "[False, True]"
    assert sleeper.process.wait() == -signal.SIGTERM


def test_an_environment_is_what_the_process_was_started_with(start: Children) -> None:
    child = start.run(SLEEPER, ODD="a=b\n\udcff", EMPTY="")
    child.line()

    environ = procs.environ(child.pid)

    assert environ is not None
    assert [environ["ODD"], environ["EMPTY"], environ.get("NONE")] == ["a=b\n\udcff", "", None]


def test_thousands_of_variables_of_another_cost_a_look_for_marks_little(start: Children) -> None:
    """Given a process with 100,000 variables, as any user may start hundreds, then a look parses none but the marks."""
    many = {f"{at:x}": "" for at in range(100_000)}
    child = start.run(SLEEPER, **many, XBOARD_INSTANCE="of-many", XBOARD_WATCHER="web=1")
    child.line()

    def cost(look: Callable[[], object]) -> float:
        before = time.process_time()
        look()
        return time.process_time() - before

    whole = min(cost(lambda: procs.environ(child.pid)) for _ in range(5))
    holder = min(cost(lambda: listeners.holder_of(child.pid)) for _ in range(5))

    assert procs.marks(child.pid) == {"XBOARD_INSTANCE": "of-many", "XBOARD_WATCHER": "web=1"}
    assert holder < whole / 2


@as_root
def test_another_users_process_runs_and_keeps_its_secrets(sleeper: Child) -> None:
    pid, started = sleeper.pid, sleeper.identity.started
    with as_nobody():
        seen = procs.is_running(pid, started), procs.environ(pid), procs.is_of_our_pid_space(pid)
        with pytest.raises(PermissionError):
            procs.send_signal(pid, started, signal.SIGTERM, {0})

    assert seen == (True, None, False)


def test_the_snapshot_knows_parents(sleeper: Child) -> None:
    snapshot = procs.snapshot()

    assert snapshot[sleeper.pid].parent == os.getpid()
    assert snapshot[sleeper.pid].started == sleeper.identity.started


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", "a:1", "-1:1", "0:1", "1:2:3", "1:-2", " 1:2", "²:1", f"{2**31}:1"]
)
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pid"):
        Identity.parse(text)


@pytest.mark.parametrize("digits", [13, 5000])
def test_endless_numbers_are_refused(digits: int) -> None:
    for text in ("1" * digits + ":1", "1:" + "1" * (digits + 10)):
        with pytest.raises(ValueError, match="no pid has this number"):
            Identity.parse(text)


def test_an_identity_reads_as_it_was_written() -> None:
    own = Identity.of(os.getpid())

    assert own is not None
    assert Identity.parse(str(own)) == own


@pytest.mark.skipif(platform.system() != "Linux", reason="Linux alone has prctl")
@pytest.mark.parametrize("what", ["environment", "command line"])
def test_what_a_process_shows_without_measure_is_not_read(start: Children, what: str) -> None:
    """Given a process of any user that shows 32 MiB as its own, when we look at it, then we read 1 MiB at most."""
    marks = {"XBOARD_INSTANCE": "of-a-bomb", "XBOARD_CIRCUSD": "4194304:1"}
    child = start.run(SHOWS_ZEROS, what, **marks)
    try:
        if (said := child.line()) != "shown":
            pytest.skip(f"this kernel lets no process choose it: {said}")
        looks: list[Callable[[], object]] = [
            lambda: procs.environ(child.pid),
            lambda: procs.marks(child.pid),
            lambda: listeners.holder_of(child.pid),
            lambda: listeners.orphans("of-a-bomb"),
            lambda: procs.config_file_of(child.pid),
            lambda: procs.name_of(child.pid),
        ]
        listeners.holder_of(os.getpid())  # what is imported and cached meanwhile is none of it

        peaks = []
        for look in looks:
            tracemalloc.start()
            look()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        known, holder = procs.environ(child.pid), listeners.holder_of(child.pid)
    finally:
        child.end()  # its mark is not to be found

    assert max(peaks) < 8 * procs.READ_AT_MOST, peaks
    assert holder is not None
    if what == "environment":
        assert (known, holder.inspectable, holder.instance, holder.lost) == (None, False, None, False)
    else:
        assert holder.command == "'fifteen letters'"


@pytest.mark.skipif(platform.system() != "Linux", reason="Linux alone has /proc")
def test_a_title_ends_where_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procs, "_read", lambda _: b"xboard-circus forkserver".ljust(90, b"\0"))

    assert procs.command_line(1) == ["xboard-circus", "forkserver"]


def test_a_command_line_is_read_as_the_process_has_it(start: Children) -> None:
    child = start.run(SLEEPER, "", "two words")
    child.line()

    assert procs.command_line(child.pid) == psutil.Process(child.pid).cmdline()
    assert procs.command_line(child.pid)[3:] == ["", "two words"]
    assert procs.command_line(child.end().pid) == []
