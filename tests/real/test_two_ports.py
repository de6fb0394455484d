"""Two armed watchers, each on a port of its own: what happens to one port leaves the other alone."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import FAST_RESTARTS, FORKSERVERS, Circusd, Watcher, circusd, eventually, holds, kill
from .load import Load
from .processes import open_files, process

RETRY = {**FAST_RESTARTS, "port.retry": 0.5}
NAMES = ("web", "page")
SQUATTER = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""


def two() -> list[Watcher]:
    return [Watcher(name, options=RETRY) for name in NAMES]


def other(name: str) -> str:
    return NAMES[1 - NAMES.index(name)]


def is_refused(c: Circusd, name: str) -> bool:
    """Nobody listens on the watcher's port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", c.watchers[name].port)) != 0


def listeners_held(pid: int) -> set[str]:
    """The sockets among the files of a process that listen on a TCP port, by inode."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    return listening & set(open_files(pid).values())


def stop(c: Circusd, name: str = "web") -> None:
    """Stop a watcher and wait until its port is given back."""
    c.do("stop", name=name, match="simple", waiting=True)
    eventually(lambda: is_refused(c, name), what=f"the port of {name} refuses")


def starts_again(c: Circusd, name: str = "web") -> list[int]:
    """Start a watcher; return its workers once they serve, which must have cost no restart."""
    before = c.watcher(name)["restarts"]
    c.do("start", name=name, match="simple", waiting=False)
    pids = c.wait_ready(name=name)
    assert int(c.get(name=name)) in pids
    assert c.watcher(name)["port"]["state"] == "bound"
    assert c.watcher(name)["restarts"] == before
    return pids


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    with circusd(tmp_path_factory.mktemp("two"), watchers=two()) as c:
        yield c


@pytest.fixture
def c(shared: Circusd) -> Circusd:
    shared.start_if_ended()
    for name in NAMES:
        shared.wait_ready(name=name)
    return shared


@pytest.mark.parametrize("name", NAMES)
def test_one_is_stopped_and_started_while_the_other_runs(c: Circusd, name: str) -> None:
    """Given two watchers, when one is stopped, then its port refuses; when it is started, it serves at once."""
    beside = c.workers(other(name))

    stop(c, name)
    assert c.serves(other(name))
    starts_again(c, name)

    assert c.workers(other(name)) == beside


def test_both_are_stopped_and_started(c: Circusd) -> None:
    for name in NAMES:
        stop(c, name)
    for name in reversed(NAMES):
        starts_again(c, name)


def test_a_worker_holds_the_listener_of_its_own_watcher_only(c: Circusd) -> None:
    """Given workers that were started at different times, then each holds one listener, the one it serves on."""
    kill(c.workers()[0])
    c.wait_ready()

    held = {name: {frozenset(listeners_held(pid)) for pid in c.workers(name)} for name in NAMES}

    assert [len(each) for each in held.values()] == [1, 1]
    (web,), (page,) = held["web"], held["page"]
    assert len(web) == len(page) == 1
    assert web != page


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_of_one_loses_no_connection_of_either(c: Circusd, name: str) -> None:
    """Given load on the other, when one is restarted, then it has new workers, and nothing of the other is lost."""
    old, beside = c.workers(name), c.workers(other(name))

    with Load(c.url_of(other(name)), rate=50) as load:
        c.do("restart", name=name, match="simple", waiting=True, timeout=90)
        fresh = c.wait_ready(name=name)

    assert not set(fresh) & set(old)
    assert int(c.get(name=name)) in fresh
    assert load.lost == []
    assert c.workers(other(name)) == beside


def test_reloadconfig_adds_a_third_that_can_be_stopped_and_started(c: Circusd) -> None:
    """Given two watchers, when a third comes by reloadconfig, then it is stopped and started as they are."""
    before = {name: c.workers(name) for name in NAMES}
    (c.folder / "third").mkdir()
    c.watchers["third"] = Watcher("third", numprocesses=1, options=RETRY)
    c.write_ini()

    c.do("reloadconfig", waiting=True)
    c.wait_ready(name="third")
    stop(c, "third")
    starts_again(c, "third")

    assert {name: c.workers(name) for name in NAMES} == before
    stop(c, "web")
    starts_again(c, "web")


def test_both_ports_are_handed_over_to_the_next_circusd(c: Circusd) -> None:
    """Given circusd killed under load, when it is started again, then both ports are taken over, and none is lost."""
    old = [process(pid) for name in NAMES for pid in c.workers(name)]
    handed = {name: handovers(c, name) for name in NAMES}

    with Load(c.url_of("web"), rate=25) as web, Load(c.url_of("page"), rate=25) as page:
        eventually(lambda: web.answered > 12 and page.answered > 12)
        c.kill9()
        c.start_again()
        for name in NAMES:
            eventually(lambda name=name: not {each.pid for each in old} & set(c.wait_ready(name=name)))  # type: ignore[misc]
        eventually(lambda: not [each for each in old if each.alive], what="the old ones end")
        served = web.answered, page.answered
        eventually(lambda: web.answered > served[0] + 12 and page.answered > served[1] + 12)

    assert web.lost + page.lost == []
    for name in NAMES:
        assert handovers(c, name) == handed[name] + 1
        assert {int(c.get(name=name)) for _ in range(20)} <= set(c.workers(name))
        stop(c, name)
        starts_again(c, name)


def handovers(c: Circusd, name: str) -> int:
    """How often circusd has said that it took the port of a watcher over from a worker."""
    said = [line for line in c.log("circusd").splitlines() if "over from a worker of an earlier circusd" in line]
    return sum(f": {name}: took " in line for line in said)


def test_clean_frees_both_ports(c: Circusd) -> None:
    """Given circusd killed, when `xboard-circus clean` runs, then nothing is left, and both ports refuse.

    The last one of those that share a circusd: nothing of it runs beside the tests below.
    """
    c.kill9()

    result = c.run_cli("clean")

    assert result.returncode == 0, result.stdout + result.stderr
    eventually(lambda: c.processes() == [])
    assert all(is_refused(c, name) for name in NAMES)


def test_what_is_not_armed_and_started_earlier_does_not_keep_the_port(tmp_path: Path) -> None:
    """Given Circus's helper and a watcher of no port, both with all sockets, when ours stops, then its port refuses."""
    idle = Watcher(
        "idle", numprocesses=1, armed=False, listens=False, command="sleep 600", options={"use_sockets": True}
    )
    earlier = Watcher(
        "earlier",
        numprocesses=1,
        armed=False,
        listens=False,
        command="sleep 600",
        options={"use_sockets": True, "priority": 9},
    )
    armed = Watcher(options=RETRY)
    with circusd(tmp_path, watchers=[armed, idle, earlier], circus={"statsd": True}) as c:
        c.wait_ready()
        everything = "circusd, two workers, forkserver, two idle ones and stats"
        eventually(lambda: len(c.processes()) == 6 + FORKSERVERS, what=everything)

        stop(c)
        starts_again(c)


def test_a_socket_that_two_watchers_share_serves_while_one_of_them_runs(tmp_path: Path) -> None:
    """Given a second watcher on the same socket, when the first is stopped, then the second serves on."""
    first = Watcher(options=RETRY)
    command = "python -m xboard_circus.worker {app} --fd $(circus.sockets.web) --no-access-log {arguments}"
    second = Watcher("page", port=first.port, listens=False, command=command, options={**RETRY, "use_sockets": True})
    with circusd(tmp_path, watchers=[first, second]) as c:
        c.wait_ready()
        pids = c.wait_ready(name="page")

        c.do("stop", name="web", match="simple", waiting=True)

        eventually(lambda: c.status() == "stopped")
        holds(lambda: int(c.get()) in pids, seconds=3)
        c.do("start", name="web", match="simple", waiting=False)
        c.wait_ready()
        assert c.workers("page") == pids
        assert c.watcher()["restarts"] == c.watcher("page")["restarts"] == 0


def test_a_port_that_our_own_process_holds_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Given a watcher whose program sits on another's port, then that one waits, names it, and serves once it goes."""
    armed = Watcher(options=RETRY)
    (tmp_path / "squatter.py").write_text(SQUATTER)
    command = f"{{python}} {tmp_path / 'squatter.py'} {armed.port}"
    options = {"priority": 9, "warmup_delay": 1}
    squatter = Watcher("squatter", numprocesses=1, armed=False, listens=False, command=command, options=options)
    with circusd(tmp_path, watchers=[armed, squatter]) as c:
        eventually(lambda: c.watcher()["port"]["state"] == "refused")
        (pid,) = c.workers("squatter")
        assert f"{pid} (" in c.watcher()["port"]["reason"]
        assert "started by this circusd" in c.watcher()["port"]["reason"]
        holds(lambda: not c.starts() and c.workers("squatter") == [pid], seconds=1)
        assert c.failures() == []

        c.do("stop", name="squatter", match="simple", waiting=True)

        c.wait_ready()
        assert c.serves()
