"""What runs beside a backend lives on: daemons that alerts and apps start, other instances, commands that restart."""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from xboard_circus.core.kept_variables import OF_UNIT

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .processes import Process
from .test_alerts import alerting, plugin_log
from .test_orphans import sleeping
from .test_restart import circusds, under_load

LONG = 90.0
WAIT = ("--timeout", "300")
DAEMON = "setsid sh -c 'sleep 600 &'"
LIGHT: dict[str, Any] = {"numprocesses": 1, "options": {**FAST_RESTARTS, "worker.preload": "off"}}


def do(c: Circusd, way: str) -> None:
    for command in way.split(", "):
        patience = WAIT if command.startswith(("start", "restart")) else ()
        result = c.run_cli(*command.split(), *patience, timeout=400)
        assert result.returncode == 0, result.stdout + result.stderr


def command_line(c: Circusd, *words: str) -> list[str]:
    return [c.python, "-m", "xboard_circus", *words, "-c", str(c.ini)]


@contextmanager
def alerted(folder: Path, script: str, *watchers: Watcher) -> Iterator[Circusd]:
    """A circusd whose first alert, on an ended worker, has run a shell with *script*.

    The script's last step makes the file ``done``.
    """
    once = f"cat > got; [ -e begun ] || {{ touch begun; {script}; touch done; }}"
    (folder / "alert.sh").write_text(once)
    section = {"type": "command", "command": f"sh {folder}/alert.sh", "on": "restart", "timeout": 500}
    first = Watcher(options=FAST_RESTARTS)
    with alerting(folder, {"ops": section}, watchers=(first, *watchers)) as c:
        kill(c.wait_ready()[0])
        eventually(lambda: (folder / "done").exists(), timeout=4 * LONG, what="the command of the alert has ended")
        c.wait_ready(timeout=LONG)
        yield c


def test_what_is_started_beside_a_backend_outlives_it(tmp_path: Path) -> None:
    """Given another instance, and daemons with and without the leader of their session, that the command of an alert
    has started, and a daemon of the app's, when circusd is restarted, also as a whole, and then stopped and cleaned,
    then all of them live."""
    (tmp_path / "other").mkdir()
    plain = Watcher("plain", 1, armed=False, listens=False, command="sleep 500")
    with circusd(tmp_path / "other", watchers=[Watcher(**LIGHT), plain], start=False) as other:
        start = shlex.join(command_line(other, "start", *WAIT))
        with alerted(tmp_path, f"{DAEMON}; setsid -f sleep 600; {start}") as c:
            pids = {name: other.workers(name) for name in ("web", "plain")}
            for number, way in enumerate(("restart", "restart --cold", "stop, clean"), start=3):
                old = c.wait_ready(timeout=LONG)
                daemons = with_one_more(c, old[0], number)

                do(c, way)

                if not way.endswith("clean"):
                    assert not set(old) & set(c.wait_ready(timeout=LONG)), way
                    eventually(lambda: not running(c, old), timeout=LONG, what=f"{way}: the old workers end")  # noqa: B023
                assert [each.alive for each in daemons] == [True] * number, way
                assert {name: other.workers(name) for name in pids} == pids, way
            do(other, "stop")


def test_a_daemon_of_an_app_outlives_a_killed_circusd(tmp_path: Path) -> None:
    """Given a daemon that an app has started by a double fork, when circusd is killed and what it left ended, by a
    start, and then by `clean`, then it lives, and the old workers do not."""
    with circusd(tmp_path) as c:
        for number, way in enumerate(("start", "clean"), start=1):
            old = c.wait_ready()
            daemons = with_one_more(c, old[0], number)
            [killed] = circusds(c)
            kill(killed.pid)
            c.wait_ended()

            do(c, way)

            eventually(lambda: not running(c, old), timeout=LONG, what=f"{way}: the old workers end")  # noqa: B023
            assert [each.alive for each in daemons] == [True] * number, way


def with_one_more(c: Circusd, worker: int, number: int) -> list[Process]:
    """Have the app of a worker start a daemon; return all that run, which are *number* then."""
    c.tell(worker, "daemon")
    return eventually(lambda: found if len(found := sleeping(c)) == number else None, what=f"{number} daemons run")


def running(c: Circusd, pids: list[int]) -> list[Process]:
    return [each for each in c.processes() if each.pid in pids]


def test_a_restart_by_an_alerts_command_harms_no_later_one(tmp_path: Path) -> None:
    """Given a restart by the command of an alert, then the next circusd has the variables of the one before, and its
    unarmed watchers start once at each restart from then on."""
    starts = tmp_path / "starts"
    is_up = "mkdir -p $BACKEND_DIR/ready-at; touch $BACKEND_DIR/ready-at/$$"
    (tmp_path / "plain.sh").write_text(f"echo $$ >> {starts}; {is_up}\nexec sleep 600\n")
    plain = Watcher("plain", 1, armed=False, listens=False, command=f"sh {tmp_path}/plain.sh")
    restart = shlex.join([sys.executable, "-m", "xboard_circus", "restart", *WAIT, "-c", str(tmp_path / "circus.ini")])
    with alerted(tmp_path, f"{restart} > said 2>&1", plain) as c:
        eventually(lambda: len(circusds(c)) == 1, timeout=LONG, what="the first circusd is gone")
        [second] = circusds(c)
        assert second.pid != c.pid, (tmp_path / "said").read_text()
        begun, seen = len(starts.read_text().split()), [own_variables(second)]

        do(c, "restart")

        eventually(lambda: second not in circusds(c), timeout=LONG, what="the second circusd is gone")
        [third] = circusds(c)
        c.wait_ready(timeout=LONG)
        assert begun == 2
        assert len(starts.read_text().split()) == 3
        [pid] = c.workers("plain")
        assert str(pid) == starts.read_text().split()[-1]
        assert [*seen, own_variables(third)] == [given(c), given(c)]


def own_variables(circusd: Process) -> dict[str, str]:
    """Return the environment of a circusd, without what is of a unit of systemd."""
    return {name: value for name, value in circusd.environ.items() if OF_UNIT.fullmatch(name) is None}


def given(c: Circusd) -> dict[str, str]:
    """Return the environment of the first circusd of a test, without what is of a unit of systemd."""
    return {name: value for name, value in c.environ().items() if OF_UNIT.fullmatch(name) is None}


def run_by_app(c: Circusd, *words: str, **query: str) -> tuple[int, str]:
    """Have the app of a worker run a command; return its exit code and what it says."""
    asked = "&".join([*(f"word={quote(word)}" for word in words), *(f"{name}={it}" for name, it in query.items())])
    code, said = json.loads(c.get(f"/run?{asked}", timeout=400.0))
    return code, said


@pytest.mark.parametrize("preload", ["off", "server"])
def test_a_restart_by_an_app_leaves_no_old_worker(tmp_path: Path, preload: str) -> None:
    """Given an app that restarts circusd in a request, then the request is answered, no other is lost, the old workers
    end, and the next circusd has the variables of the one before and not those of a worker."""
    watcher = Watcher(options={"worker.preload": preload, "graceful_timeout": 300, "port.grace": 300})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        c.wait_ready()
        before = c.processes()

        with under_load(c):
            code, said = run_by_app(c, *command_line(c, "restart", *WAIT))
            eventually(lambda: not [each for each in before if each.alive], timeout=LONG, what="the old ones end")

        assert (code, "ready\n" in said) == (0, True), said
        [after] = circusds(c)
        assert own_variables(after) == given(c)
        assert len(c.wait_ready(timeout=LONG)) == 2


def test_a_restart_by_an_app_outlives_its_worker(tmp_path: Path) -> None:
    """Given an app that restarts circusd, when its worker is killed in the middle, then what else the app has started
    ends with that worker, and the restart goes on."""
    with circusd(tmp_path, options=FAST_RESTARTS) as c:
        worker = c.wait_ready()[0]
        c.tell(worker, "task")
        [task] = eventually(lambda: sleeping(c), what="the task runs")
        c.set("boot", "held")
        c.tell(worker, f"run {shlex.join(command_line(c, 'restart', *WAIT))}")
        eventually(lambda: [each for each in c.processes() if "XBOARD_PREFLIGHT" in each.environ], timeout=LONG)
        [restart] = [each for each in c.processes() if "xboard_circus restart" in each.command]

        kill(worker)
        eventually(lambda: not task.alive, timeout=LONG, what="what the worker has left is ended")
        assert restart.alive
        c.set("boot", "")

        eventually(lambda: not restart.alive, timeout=LONG, what="the restart ends")
        assert c.pid not in [each.pid for each in circusds(c)]
        assert len(c.wait_ready(timeout=LONG)) == 2


def test_an_alerts_command_that_restarts_circusd_comes_to_an_end(tmp_path: Path) -> None:
    """Given an alert whose command restarts circusd, and with it the plugin that waits for the command, then it is run
    at most twice for each alert, and the plugin's log says why not again."""
    restart = shlex.join([sys.executable, "-m", "xboard_circus", "restart", "--no-preflight", *WAIT])
    script = f"cat >> got; echo >> got; {restart} -c circus.ini >> said 2>&1 || {{ echo >> failed; exit 1; }}"
    (tmp_path / "failed").touch()
    (tmp_path / "alert.sh").write_text(script)
    section = {"type": "command", "command": f"sh {tmp_path}/alert.sh", "on": "restart", "timeout": 500}
    with alerting(tmp_path, {"ops": section}, watchers=(Watcher(options=FAST_RESTARTS),)) as c:
        kill(c.wait_ready()[0])

        eventually(lambda: "alert:ops: given up: " in plugin_log(c), timeout=4 * LONG, what="it is given up")

        # There may be a second alert, that it is over.
        eventually(lambda: not waiting(c), timeout=4 * LONG, what="no alert waits")
        runs = Counter(json.loads(line)["id"] for line in (tmp_path / "got").read_text().splitlines())
        failed = len((tmp_path / "failed").read_text().splitlines())  # such as for another restart that is at work
        assert sum(runs.values()) - failed <= 2 * len(runs), (tmp_path / "said").read_text()
        assert "setsid -f xboard-circus restart" in plugin_log(c)
        assert len(c.wait_ready(timeout=LONG)) == 2


def waiting(c: Circusd) -> object:
    """Return the alerts that the plugin has not delivered yet."""
    [file] = (c.runtime / "r" / c.instance).glob("alerts-*.json")
    return json.loads(file.read_text())["waiting"]["ops"]
