"""Holders, orphans and how they end, with real sockets and processes; all strangers here are children of the test."""

import errno
import os
import re
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from xboard_circus.core.lost import CircusdLife
from xboard_circus.core.ports import Holder
from xboard_circus.host import circusd_record, listeners, procs, runtime, servers, sockdiag, sockets
from xboard_circus.host.procs import Identity

from .children import PROJECT, Children, children
from .free_ports import free_port
from .harness import eventually
from .processes import as_nobody, process

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# words: address, port, options: "v6only" "reuseport", how many children share the socket
LISTEN = """
import os, socket, sys
host, port, options, shared = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if ":" in host:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "v6only" in options)
if "reuseport" in options:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind((host, port))
listener.listen()
pids = [os.getpid()]
for _ in range(shared):
    pid = os.fork()
    if not pid:
        sys.stdin.read()
        os._exit(0)
    pids.append(pid)
print(*pids)
sys.stdin.read()
"""
SLEEP = "import sys; print('ready'); sys.stdin.read()"
DIG = "for _ in range(25): os.mkdir('d' * 200), os.chdir('d' * 200)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
POLITE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("drained"), sys.exit()))
print("ready")
sys.stdin.read()
"""
# A supervisor: starts its child, argv[1], anew whenever it ends, until it is told to stop itself.
SUPERVISOR = """
import signal, subprocess, sys
def stop(*_):
    sys.exit()
signal.signal(signal.SIGTERM, stop)
while True:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    print(child.pid)
    child.wait()
"""
# Starts one more child when it is told to stop, and stays; neither heeds SIGTERM.
STUBBORN = """
import signal, subprocess, sys
def more(*_):
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    print(child.pid)
print("ready")
signal.signal(signal.SIGTERM, more)
print("steady")
sys.stdin.read()
"""
# A parent and its child, both marked as orphans, of which the child looks for orphans.
LOOK = """
import os, subprocess, sys
from xboard_circus.host import listeners
if len(sys.argv) > 2:
    print(*(holder.pid for holder in listeners.orphans(sys.argv[1])), flush=True)
else:
    print(os.getpid(), flush=True)
    subprocess.run([sys.executable, "-c", os.environ["LOOK"], sys.argv[1], "look"])
    sys.stdin.read()
"""


# A parent that has one child beside another; that one has a child of its own, and tries to stop itself and its parent.
STOP = """
import os, subprocess, sys
sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"])
if len(sys.argv) > 1:
    from xboard_circus.host import listeners
    found = [listeners.holder_of(pid) for pid in (os.getpid(), os.getppid())]
    left = listeners.stop(found, grace=0)
    print(os.getpid(), sleeper.pid, *(holder.pid for holder in left), flush=True)
    sys.stdin.read()
else:
    print(os.getpid(), sleeper.pid, flush=True)
    subprocess.run([sys.executable, "-c", os.environ["STOP"], "stop"])
"""
WITHOUT_NETLINK = """
import socket, sys
class NoNetlink(socket.socket):
    def __init__(self, family=-1, *rest, **more):
        if family == socket.AF_NETLINK:
            raise OSError(97, "Address family not supported by protocol")
        super().__init__(family, *rest, **more)
socket.socket = NoNetlink
from xboard_circus.host import listeners
print(*(holder.pid for holder in listeners.holders("0.0.0.0", int(sys.argv[1]))))
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "run"))
    with children() as started:
        yield started


@pytest.fixture
def instance() -> str:
    return uuid.uuid4().hex[:12]


@pytest.fixture
def gone(start: Children) -> Identity:
    """A circusd that was killed."""
    return start.run(SLEEP).end()


@pytest.fixture
def marks(instance: str, gone: Identity) -> dict[str, str]:
    """What an orphan carries, among it the launcher in whose session it is."""
    return {"XBOARD_INSTANCE": instance, "XBOARD_CIRCUSD": str(gone), "XBOARD_LAUNCHER": f"{os.getsid(0)}:1"}


def listen(
    start: Children, host: str, port: int, options: str = "-", shared: int = 0, environ: Mapping[str, str] | None = None
) -> list[int]:
    """Start a listener; return the pids that hold its socket."""
    return start.run(LISTEN, host, port, options, shared, **(environ or {})).numbers()


def test_a_process_in_a_folder_that_is_too_deep_to_name_is_known(start: Children, tmp_path: Path) -> None:
    """Anybody may have one, with marks of ours: one that cannot be looked at must not spoil the rest."""
    deep = start.run(f"import os\nos.chdir({str(tmp_path)!r})\n{DIG}\n{SLEEP}")

    assert deep.line() == "ready"
    holder = held(deep.pid)

    assert (holder.cwd, holder.user) == ("", servers.name_of(os.geteuid()))


def held(pid: int) -> Holder:
    holder = listeners.holder_of(pid)
    assert holder is not None
    return holder


def pids(found: list[Holder]) -> list[int | None]:
    return [holder.pid for holder in found]


def own_identity() -> Identity:
    own = Identity.of(os.getpid())
    assert own is not None
    return own


def ended(pid: int) -> Callable[[], bool]:
    """Return a question whether this very process, as it is now, has ended."""
    seen = process(pid)
    return lambda: not seen.alive


# Holders


def test_a_holder_is_told_whole(start: Children) -> None:
    """Given a stranger on a port, then it is told with all that a person needs to find it."""
    port = free_port()
    (pid,) = listen(start, "127.0.0.1", port)

    (holder,) = listeners.holders("127.0.0.1", port)

    assert holder.age is not None
    assert 0 <= holder.age < 30
    assert "-c ' import os, socket" in holder.command
    assert holder._replace(age=None, command="") == Holder(
        pid=pid,
        started=procs.start_time(pid),
        user=servers.name_of(os.geteuid()),
        cwd=str(PROJECT),
        address=f"127.0.0.1:{port}",
        lost=False,
        users=frozenset({os.geteuid()}),
    )


def test_nobody_holds_a_free_port() -> None:
    assert listeners.holders("0.0.0.0", free_port()) == []


def test_a_connection_is_no_listener(start: Children) -> None:
    port = free_port()
    listen(start, "127.0.0.1", port)

    with socket.create_connection(("127.0.0.1", port)) as client:
        taken = client.getsockname()[1]

        assert listeners.holders("127.0.0.1", taken) == []


HOSTS = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "", "::1", "::", "::ffff:127.0.0.1")


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("127.0.0.1", "-"),
        ("0.0.0.0", "-"),
        ("0.0.0.0", "reuseport"),
        ("::1", "-"),
        ("::", "-"),
        ("::", "v6only"),
        ("::ffff:127.0.0.1", "-"),
    ],
)
def test_a_port_is_held_exactly_when_it_cannot_be_bound(start: Children, host: str, options: str) -> None:
    """Given a listener, then it holds those addresses, and no others, that the kernel refuses beside it."""
    port = free_port()
    expected = listen(start, host, port, options)

    seen = {wanted: pids(listeners.holders(wanted, port)) for wanted in HOSTS}

    refused = {wanted: listeners.try_bind(wanted, port) is not None for wanted in HOSTS}
    assert seen == {wanted: expected if refused[wanted] else [] for wanted in HOSTS}


def test_a_name_stands_for_all_its_addresses(start: Children) -> None:
    port = free_port()
    found = [listen(start, host, port)[0] for host in ("127.0.0.1", "127.0.0.2")]

    assert pids(listeners.holders("localhost", port)) == found[:1]
    assert listeners.try_bind("localhost", port) is not None


def test_all_who_share_a_socket_hold_it(start: Children) -> None:
    port = free_port()
    sharing = listen(start, "0.0.0.0", port, shared=3)

    assert sorted(sharing) == pids(listeners.holders("127.0.0.1", port))


def test_reuseport_hides_nobody(start: Children) -> None:
    """Given two processes with a socket each on one port, then both hold it, and it can't be bound."""
    port = free_port()
    found = [listen(start, "127.0.0.1", port, "reuseport")[0] for _ in range(2)]

    error = listeners.try_bind("127.0.0.1", port)

    assert sorted(found) == sorted(pid for pid in pids(listeners.holders("127.0.0.1", port)) if pid)
    assert error is not None
    assert error.errno == errno.EADDRINUSE


@as_root
def test_another_users_listener_is_unknown_and_not_free(start: Children) -> None:
    port = free_port()
    listen(start, "127.0.0.1", port)
    with as_nobody():
        found = listeners.holders("0.0.0.0", port)

    assert found == [
        Holder(pid=None, started=None, user="root", address=f"127.0.0.1:{port}", inspectable=False),
    ]


@pytest.mark.parametrize("host", ["127.0.0.2", "0.0.0.0", "::1", "::"])
def test_where_netlink_is_barred_the_tables_tell_the_same(start: Children, host: str) -> None:
    port = free_port()
    listen(start, host, port)

    families = (socket.AF_INET, socket.AF_INET6)
    tables = ("/proc/net/tcp", "/proc/net/tcp6")
    by_netlink = {listener for family in families for listener in sockdiag.by_netlink(port, family)}
    by_table = {listener for table in tables for listener in sockdiag.by_table(port, table)}

    assert sockdiag.listening(port) == list(by_netlink)
    assert by_table == {listener._replace(v6only=False) for listener in by_netlink}
    assert len(by_table) == 1


def test_what_the_kernel_lists_twice_is_one_listener(start: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    port, once = free_port(), sockdiag.by_netlink
    listen(start, "127.0.0.1", port)
    monkeypatch.setattr(sockdiag, "by_netlink", lambda *asked: [*once(*asked), *once(*asked)])

    assert len(sockdiag.listening(port)) == 1


def test_a_sandbox_without_netlink_hides_no_holder(start: Children) -> None:
    """Given a program that may open no netlink socket, then it finds who shares the port by the tables."""
    port = free_port()
    sharing = listen(start, "127.0.0.1", port, shared=1)
    look = start.run(WITHOUT_NETLINK, port)

    assert look.numbers() == sorted(sharing)


def test_a_machine_without_ipv6_has_no_table_of_it() -> None:
    assert list(sockdiag.by_table(80, "/proc/net/no-such-table")) == []


def test_other_systems_ask_each_process(start: Children) -> None:
    port = free_port()
    sharing = listen(start, "127.0.0.1", port, shared=1)
    wanted = [target.address for target in sockets.targets("0.0.0.0", port)]

    (found,) = sockets.by_process(wanted, port)

    assert (str(found), sorted(found.pids)) == (f"127.0.0.1:{port}", sorted(sharing))


def test_an_environment_goes_no_further(start: Children, marks: dict[str, str]) -> None:
    port = free_port()
    listen(start, "127.0.0.1", port, environ={**marks, "MY_SECRET": "hunter2"})

    assert "hunter2" not in repr(listeners.holders("127.0.0.1", port))


# Whose they are


def test_an_orphan_names_a_circusd_that_is_gone(start: Children, marks: dict[str, str], gone: Identity) -> None:
    port = free_port()
    listen(start, "127.0.0.1", port, environ=marks)

    (holder,) = listeners.holders("127.0.0.1", port)

    assert (holder.instance, holder.circusd, holder.circusd_alive) == (
        marks["XBOARD_INSTANCE"],
        (gone.pid, gone.started),
        False,
    )


@pytest.mark.parametrize(
    ("later", "alive"),
    [pytest.param(0, True, id="the very process"), pytest.param(1, False, id="another one with its pid")],
)
def test_a_circusd_lives_by_pid_and_start_time(start: Children, instance: str, later: int, alive: bool) -> None:
    own = own_identity()
    launcher = f"{os.getsid(0)}:1"
    circusd = f"{own.pid}:{own.started + later}"
    child = start.run(SLEEP, XBOARD_INSTANCE=instance, XBOARD_CIRCUSD=circusd, XBOARD_LAUNCHER=launcher)
    child.line()

    assert held(child.pid).circusd_alive is alive
    assert pids(listeners.orphans(instance)) == ([] if alive else [child.pid])


@pytest.mark.parametrize("circusd", ["", "x", "1", f"{2**40}:1"])
def test_a_mark_that_names_nobody_makes_no_orphan(start: Children, instance: str, circusd: str) -> None:
    child = start.run(SLEEP, XBOARD_INSTANCE=instance, XBOARD_CIRCUSD=circusd)
    child.line()

    assert (held(child.pid).circusd, listeners.orphans(instance)) == (None, [])


def test_a_copied_environment_makes_no_orphan(start: Children, marks: dict[str, str]) -> None:
    """Given a process with all marks of an orphan, in another session, below a parent that lives, then it is left."""
    child = start.run(SLEEP, **{**marks, "XBOARD_LAUNCHER": "999999999:1"})
    child.line()

    assert (held(child.pid).lost, listeners.orphans(marks["XBOARD_INSTANCE"])) == (False, [])


def test_a_mark_that_names_a_process_which_is_no_circusd_is_not_believed(start: Children, instance: str) -> None:
    """Given a mark that names pid 1, below which everything runs, then the process counts as nobody's."""
    child = start.run(SLEEP, XBOARD_INSTANCE=instance, XBOARD_CIRCUSD=f"1:{procs.start_time(1)}")
    child.line()

    assert held(child.pid).circusd_alive is False


def test_orphans_are_those_of_the_instance(start: Children, marks: dict[str, str]) -> None:
    mine, other = start.run(SLEEP, **marks), start.run(SLEEP, **{**marks, "XBOARD_INSTANCE": uuid.uuid4().hex[:12]})
    for child in (mine, other):
        child.line()

    (orphan,) = listeners.orphans(marks["XBOARD_INSTANCE"])

    assert (orphan.pid, orphan.address) == (mine.pid, "")


def test_a_worker_without_a_readable_mark_is_known_by_its_record(start: Children, instance: str) -> None:
    """Given what a circusd that is gone has recorded, then this very process is an orphan, and no other with its pid.

    Not while its parent is a circusd that is recorded.
    """
    mine, other = start.run(SLEEP), start.run(SLEEP)
    for child in (mine, other):
        child.line()
    began, me = {child.pid: procs.start_time(child.pid) or 0 for child in (mine, other)}, os.geteuid()
    found = {"a1": f"{mine.pid}:{began[mine.pid]} {me}", "b2": f"{other.pid}:{began[other.pid] + 1} {me}"}
    life = CircusdLife(pid=mine.pid, started=1, boot=circusd_record.boot(), workers={"web": found})
    circusd_record.write(instance, life)

    assert pids(listeners.orphans(instance)) == [mine.pid]

    runtime.write_record(instance, **own_identity()._asdict())
    assert listeners.orphans(instance) == []


def test_a_zombie_is_no_orphan(start: Children, marks: dict[str, str]) -> None:
    child = start.run(SLEEP, **marks)
    child.line()
    child.process.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert listeners.orphans(marks["XBOARD_INSTANCE"]) == []


def test_who_looks_for_orphans_is_none(start: Children, marks: dict[str, str]) -> None:
    """Given a command that is run from inside an orphan, then neither itself nor what it runs under is in its list."""
    sibling = start.run(SLEEP, **marks)
    sibling.line()
    looking = start.run(LOOK, marks["XBOARD_INSTANCE"], LOOK=LOOK, **marks)
    looking.line()

    assert looking.numbers() == [sibling.pid]


@pytest.mark.parametrize("marked", [False, True], ids=["started from outside", "started from inside an orphan"])
def test_a_circusd_is_known_by_its_record(start: Children, marks: dict[str, str], marked: bool) -> None:
    """Given the circusd that supervises now, whatever it carries itself, then it is known as such and no orphan."""
    instance, port = marks["XBOARD_INSTANCE"], free_port()
    (pid,) = listen(start, "127.0.0.1", port, environ=marks if marked else {})
    started = procs.start_time(pid)
    runtime.write_record(instance, pid=pid, started=started)

    (holder,) = listeners.holders("127.0.0.1", port)

    assert (holder.instance, holder.circusd, holder.circusd_alive) == (instance, (pid, started), True)
    assert listeners.orphans(instance) == []


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_a_process_in_a_container_is_no_orphan(start: Children, instance: str) -> None:
    """Given a worker in a container of its own, whose circusd has a pid that means nothing here, then it is left."""
    words = ["unshare", "--fork", "--pid", "--kill-child", "python3", "-c", SLEEP]
    container = start.start(words, {"XBOARD_INSTANCE": instance, "XBOARD_CIRCUSD": "4:1", "PATH": os.environ["PATH"]})
    container.line()
    inside = [pid for pid, stat in procs.snapshot().items() if stat.parent == container.pid]

    assert [held(pid).circusd_alive for pid in inside] == [True]
    assert not set(inside) & set(pids(listeners.orphans(instance)))


# Stopping


def test_who_heeds_sigterm_is_not_killed(start: Children, marks: dict[str, str]) -> None:
    child = start.run(POLITE, **marks)
    child.line()

    assert listeners.stop([held(child.pid)], grace=30) == []
    assert (child.line(), child.process.wait()) == ("drained", 0)


def test_who_does_not_is_killed_after_the_grace(start: Children, marks: dict[str, str]) -> None:
    child = start.run(DEAF, **marks)
    child.line()
    began = time.monotonic()

    assert listeners.stop([held(child.pid)], grace=0.3) == []
    assert child.process.wait() == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 30


def test_a_stopped_process_may_end_in_order(start: Children, marks: dict[str, str]) -> None:
    child = start.run(POLITE, **marks)
    child.line()
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)

    assert listeners.stop([held(child.pid)], grace=30) == []
    assert child.line() == "drained"


def test_another_process_with_the_pid_is_left_alone(start: Children, marks: dict[str, str]) -> None:
    """Given a holder that is gone, and its pid given to another that has children, then none of these is touched."""
    child = start.run(SUPERVISOR, SLEEP, **marks)
    (grandchild,) = child.numbers()
    holder = held(child.pid)
    before = holder._replace(started=(holder.started or 0) - 1)

    assert listeners.stop([before], grace=0) == []
    assert [child.process.poll(), ended(grandchild)()] == [None, False]


def test_who_stops_stops_neither_itself_nor_what_it_runs_under(start: Children, marks: dict[str, str]) -> None:
    """Given a command run from inside an orphan, told to stop both, then they and all that is below them stay."""
    top = start.run(STOP, STOP=STOP, **marks)
    top_pid, beside = top.numbers()

    stopper, below, *left = top.numbers()

    assert left == [stopper, top_pid]
    assert [process(pid).alive for pid in (top_pid, beside, stopper, below)] == [True] * 4


def test_parents_go_first(start: Children, marks: dict[str, str]) -> None:
    """Given a supervisor and the child that it would start anew, then both are gone and no other has come."""
    supervisor = start.run(SUPERVISOR, SLEEP, **marks)
    child_ended = ended(supervisor.numbers()[0])

    assert listeners.stop([held(supervisor.pid)], grace=30) == []
    assert child_ended()
    assert supervisor.output.read() == ""


def test_children_that_outlive_their_parent_are_found(start: Children, marks: dict[str, str]) -> None:
    """Given a child that heeds no SIGTERM under a parent that ends at once, then the child is killed as well."""
    supervisor = start.run(SUPERVISOR, DEAF, **marks)
    child_ended = ended(supervisor.numbers()[0])

    assert listeners.stop([held(supervisor.pid)], grace=0.3) == []
    assert child_ended()


def test_children_that_come_during_the_grace_are_found(start: Children, marks: dict[str, str]) -> None:
    stubborn = start.run(STUBBORN, DEAF, **marks)
    assert [stubborn.line(), stubborn.line()] == ["ready", "steady"]

    left = listeners.stop([held(stubborn.pid)], grace=4)

    (latecomer,) = stubborn.numbers()
    assert left == []
    assert not Path(f"/proc/{latecomer}/cwd").exists()


def test_children_without_marks_go_with_their_parent(start: Children, marks: dict[str, str]) -> None:
    bare = f"import os, sys; os.execve(sys.executable, [sys.executable, '-uc', {SLEEP!r}], {{}})"
    supervisor = start.run(SUPERVISOR, bare, **marks)
    child_ended = ended(supervisor.numbers()[0])

    assert listeners.stop([held(supervisor.pid)], grace=30) == []
    assert child_ended()


@pytest.mark.parametrize("whose", ["XBOARD_INSTANCE", "XBOARD_CIRCUSD"])
def test_children_of_another_circusd_stay(start: Children, marks: dict[str, str], whose: str) -> None:
    """Given an orphan that has started another circusd's process, then that one is nobody's leftover."""
    other = {"XBOARD_INSTANCE": "other", "XBOARD_CIRCUSD": str(own_identity())}[whose]
    become = f"os.execv(sys.executable, [sys.executable, '-c', {SLEEP!r}])"
    inner = f"import os, sys; os.environ[{whose!r}] = {other!r}; {become}"
    supervisor = start.run(SUPERVISOR, inner, **marks)
    child_ended = ended(supervisor.numbers()[0])

    assert listeners.stop([held(supervisor.pid)], grace=30) == []
    assert not child_ended()


def test_a_strangers_children_stay(start: Children) -> None:
    supervisor = start.run(SUPERVISOR, SLEEP)
    child_ended = ended(supervisor.numbers()[0])

    assert listeners.stop([held(supervisor.pid)], grace=30) == []
    assert not child_ended()


def test_the_unknown_still_runs(start: Children) -> None:
    unknown = Holder(pid=None, started=None, address="0.0.0.0:80", inspectable=False)

    assert listeners.stop([unknown], grace=0) == [unknown]


@as_root
def test_what_may_not_be_signalled_still_runs(start: Children) -> None:
    child = start.run(SLEEP)
    child.line()
    holder = held(child.pid)
    with as_nobody():
        left = listeners.stop([holder], grace=0)

    assert left == [holder]
    assert child.process.poll() is None


def test_one_who_holds_two_addresses_is_stopped_once(start: Children, marks: dict[str, str]) -> None:
    child = start.run(DEAF, **marks)
    child.line()
    twice = [held(child.pid)._replace(address=address) for address in ("127.0.0.1:1", "[::1]:1")]

    assert listeners.stop(twice, grace=0) == []


# Binding


def test_a_port_in_time_wait_is_free() -> None:
    """Given a server that closed a connection first, then its port is in TIME_WAIT and can be bound all the same."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    assert re.search(rf":{port:04X} .* 06 ", Path("/proc/net/tcp").read_text())

    assert listeners.try_bind("127.0.0.1", port) is None


def test_a_trial_leaves_the_port_free() -> None:
    port = free_port()

    assert [listeners.try_bind(host, port) for host in ("localhost", "0.0.0.0", "::", "127.0.0.1")] == [None] * 4


def test_an_address_that_is_not_ours_is_told() -> None:
    numbers = [(listeners.try_bind(host, 80) or OSError()).errno for host in ("192.0.2.1", "no such host.invalid")]

    assert numbers == [errno.EADDRNOTAVAIL] * 2


def test_a_port_is_free_as_soon_as_its_holders_are_gone(start: Children, marks: dict[str, str]) -> None:
    """Given orphans that share a socket and heed nothing, when they are stopped, then the port can be bound at once."""
    port = free_port()
    listen(start, "127.0.0.1", port, shared=3, environ=marks)

    assert listeners.stop(listeners.holders("127.0.0.1", port), grace=0) == []
    assert listeners.try_bind("127.0.0.1", port) is None


def test_the_records_of_circusds_are_read_once_for_all_processes(
    start: Children, marks: Mapping[str, str], instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given several processes with our mark, when orphans are looked for, then no file is read for each of them."""
    pids = {start.run(SLEEP, **marks).pid for _ in range(5)}
    runtime.write_record(instance, pid=1, started=1)
    eventually(lambda: pids <= {holder.pid for holder in listeners.orphans(instance)})  # each has its environment
    read, read_record = [], runtime.read_record

    def counted(name: str) -> dict[str, object] | None:
        read.append(name)
        return read_record(name)

    monkeypatch.setattr(runtime, "read_record", counted)

    assert pids <= {holder.pid for holder in listeners.orphans(instance)}
    assert read == [instance]
