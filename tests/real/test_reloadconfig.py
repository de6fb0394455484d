"""`circusctl reloadconfig`: nothing restarts without need, and what Circus gets wrong is told with the cure."""

import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .free_ports import free_port
from .harness import FAST_RESTARTS, PATIENCE, Circusd, Watcher, circusd, eventually, holds, kill
from .test_reload import reload_of

CURE = "xboard-circus restart"
RUNS_HOLD = {"run.before": f"{sys.executable} hold.py"}
ONLY_ONE = """
import fcntl, os, sys
from backend import app
if os.environ.get("COLOUR"):
    lock = open("lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("only one of me")
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    with circusd(tmp_path_factory.mktemp("reload"), options=FAST_RESTARTS) as c:
        yield c


@pytest.fixture
def c(shared: Circusd) -> Iterator[Circusd]:
    """The shared circusd, with its ini as it was when it started."""
    shared.wait_ready()
    with shared.answering():
        yield shared
    shared.write_ini()


def all_answered(c: Circusd, number: int = 20) -> bool:
    """Nobody listens who does not accept: of so many new connections at once, each is answered."""
    with ThreadPoolExecutor(number) as pool:
        return all(pool.map(lambda _: c.serves(), range(number)))


def colour(c: Circusd) -> str:
    """What a worker has in its environment."""
    found: str = json.loads(c.get("/facts"))["environ"].get("COLOUR", "")
    return found


def command_of(c: Circusd) -> str:
    """The command of the shared circusd's own ini."""
    return str(dict(c.watchers["web"].sections(c.folder))["watcher:web"]["cmd"])


def test_nothing_changed_means_nothing_happens(c: Circusd) -> None:
    """Given the ini untouched, when it is read again twice, then every worker is the same."""
    pids = c.workers()

    for _ in range(2):
        c.do("reloadconfig", waiting=True)

    assert c.workers() == pids
    assert all_answered(c)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param("restart.delay", 0.15, id="one that is written already"),
        pytest.param("health.failure_threshold", 7, id="one that is new in the file"),
        pytest.param("restart.burst", None, id="one that is written no more"),
    ],
)
def test_an_option_of_ours_is_taken_over_in_place(c: Circusd, option: str, value: object) -> None:
    """Given an option of ours changed, when the ini is read again, then it holds, and every worker is the same."""
    pids = c.workers()

    c.write_ini(watcher__web={option: value})
    c.do("reloadconfig", waiting=True)

    assert c.watcher()["options"][option] == (5 if value is None else value)
    assert c.workers() == pids
    c.write_ini()
    c.do("reloadconfig", waiting=True)
    assert c.workers() == pids


def test_a_changed_socket_is_refused_with_the_cure_and_everybody_is_served(c: Circusd) -> None:
    """Given another port in the ini, when it is read again, then the old port serves on and the cure is told."""
    pids = c.workers()

    c.write_ini(socket__web={"port": free_port()})
    reply = c.call("reloadconfig", waiting=True)

    assert "socket:web" in reply["reason"]
    assert CURE in reply["reason"]
    assert c.workers() == pids
    assert all_answered(c)
    kill(pids[0])
    c.wait_ready()
    assert all_answered(c)


def test_a_changed_circus_section_is_refused_with_the_cure(c: Circusd) -> None:
    """Given another check_delay in the ini, when it is read again and again, nothing restarts; the cure is told."""
    pids = c.workers()

    c.write_ini(circus={"check_delay": 4})
    replies = [c.call("reloadconfig", waiting=True) for _ in range(2)]

    for reply in replies:
        assert "check_delay" in reply["reason"]
        assert CURE in reply["reason"]
    assert c.workers() == pids
    c.write_ini()
    c.do("reloadconfig", waiting=True)
    assert c.workers() == pids


def test_another_name_on_the_same_socket_is_refused_with_the_cure(c: Circusd) -> None:
    """Given a watcher with another name in the ini, and its socket as it was, when it is read again, then it serves on.

    Otherwise its end closes the listener that the new one has found.
    """
    pids = c.workers()

    text = c.ini.read_text()
    c.ini.write_text(text.replace("[watcher:web]", "[watcher:shop]").replace("[env:web]", "[env:shop]"))
    reply = c.call("reloadconfig", waiting=True)

    for part in ("[watcher:shop]", "[socket:web]", "[watcher:web]", CURE):
        assert part in reply.get("reason", ""), reply
    assert c.workers() == pids
    assert all_answered(c)


def test_an_unreadable_ini_changes_nothing(c: Circusd) -> None:
    """Given an ini that no parser reads, when it is read again, then the reply says so, every worker is the same."""
    pids = c.workers()

    c.ini.write_text("[circus\nendpoint")
    reply = c.call("reloadconfig", waiting=True)

    assert reply["status"] == "error"
    assert str(c.ini) in reply["reason"]
    assert c.workers() == pids


def test_a_watcher_in_the_ini_is_added_and_armed(c: Circusd) -> None:
    """Given a new armed watcher in the ini, when it is read again, then it serves; ours are the same all along."""
    pids = c.workers()
    (c.folder / "added").mkdir()

    c.watchers["added"] = Watcher("added", numprocesses=1, options=FAST_RESTARTS)
    c.write_ini()
    c.do("reloadconfig", waiting=True)
    (dead,) = c.wait_ready(name="added")
    assert c.serves("added")
    kill(dead)
    c.wait_ready(name="added")

    holds(lambda: c.workers() == pids, seconds=0.5)


def test_what_no_worker_needs_to_know_is_taken_over_in_place(c: Circusd) -> None:
    """Given another `graceful_timeout`, when the ini is read again, then it holds, and every worker is the same."""
    pids = c.workers()

    c.write_ini(watcher__web={"graceful_timeout": 7})
    c.do("reloadconfig", waiting=True)

    assert c.call("options", name="web")["options"]["graceful_timeout"] == 7
    assert c.workers() == pids
    c.write_ini()
    c.do("reloadconfig", waiting=True)
    assert c.call("options", name="web")["options"]["graceful_timeout"] == 30
    assert c.workers() == pids


def test_another_log_is_written_by_the_same_workers(c: Circusd) -> None:
    """Given another file for the output, when the ini is read again, then the same workers write there."""
    pids, other = c.workers(), c.folder / "logs" / "other.log"

    c.write_ini(watcher__web={"stdout_stream.filename": other, "stderr_stream.filename": other})
    c.do("reloadconfig", waiting=True)
    c.tell(pids[0], "print elsewhere")

    eventually(lambda: "elsewhere" in other.read_text())
    assert c.workers() == pids
    c.write_ini()
    c.do("reloadconfig", waiting=True)


def test_new_workers_take_over_one_by_one(c: Circusd) -> None:
    """Given a request in flight on each worker, when the environment changes, then new ones serve while these drain."""
    old = c.workers()
    held = c.hold_each(old)

    c.write_ini(env__web={"COLOUR": "red"})
    c.do("reloadconfig")

    eventually(lambda: [pid for pid in c.ready() if pid not in old])
    assert all_answered(c)
    assert set(old) & set(c.workers()), "all were ended before their successors were ready"
    c.finish(held)
    eventually(lambda: not set(old) & set(c.workers()), what="the old ones, which may accept one more, are gone")
    assert colour(c) == "red"
    eventually(lambda: reload_of(c)["state"] == "done")
    c.write_ini()
    c.do("reloadconfig", waiting=True, timeout=90)


def test_a_command_that_does_not_start_replaces_no_worker(c: Circusd) -> None:
    """Given an app that does not exist, when the ini is read again, then the answer says so, and the old one serves.

    The old command holds, also for the successor of a worker that dies, and the next call tries the new one again.
    """
    pids = c.workers()

    c.write_ini(watcher__web={"cmd": command_of(c).replace("backend:app", "nosuch:app"), "graceful_timeout": 7})
    replies = [c.call("reloadconfig", waiting=True, timeout=90) for _ in range(2)]

    for reply in replies:
        assert reply["status"] == "error", reply
        assert reload_of(c)["reason"] in reply["reason"]
    assert "nosuch" in reload_of(c)["log"]
    assert c.workers() == pids
    assert all_answered(c)
    kill(pids[0])
    c.wait_ready()
    c.write_ini()
    c.do("reloadconfig", waiting=True)
    assert pids[1] in c.wait_ready()


def test_who_dies_while_a_reload_prepares_is_replaced_by_what_served(shared: Circusd) -> None:
    """Given both workers killed while `run.before` of a reload runs, and an app that does not exist, the answer is an
    error, and workers with the old command serve again."""
    c, pids, command = shared, shared.wait_ready(), command_of(shared)
    (c.folder / "hold.py").write_text("import os, time\nwhile os.path.exists('hold'): time.sleep(0.02)")
    (c.folder / "hold").touch()
    before = c.last_told()

    c.write_ini(watcher__web={"cmd": command.replace("backend:app", "nosuch:app"), **RUNS_HOLD})
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(c.call, "reloadconfig", waiting=True, timeout=90)
        eventually(lambda: "run.before" in reload_of(c)["reason"], what="it prepares")
        for pid in pids:
            kill(pid)
        eventually(lambda: len(c.failures(after=before)) > 2, what="a new one with the changed command failed")
        (c.folder / "hold").unlink()

    assert (answer.result()["status"], reload_of(c)["state"]) == ("error", "failed"), answer.result()
    c.wait_ready()
    assert c.call("options", name="web")["options"]["cmd"] == command
    c.write_ini()
    c.do("reloadconfig", waiting=True)


def test_a_reload_that_fails_at_the_second_worker_leaves_none_with_the_changed_options(c: Circusd) -> None:
    """Given an environment in which one worker alone starts, when the ini is read again, all serve with the old one."""
    (c.folder / "only_one.py").write_text(ONLY_ONE)
    c.write_ini(watcher__web={"cmd": command_of(c).replace("backend:app", "only_one:app")})
    c.do("reloadconfig", waiting=True, timeout=90)
    old = c.wait_ready()

    c.write_ini(watcher__web={"cmd": command_of(c).replace("backend:app", "only_one:app")}, env__web={"COLOUR": "red"})
    reply = c.call("reloadconfig", waiting=True, timeout=90)

    assert (reply["status"], reload_of(c)["replaced"]) == ("error", []), reply
    assert "were replaced by ones with the former: 1" in reply["reason"]
    assert len(set(c.wait_ready()) & set(old)) == 1
    assert {colour(c) for _ in range(20)} == {""}
    c.write_ini()
    c.do("reloadconfig", waiting=True, timeout=90)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param("hooks.before_stop", "os.path.join", id="a hook"),
        pytest.param("stdout_stream.class", None, id="a stream that goes"),
    ],
)
def test_what_needs_a_new_circusd_is_refused_with_the_cure(c: Circusd, option: str, value: object) -> None:
    """Given an option that no running watcher can take over, when the ini is read again, then nothing is touched."""
    pids = c.workers()

    without = {"stdout_stream.filename": None} if value is None else {}
    c.write_ini(watcher__web={option: value, "graceful_timeout": 7, **without})
    reply = c.call("reloadconfig", waiting=True)

    assert "watcher:web" in reply["reason"]
    assert CURE in reply["reason"]
    assert c.workers() == pids
    assert c.call("options", name="web")["options"]["graceful_timeout"] == 30


def test_a_stopped_watcher_stays_stopped_and_starts_with_what_changed(tmp_path: Path) -> None:
    """Given a stopped watcher, when its environment changes, then it stays stopped, and its start has the new one."""
    with circusd(tmp_path, numprocesses=1, options=FAST_RESTARTS) as c:
        c.wait_ready()
        c.do("stop", name="web", waiting=True)

        c.write_ini(env__web={"COLOUR": "red"})
        c.do("reloadconfig", waiting=True)

        assert c.status() == "stopped"
        c.do("start", name="web", waiting=True)
        c.wait_ready()
        assert colour(c) == "red"


def refused(c: Circusd) -> str:
    """Return why circusd refuses to read its configuration, such as for a command of its own that runs just then."""
    return str(c.call("reloadconfig", waiting=True)["reason"])


def test_a_watcher_that_leaves_the_ini_with_its_socket_takes_nobody_along(tmp_path: Path) -> None:
    """Given two watchers, when one is taken out of the ini, then it goes or the cure is told; the other is the same.

    Nor does one that is not armed. That its socket moves is refused; another backlog is taken over.
    """
    leaving, plain = Watcher("leaving", numprocesses=1), Watcher("plain", numprocesses=1, armed=False)
    with circusd(tmp_path, watchers=[Watcher(), leaving, plain]) as c:
        pids = c.wait_ready()
        c.wait_ready(name="leaving")
        beside = c.wait_ready(name="plain")

        c.write_ini(socket__plain={"port": free_port()})
        for _ in range(2):
            reason = eventually(lambda: asked if "already running" not in (asked := refused(c)) else None)
            assert "socket:plain" in reason
            assert CURE in reason
        c.write_ini(socket__plain={"backlog": 99})
        c.do("reloadconfig", waiting=True)
        assert c.workers("plain") == beside
        assert c.serves("plain")

        del c.watchers["leaving"], c.watchers["plain"]
        c.write_ini()
        with c.answering():
            reply = c.call("reloadconfig", waiting=True)

        if reply["status"] == "ok":
            eventually(lambda: c.call("list")["watchers"] == ["web"])
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", plain.port), timeout=PATIENCE)
        else:
            assert CURE in reply["reason"]
        assert c.workers() == pids
        assert all_answered(c)
