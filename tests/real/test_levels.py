"""Each level of `worker.preload`: a backend lives as with any other, and its workers are what started ones are.

The other files run at the default, `server`, or at the one of XBOARD_TEST_PRELOAD.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .load import Load
from .processes import Process, process
from .test_forks import forked, forkserver, is_forked, preload, reload, simple, up, versions, write_app
from .test_operator import see_in_circus_top

RELOADS = int(os.environ.get("XBOARD_TEST_RELOADS", "3"))
PROBES = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    **FAST_RESTARTS,
}
FEW_TRIES = {"restart.burst": 2, "restart.delay": 0.1, "restart.cooldown": 3600, "restart.window": 90}


@pytest.fixture(scope="module", params=["off", "app"])
def levelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    """Two workers of `web`, forked from an import of the app, or all started."""
    level = {"worker.preload": request.param}
    web = Watcher(options={**PROBES, **level})
    looping = Watcher("looping", numprocesses=1, options={**FEW_TRIES, **level}, told={"boot": "die"})
    folder = tmp_path_factory.mktemp(request.param)
    with circusd(folder, watchers=[web, looping], plugins=BUNDLE, check_delay=1, circus={"statsd": True}) as c:
        c.wait_ready()
        if request.param == "app":
            forkserver(c)
        yield c


def probed(c: Circusd) -> list[int]:
    pids = c.wait_ready()
    eventually(lambda: all(c.worker(pid)["latency"] is not None for pid in pids), what="each worker was probed")
    return pids


def are_of_their_level(c: Circusd) -> bool:
    """Say whether the workers are forked from an import of the app at `app`, and started at `off`."""
    if c.watchers["web"].options["worker.preload"] == "app":
        return bool(forked(c, 2)) and preload(c)["level"] == "app"
    return not any(is_forked(c, pid) for pid in c.wait_ready())


def test_a_killed_worker_is_back_and_its_sibling_stays(levelled: Circusd) -> None:
    dead, sibling = probed(levelled)
    before = levelled.last_told()

    kill(dead)

    assert sibling in levelled.wait_ready()
    (failure,) = eventually(lambda: levelled.failures(after=before))
    assert (failure.pid, failure.message["cause"]) == (dead, "killed from outside")
    assert are_of_their_level(levelled)


def test_a_hung_worker_is_replaced_and_its_stack_is_in_the_log(levelled: Circusd) -> None:
    hung, sibling = probed(levelled)
    before = levelled.last_told()

    levelled.tell(hung, "block 600")

    (failure,) = eventually(lambda: levelled.failures(after=before))
    assert (failure.pid, failure.message["cause"]) == (hung, "unhealthy")
    assert sibling in levelled.wait_ready()
    eventually(lambda: "in block_the_loop" in levelled.log(), what="circusd has written its last words")


def test_a_reload_loses_nothing_and_renews_each_worker(levelled: Circusd) -> None:
    before = probed(levelled)

    with Load(levelled.url, rate=50) as load:
        reload(levelled, "done")

    assert not set(before) & set(levelled.wait_ready())
    assert not load.lost
    assert are_of_their_level(levelled)


def test_a_stop_ends_all_and_a_start_brings_it_back(levelled: Circusd) -> None:
    probed(levelled)
    others = {each.pid for each in levelled.processes() if each.environ.get("XBOARD_WATCHER") != "web"}

    levelled.do("stop", name="web", match="simple", waiting=True)
    eventually(lambda: {each.pid for each in levelled.processes()} <= others, what="nothing of it is left")
    levelled.do("start", name="web", match="simple", waiting=True)

    levelled.wait_ready()
    assert are_of_their_level(levelled)


def test_circusctl_commands_do_what_they_do(levelled: Circusd) -> None:
    pids = probed(levelled)

    assert all(f"{pid}: " in levelled.run_circusctl("stats", "web").stdout for pid in pids)
    levelled.do("incr", name="web", waiting=True)
    pids = levelled.wait_ready(3)
    levelled.do("decr", name="web", waiting=True)
    pids = levelled.wait_ready(2)
    for command, how in (("kill", {}), ("signal", {"signum": 9})):
        dead = process(pids[0])
        levelled.do(command, name="web", pid=dead.pid, **how)
        eventually(lambda: not dead.alive, what=f"{command} ends it")  # noqa: B023  # called at once
        pids = levelled.wait_ready(2)
    assert are_of_their_level(levelled)


def test_circus_top_shows_the_workers(levelled: Circusd) -> None:
    see_in_circus_top(levelled, {"web", *map(str, levelled.wait_ready())})


def test_a_worker_that_fails_in_its_start_is_tried_within_its_budget(levelled: Circusd) -> None:
    """Given a worker that dies in each start, its tries end at restart.burst, and a retry brings it up once mended."""
    eventually(lambda: levelled.told("cooldown", "looping"))
    assert len(levelled.failures("looping")) == FEW_TRIES["restart.burst"]

    mend_looping(levelled)


def mend_looping(c: Circusd) -> None:
    """Let its worker start, and retry it where it is held, until it is ready."""
    eventually(lambda: c.told("cooldown", "looping"))
    c.set("boot", "", "looping")
    (held,) = c.watcher("looping")["workers"]
    if held["phase"] != "up":
        c.do("xboard_retry", name="looping", slot=held["slot"])
    c.wait_ready(name="looping")


def test_a_restart_of_circusd_loses_nothing(levelled: Circusd) -> None:
    """The last one of this file: the circusd that it leaves is another one."""
    mend_looping(levelled)
    before = probed(levelled)

    with Load(levelled.url, rate=50) as load:
        restarted = levelled.run_cli("restart", "--no-preflight")

    assert restarted.returncode == 0, restarted.stderr
    assert not set(before) & set(levelled.wait_ready())
    assert not load.lost
    assert are_of_their_level(levelled)


@pytest.mark.parametrize("level", ["server", "app"])
def test_reloads_under_load_bring_the_new_code_to_all_and_lose_nothing(tmp_path: Path, level: str) -> None:
    with circusd(tmp_path, watchers=[simple(tmp_path, 2, **{"worker.preload": level})]) as c:
        pids = up(c, 2)
        with Load(c.url, rate=100, connections=8) as kept, Load(c.url, rate=50) as new:
            for version in range(2, RELOADS + 2):
                write_app(tmp_path, version=version)
                reload(c, "done")
                before, pids = pids, up(c, 2)
                assert not set(before) & set(pids)
                assert versions(c, pids) == {version}

        assert (kept.lost, new.lost) == ([], [])
        assert c.failures() == []
        print(f"{level}: {RELOADS} reloads, {kept.answered + new.answered} requests answered, none lost")


def test_an_app_that_changes_in_the_middle_of_a_reload_is_of_one_version_in_all_workers(tmp_path: Path) -> None:
    """Given worker.preload = app, since one import serves all. At `server` each worker imports what it finds."""
    with circusd(tmp_path, watchers=[simple(tmp_path, 3)]) as c:
        version = 1
        forked(c, 3)

        def all_are_forked() -> list[int] | None:
            nonlocal version
            version += 2
            write_app(tmp_path, version=version - 1)
            began = c.last_told()
            c.do("xboard_reload", name="web")
            eventually(lambda: c.told("reload_begin", after=began) and c.watcher()["reload"]["replaced"], every=0.005)
            assert c.watcher()["reload"]["state"] == "running"
            write_app(tmp_path, version=version)
            eventually(lambda: c.watcher()["reload"]["state"] == "done")
            pids = up(c, 3)
            is_of_one_import = c.watcher()["reload"]["total"] == 3  # a worker that is started has all replaced again
            return pids if is_of_one_import and all(is_forked(c, pid) for pid in pids) else None

        pids = eventually(all_are_forked, what="a reload in which each fork comes in time")
        assert versions(c, pids) == {version - 1}


@pytest.mark.parametrize("level", ["off", "server", "app"])
def test_a_reload_in_whose_middle_the_app_changes_ends_with_one_version(tmp_path: Path, level: str) -> None:
    """Given a file that is replaced when the first worker was, and at `app` a forkserver that is stopped then, so that
    the next workers are started, then all workers are of the same version in the end."""
    number = 6 if level == "app" else 3
    with circusd(tmp_path, watchers=[simple(tmp_path, number, **{"worker.preload": level})]) as c:
        up(c, number)
        if level != "off":
            forkserver(c)
        write_app(tmp_path, version=2, before="import time; time.sleep(1)")
        with Load(c.url, rate=50) as load:
            c.do("xboard_reload", name="web")
            eventually(lambda: c.watcher()["reload"]["replaced"], every=0.005)
            write_app(tmp_path, version=3)
            if level == "app":
                kill(preload(c)["pid"], signal.SIGSTOP)
            eventually(lambda: c.watcher()["reload"]["state"] == "done", what="the reload is over")

        found = versions(c, up(c, number))
        assert len(found) == 1 if level == "app" else found == {3}  # each may have been forked by then
        assert ("have changed in the middle of the reload" in c.log("circusd")) is (found == {3})
        assert load.lost == []


MAKE = "def make():\n    import late\n    return late.app\n"


@pytest.mark.parametrize(("level", "kind"), [("off", "release"), ("app", "factory")])
def test_a_reload_ends_with_one_version_also_of_what_is_imported_by_a_link_or_later(
    tmp_path: Path, level: str, kind: str
) -> None:
    """Given a link to a release, or a factory that imports the rest of the app in each worker, when that changes in the
    middle of a reload, then all workers are of the later version in the end."""
    options = {"working_dir": tmp_path / "current", "worker.preload": level, **FAST_RESTARTS}
    number = 3  # the last one begins long after the change, also where the second one was there first
    arguments = "--ws none --factory" if kind == "factory" else "--ws none"
    app = "maker:make" if kind == "factory" else "simple:app"

    def deploy(version: int) -> None:
        folder = tmp_path / (f"release-{version}" if kind == "release" else "one")
        folder.mkdir(exist_ok=True)
        (folder / "maker.py").write_text(MAKE)
        write_app(folder, version=version, before="import time; time.sleep(0.4)")
        (folder / "simple.py").rename(folder / ("late.py" if kind == "factory" else "simple.py"))
        (tmp_path / "next").symlink_to(folder)
        (tmp_path / "next").rename(tmp_path / "current")

    deploy(1)
    with circusd(tmp_path, watchers=[Watcher("web", number, app=app, arguments=arguments, options=options)]) as c:
        up(c, number)
        deploy(2)
        c.do("xboard_reload", name="web")
        eventually(lambda: c.watcher()["reload"]["replaced"], every=0.005)
        deploy(3)
        eventually(lambda: c.watcher()["reload"]["state"] == "done", what="the reload is over")

        assert versions(c, up(c, number)) == {3}


OPTIONS = {
    "rlimit_nofile": 300,
    "rlimit_core": 0,
    "rlimit_nproc": 5000,
    "virtualenv": sys.prefix,
    "stop_signal": "INT",
    "stop_children": True,
    **FAST_RESTARTS,
}
OF_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "CoreDumping"),
    *("SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Cpus_allowed"),
)
OF_STAT = {"group": 2, "session": 3, "terminal": 4, "nice": 16, "threads": 17, "policy": 38}
OF_ITS_WATCHER = ("__name__", "BACKEND_DIR", "XBOARD_WATCHER", "XBOARD_WORKER_DIR", "XBOARD_WID", "XBOARD_SESSION")


def write_streams(folder: Path, name: str) -> dict[str, object]:
    """Return the lines for a log of stdout, and another one of stderr."""
    return {f"{stream}_stream.filename": folder / "logs" / f"{name}.{stream}.log" for stream in ("stdout", "stderr")}


def facts_of(c: Circusd, pid: int, name: str) -> dict[str, Any]:
    """What the kernel and the app itself say of a worker, without what is another one for each process."""
    proc = Path("/proc") / str(pid)
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
    stat = (proc / "stat").read_text().rpartition(")")[2].split()
    own = json.loads(eventually(lambda: told if json.loads(told := c.get("/facts", name=name))["pid"] == pid else ""))
    environ = {key: value for key, value in own["environ"].items() if key not in OF_ITS_WATCHER}
    found = {
        "status": {key: status.get(key, "").strip() for key in OF_STATUS},
        "stat": {key: int(stat[at]) for key, at in OF_STAT.items()},
        "limits": (proc / "limits").read_text().splitlines(),
        "files": {key: (proc / key).read_text() for key in ("oom_score_adj", "cgroup", "coredump_filter", "comm")},
        "links": {key: os.readlink(proc / key) for key in ("cwd", "root", "exe", "ns/mnt", "ns/pid", "ns/user")},
        "command": process(pid).command,
        "open": Counter(open_in(proc)),
        "argv": own["argv"],
        "environ": environ,
        **{key: own[key] for key in ("uid", "gid", "cwd", "prefix", "imported_with")},
    }
    for key in ("group", "session"):
        found["stat"][key] -= pid
    return json.loads(re.sub(r"--fd(\W+)\d+", r"--fd\1N", json.dumps(found)))  # type: ignore[no-any-return]


def differences(one: Mapping[str, Any], other: Mapping[str, Any], at: str = "") -> dict[str, tuple[Any, Any]]:
    """Return what is not the same in both, by its place."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*one, *other}):
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found |= differences(mine, theirs, f"{at}{key}/")
        elif mine != theirs:
            found[f"{at}{key}"] = mine, theirs
    return found


def open_in(proc: Path) -> Iterator[str]:
    """Yield for each descriptor what it is and whether a program that the worker starts would have it."""
    for entry in (proc / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            what = re.sub(r"\[\d+\]|\S+(?=\.beat)", "", os.readlink(entry))
            flags = int(re.findall(r"flags:\t(\d+)", (proc / "fdinfo" / entry.name).read_text())[0], 8)
            number = entry.name if int(entry.name) < 3 else ""
            yield f"{number}{what} {'' if flags & os.O_CLOEXEC else 'inherited'}"


def ended_alike(c: Circusd, pids: Mapping[str, int]) -> list[tuple[object, ...]]:
    """Wait for the end of each of *pids*, by watcher; return how they ended, each once."""

    def all_ended() -> set[tuple[object, ...]]:
        ends = [event.message for name in pids for kind in ("restart", "end") for event in c.told(kind, name)]
        mine = [next(end for end in ends if end["pid"] == pid) for pid in pids.values()]
        return {(end["cause"], end["exit_code"], end["signal"]) for end in mine}

    return list(eventually(all_ended, what="both have ended"))


@pytest.mark.parametrize("level", ["server", "app"])
def test_a_forked_worker_has_every_option_that_a_started_one_has(tmp_path: Path, level: str) -> None:
    """Given two watchers that differ in worker.preload alone, then what /proc and the app say of their workers, what
    they write where, and how they end by each command, is the same."""
    (tmp_path / "home").mkdir()
    watchers = [
        Watcher(
            name,
            numprocesses=1,
            app="setting_app:app",
            env={"SHADE": "blue = dark; $x", "EMPTY": ""},
            options={
                **OPTIONS,
                **write_streams(tmp_path, name),
                "working_dir": tmp_path / "home",
                "worker.preload": preload_of,
            },
        )
        for name, preload_of in (("started", "off"), ("forked", level))
    ]
    with circusd(tmp_path, watchers=watchers, check_delay=1) as c:
        pids = workers_of_both(c)

        def alike() -> dict[str, Any]:
            started, copied = (facts_of(c, pids[name], name) for name in ("started", "forked"))
            assert differences(copied, started) == {}, differences(copied, started)
            return copied

        copied = eventually(alike)  # a connection that has been answered may be open for a moment
        assert copied["environ"]["SHADE"] == "blue = dark; $x"
        assert copied["cwd"] == str(tmp_path / "home")
        assert any("Max open files" in line and " 300 " in line for line in copied["limits"])
        for name in pids:
            eventually(lambda: "a request" in c.log(f"{name}.stdout"), what="stdout is in its file")  # noqa: B023
            assert "a request" not in c.log(f"{name}.stderr")
            assert f"Started server process [{pids[name]}]" in c.log(f"{name}.stderr")

        for command, how in (("signal", {"signum": "term"}), ("kill", {"signum": 9}), ("kill", {}), ("restart", {})):
            children = {name: child_of(c, name, pid) for name, pid in pids.items()}
            for name, pid in pids.items():
                c.do(command, name=name, **({"pid": pid} if command != "restart" else {}), **how)
            assert len(ended_alike(c, pids)) == 1, (command, how)
            if command == "restart":
                eventually(lambda: not any(child.alive for child in children.values()), what="stop_children")  # noqa: B023
            pids = workers_of_both(c, without=pids.values())
        for name in pids:
            c.do("set", name=name, options={"max_age": 1, "max_age_variance": 0}, waiting=True)
        assert len(ended_alike(c, pids)) == 1


def test_without_copy_env_a_forked_worker_has_the_environment_of_a_started_one(tmp_path: Path) -> None:
    """Given a variable of circusd's that `copy_env = False` keeps from the workers of each level."""
    options = {"copy_env": False, **FAST_RESTARTS}
    own = {"PATH": "/own:/bin", "PYTHONPATH": str(Path(__file__).parent)}
    watchers = [
        Watcher(level, 1, app="setting_app:app", env=own, options={**options, "worker.preload": level})
        for level in ("off", "server", "app")
    ]
    with circusd(tmp_path, watchers=watchers, env={"OF_CIRCUSD": "alone"}) as c:
        pids = {"off": c.wait_ready(name="off")[0]}
        pids |= {level: forked(c, 1, level)[0] for level in ("server", "app")}

        found = {level: facts_of(c, pid, level)["environ"] for level, pid in pids.items()}

    assert found["off"] == found["server"] == found["app"]
    assert found["off"]["PATH"].endswith(":/own:/bin")
    assert "OF_CIRCUSD" not in found["off"]


def workers_of_both(c: Circusd, *, without: Iterable[int] = ()) -> dict[str, int]:
    """Wait for a worker of each watcher, of which one is forked."""
    (started,) = eventually(lambda: p if not set(p := c.wait_ready(name="started")) & set(without) else None)
    (copied,) = forked(c, 1, "forked", without=[*without])
    return {"started": started, "forked": copied}


def child_of(c: Circusd, name: str, pid: int) -> Process:
    """Have a worker start a process in its own session."""
    c.tell(pid, "task", name)
    return eventually(lambda: next(each for each in c.processes() if each.parent == pid))
