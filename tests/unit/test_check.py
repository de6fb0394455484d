"""What is told of an ini file before Circus reads it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real.free_ports import free_port

import xboard_circus
from xboard_circus.checks import (
    authorship,
    endpoint_rules,
    file_rules,
    host_rules,
    import_rules,
    port_rules,
    watcher_rules,
)
from xboard_circus.checks.check import Level, Report, check
from xboard_circus.checks.findings import Finding, report, within
from xboard_circus.checks.judgement import open_doors
from xboard_circus.config import ARM, Config, is_armed, load, log_folders
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime, writers
from xboard_circus.host.programs import KEPT, run_captured
from xboard_circus.host.servers import name_of
from xboard_circus.host.users import members
from xboard_circus.host.writers import User
from xboard_circus.host.written_files import walk
from xboard_circus.init import NewBackend, write_config, write_dockerfile

Sections = dict[str, dict[str, str | None]]
Write = Callable[[Sections], Path]

BUNDLE = file_rules.BUNDLE

# Nothing is to be said of this one.
BASE: Sections = {
    "circus": {
        "endpoint": "tcp://127.0.0.1:15555",
        "pubsub_endpoint": "tcp://127.0.0.1:15556",
        "multicast_endpoint": "",
    },
    "watcher:web": {
        "cmd": "python -m xboard_circus.worker app:app --fd $(circus.sockets.web) --timeout-graceful-shutdown 20",
        "numprocesses": "2",
        "use_sockets": "True",
        "copy_env": "True",
        "priority": "10",
        "hooks.before_start": ARM,
    },
    "socket:web": {"host": "127.0.0.1", "port": "18000", "so_reuseport": "True"},
    "plugin:xboard": {"use": BUNDLE},
}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own are closed to them, and again when another pytest starts."""
    with tempfile.TemporaryDirectory(prefix="xb-check-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes BASE with changes; None takes an option out."""

    def written(changes: Sections) -> Path:
        lines = []
        for section in [*BASE, *(name for name in changes if name not in BASE)]:
            options = {**BASE.get(section, {}), **changes.get(section, {})}
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in options.items() if value is not None)]
        return text_file(tmp_path, "\n".join(lines))

    return written


def text_file(folder: Path, text: str) -> Path:
    file = folder / "circus.ini"
    file.write_text(f"{text}\n")
    return file


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(folder))


def told_by_file(config: Config) -> list[str]:
    """Return what the rules say that look at the file alone."""
    found = list(file_rules.findings(config))
    for watcher in config.watchers:
        found += within(watcher.section, watcher_rules.findings(config, watcher))
    return [f"{each.level.value} [{each.section}] {each.option}: {each.what}; {each.hint}" for each in found]


def told_by_host(config: Config) -> list[str]:
    rules = (host_rules.findings, host_rules.writable, host_rules.modules)
    found = [each for watcher in config.watchers for rule in rules for each in rule(config, watcher)]
    return [f"{each.level.value} {each.option}: {each.what}; {each.hint}" for each in found]


def lines(found: Report) -> list[str]:
    return [str(finding) for finding in found.findings if finding.level is not Level.OK]


# --- the file alone ---


def test_of_a_good_file_nothing_is_said(write: Write) -> None:
    assert told_by_file(load(write({}))) == []


@pytest.mark.parametrize(("changes", "keeps"), [({}, True), ({"plugin:xboard": {"use": "their.Plugin"}}, False)])
def test_the_plugin_limits_a_watcher_that_is_not_armed(write: Write, changes: Sections, keeps: bool) -> None:
    """Given restart.* in a watcher without our hook, then only without a plugin of ours does nothing keep to it."""
    plain: Sections = {"watcher:jobs": {"cmd": "sleep 1", "restart.burst": "3"}}
    found = told_by_file(load(write({**plain, **changes})))

    assert any("nothing keeps to them" in line for line in found) != keeps


def test_a_page_that_is_not_armed_keeps_to_its_own_options(write: Write) -> None:
    page: dict[str, str | None] = {
        "cmd": "python -m xboard_circus.dashboard",
        "args": "--port 8080",
        "dashboard.allow_add": "True",
    }
    ill = {**page, "health.period": "3"}

    assert told_by_file(load(write({"watcher:page": page}))) == []
    assert [line for line in told_by_file(load(write({"watcher:page": ill}))) if "is not armed" in line]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"watcher:web": {"restrt.burst": "5"}},
            "error [watcher:web] restrt.burst: unknown option; did you mean restart.burst?",
            id="an option of ours, misspelt",
        ),
        pytest.param(
            {"watcher:web": {"worker.spares": "1"}},
            "warning [watcher:web] worker.spares: gone, does nothing; delete it: worker.preload = app forks"
            " the next worker at once",
            id="an option of ours that is gone",
        ),
        pytest.param(
            {"watcher:web": {"numproceses": "5"}},
            "error [watcher:web] numproceses: Circus does not know this option and leaves it out;"
            " did you mean numprocesses?",
            id="one of Circus's",
        ),
        pytest.param(
            {"watcher:web": {"hooks.befor_stop": "m.f"}},
            "error [watcher:web] hooks.befor_stop: Circus calls no hook of that name; did you mean hooks.before_stop?",
            id="a hook",
        ),
        pytest.param(
            {"watcher:web": {"hook.before_stop": "m.f"}},
            "error [watcher:web] hook.before_stop: Circus does not know this option and leaves it out;"
            " did you mean hooks.before_stop?",
            id="the word hooks",
        ),
        pytest.param(
            {"watcher:web": {"hooks.before_start": None, "health.period": "3"}, "socket:web": {"so_reuseport": None}},
            "warning [watcher:web] : has options of xboard-circus but is not armed, so nothing keeps to them;"
            f" add hooks.before_start = {ARM}",
            id="options without the line that arms",
        ),
        pytest.param(
            {"watcher:a.b": {"cmd": "sleep 1"}},
            "error [watcher:a.b] : a dot in the name breaks every reader of Circus's events; write [watcher:a-b]",
            id="a dot in a name (Y13)",
        ),
        *(
            pytest.param(
                {f"watcher:{name}": {"cmd": "sleep 1"}},
                f"error [watcher:{name}] : Circus, or its events, keeps this name for itself; choose another",
                id=f"named {name}",
            )
            for name in ("circusd", "circusd-stats", "plugin:xboard")
        ),
        pytest.param(
            {"watcher:zed": {"cmd": "sleep 1"}, "watcher:Zed": {"cmd": "sleep 1"}},
            "error [watcher:zed] : Circus takes it for [watcher:Zed]: names ignore case, and a blank counts as _;"
            " choose another name",
            id="two names that are one to Circus",
        ),
        pytest.param(
            {"watcher:other": {"numprocesses": "1"}},
            "error [watcher:other] cmd: missing or empty; write cmd = python -m xboard_circus.worker module:app",
            id="no command",
        ),
        pytest.param(
            {"watcher:other": {"cmd": "sleep '1"}},
            "error [watcher:other] cmd: a quote is not closed; close it, or take it out",
            id="an open quote",
        ),
        pytest.param(
            {"watcher:web": {"cmd": "MODE=x python $(circus.sockets.web)", "shell": "True"}},
            "error [watcher:web] cmd: a variable in front of the command does not work where a watcher is armed;"
            " put MODE=x into [env:web]",
            id="shell with an assignment (R19)",
        ),
        pytest.param(
            {
                "watcher:web": {
                    "cmd": "uvicorn a:b --workers 4 --timeout-graceful-shutdown=9 --fd $(circus.sockets.web)"
                }
            },
            "error [watcher:web] cmd: --workers starts processes that Circus does not see;"
            " take it out and write numprocesses = 4",
            id="uvicorn's own workers",
        ),
        pytest.param(
            {
                "watcher:web": {
                    "cmd": "python -m xboard_circus.worker a:b --limit-max-requests 900"
                    " --timeout-graceful-shutdown=9 --fd $(circus.sockets.web)"
                }
            },
            "warning [watcher:web] cmd: --limit-max-requests ends a worker before another one is up, also several at"
            " once; take it out and write worker.max_requests = 900",
            id="uvicorn's own limit of requests",
        ),
        pytest.param(
            {"watcher:web": {"singleton": "True"}},
            "error [watcher:web] singleton: contradicts numprocesses = 2; Circus drops the watcher; take it out",
            id="singleton",
        ),
        pytest.param(
            {"watcher:web": {"max_retry": "-1"}},
            "error [watcher:web] max_retry: a command that cannot be run would be tried without end and stop circusd"
            " from doing anything else; take it out; restart.burst and restart.cooldown do what it is meant to",
            id="max_retry",
        ),
        pytest.param(
            {"watcher:web": {"max_age": "3600"}},
            "warning [watcher:web] max_age: Circus counts it by the wall clock: when that is set, all workers go;"
            " write worker.max_age = 3600 in its place",
            id="max_age (R23)",
        ),
        pytest.param(
            {"watcher:web": {"use_sockets": None}},
            "error [watcher:web] : the command uses a socket of Circus's but is not given it; write use_sockets = True",
            id="use_sockets left out",
        ),
        pytest.param(
            {"watcher:web": {"cmd": "python $(circus.sockets.wob)"}},
            "error [watcher:web] cmd: there is no [socket:wob]; did you mean $(circus.sockets.web)?",
            id="a socket that is not there",
        ),
        pytest.param(
            {"watcher:web": {"cmd": "python $(circus.sockets.Web)"}},
            "error [watcher:web] cmd: Circus finds Web, but not when it looks for the watchers of a changed socket;"
            " write $(circus.sockets.web)",
            id="a socket in capitals",
        ),
        pytest.param(
            {"watcher:web": {"on_demand": "True"}},
            "error [watcher:web] on_demand: a socket that is not bound yet counts as readable, so the start is not on"
            " demand; take it out",
            id="on_demand (R21)",
        ),
        pytest.param(
            {"socket:web": {"so_reuseport": None}},
            "error [socket:web] : Circus would bind it before its port can be cleaned;"
            " write so_reuseport = True; the guard binds it, once, for all workers",
            id="so_reuseport left out",
        ),
        pytest.param(
            {"watcher:web": {"graceful_timeout": "20"}},
            "error [watcher:web] graceful_timeout: graceful_timeout is 20 s: Circus kills the worker before its drain"
            " of 20 s is over; write graceful_timeout = 30",
            id="a drain as long as Circus's patience",
        ),
        pytest.param(
            {"watcher:web": {"shell": "True"}},
            "error [watcher:web] shell: a signal reaches only the shell in front of the worker, which lives on and"
            " keeps the port; take it out; where the command needs a shell, cmd = sh -c 'exec ...'",
            id="a shell in front of our worker",
        ),
        pytest.param(
            {"watcher:web": {"cmd": "python -m xboard_circus.worker app:app --fd $(circus.sockets.web)"}},
            "warning [watcher:web] cmd: without a limit of its own, uvicorn waits for its clients until Circus kills it"
            " after 30 s; add --timeout-graceful-shutdown 20",
            id="a drain without an end",
        ),
        pytest.param(
            {"watcher:web": {"priority": None}},
            "warning [watcher:web] : the plugins start before it; write priority = 10",
            id="priority (Y14)",
        ),
        pytest.param(
            {"watcher:web": {"stdout_stream.class": "FileStream", "stdout_stream.filename": "w.log"}},
            "warning [watcher:web] stdout_stream.filename: the log grows until the disk is full;"
            " add stdout_stream.max_bytes = 10485760 and stdout_stream.backup_count = 5",
            id="a log that grows",
        ),
        pytest.param(
            {
                "watcher:own": {
                    "cmd": "uvicorn a:b --port 9 --timeout-graceful-shutdown 9",
                    "hooks.before_start": ARM,
                    "priority": "2",
                }
            },
            "warning [watcher:own] : port 9, which its command binds, is not freed before a start; add port.port = 9",
            id="a server that binds by itself",
        ),
        pytest.param(
            {
                "watcher:own": {
                    "cmd": "uvicorn a:b --timeout-graceful-shutdown 9",
                    "hooks.before_start": ARM,
                    "priority": "2",
                }
            },
            "warning [watcher:own] : port 8000, which its command binds, is not freed before a start;"
            " add port.port = 8000",
            id="a server on uvicorn's own port",
        ),
        pytest.param(
            {
                "watcher:two": {
                    "cmd": "x $(circus.sockets.web)",
                    "use_sockets": "1",
                    "hooks.before_start": ARM,
                    "priority": "2",
                }
            },
            "error [watcher:web] cmd: [socket:web] is [watcher:two]'s, and its port would be closed when that one"
            " stops;"
            " give each watcher a socket of its own",
            id="one socket for two",
        ),
        pytest.param(
            {"socket:other": {"host": "0.0.0.0", "port": "18000"}},
            "error [socket:web] port: 127.0.0.1:18000 is taken by [socket:other] port; choose another port",
            id="a port twice",
        ),
        pytest.param(
            {"socket:other": {"host": "localhost", "port": "15555"}},
            "error [socket:other] port: localhost:15555 is taken by [circus] endpoint; choose another port",
            id="the endpoint's port",
        ),
        pytest.param(
            {"circus": {"endpoint": "tcp://0.0.0.0:15555"}},
            "warning [circus] endpoint: it has no password: anyone who can connect to it can run any command here;"
            " write tcp://127.0.0.1:15555",
            id="an endpoint for the world (E8)",
        ),
        pytest.param(
            {"circus": {"endpoint": "127.0.0.1:15555"}},
            "error [circus] endpoint: not an endpoint; write tcp://127.0.0.1:PORT or ipc://FILE",
            id="no endpoint at all",
        ),
        pytest.param(
            {"circus": {"endpoint": "tcp://[::1]:15555"}},
            "error [circus] endpoint: the clients of Circus cannot connect over IPv6; write tcp://127.0.0.1:15555",
            id="an endpoint of IPv6",
        ),
        pytest.param(
            {"circus": {"multicast_endpoint": None}},
            "warning [circus] : circusd answers anyone on the network who asks for it by multicast;"
            " write multicast_endpoint = with nothing behind it",
            id="multicast is on by default",
        ),
        pytest.param(
            {"circus": {"stats_endpoint": "tcp://127.0.0.1:25557"}},
            "warning [circus] stats_endpoint: starts circusd-stats, 20 MiB and 1.7 CPU seconds a minute;"
            " write statsd = True if you want circus-top, else delete the line",
            id="stats by the way",
        ),
        pytest.param(
            {"circus": {"endpont": "tcp://127.0.0.1:1"}},
            "error [circus] endpont: Circus does not know this option; did you mean endpoint?",
            id="misspelt in [circus]",
        ),
        pytest.param(
            {"circus": {"include": "more/*.ini"}},
            "error [circus] include: more/*.ini leads to no file; write it as seen from the folder of this file",
            id="an include of nothing",
        ),
        pytest.param(
            {"watchr:web": {"cmd": "sleep 1"}},
            "error [watchr:web] : Circus reads no section of this kind; did you mean [watcher:web]?",
            id="a misspelt kind of section",
        ),
        pytest.param(
            {"watcher:other": {}},
            "warning [watcher:other] : there is nothing in it, and Circus passes it over; delete it",
            id="an empty section",
        ),
        pytest.param(
            {"env:wob": {"A": "1"}},
            "warning [env:wob] : there is no watcher wob; did you mean [env:web]?",
            id="variables for nobody",
        ),
        pytest.param(
            {"socket:web": {"prt": "1"}},
            "error [socket:web] prt: Circus does not know this option; did you mean port?",
            id="misspelt in a socket",
        ),
        pytest.param(
            {"plugin:xboard": {"note": "two words"}},
            "error [plugin:xboard] note: Circus pastes it into the plugin's command line as it is, and the plugin dies;"
            " leave out blanks, quotes and backslashes",
            id="a blank in a plugin's option (X11)",
        ),
        pytest.param(
            {"plugin:xboard": {"ledger.keepdays": "7"}},
            "error [plugin:xboard] ledger.keepdays: unknown option; did you mean ledger.keep_days?",
            id="an option of our plugin, misspelt",
        ),
        pytest.param(
            {"plugin:xboard": {"cmd": "x"}},
            "error [plugin:xboard] cmd: Circus gives it to the process that runs the plugin, and breaks it; delete it",
            id="an option that is Circus's own in disguise",
        ),
        pytest.param(
            {"plugin:other": {"log_dir": "x"}},
            f"error [plugin:other] : there is no use = in it, and circusd would not start; write use = {BUNDLE}",
            id="a plugin without a class",
        ),
        pytest.param(
            {"plugin:f": {"use": "circus.plugins.flapping.Flapping"}},
            "error [plugin:f] use: stops the whole watcher, healthy workers too, after two deaths in a few seconds;"
            " delete the section; restart.burst and restart.cooldown limit restarts",
            id="Circus's own limiter",
        ),
        pytest.param(
            {"plugin:f": {"use": "circus.plugins.command_reloader.CommandReloader"}},
            "error [plugin:f] use: looks for a file named like the whole command line, and fails in each round:"
            " FileNotFoundError; delete the section; `xboard-circus reload` replaces the workers one by one",
            id="Circus's own reloader",
        ),
        pytest.param(
            {"plugin:f": {"use": "circus.plugins.http_observer.HttpObserver"}},
            "error [plugin:f] use: cannot be constructed with tornado 6: its process dies again and again;"
            " delete the section; health.live_path or health.url probes each worker",
            id="Circus's own probe",
        ),
        pytest.param(
            {"plugin:f": {"use": "circus.plugins.watchdog.WatchDog"}},
            "error [plugin:f] use: kills healthy workers again and again: none of them sends its UDP heartbeat;"
            " delete the section; hung workers are replaced without it",
            id="Circus's own watchdog",
        ),
        pytest.param(
            {
                "plugin:f": {
                    "use": "circus.plugins.resource_watcher.ResourceWatcher",
                    "watcher": "Web",
                    "max_mem": "200M",
                }
            },
            "error [plugin:f] watcher: orders a restart of all workers of web, again and again, while one of them is"
            " above its limit; delete the section, and write worker.max_rss in [watcher:web]",
            id="Circus's own limit of memory on an armed watcher",
        ),
        pytest.param(
            {"plugin:f": {"use": "circus.plugins.redis_observer.RedisObserver"}},
            "warning [plugin:f] use: cannot be constructed with redis 4 or later: its process dies again and again;"
            " delete the section; let health.ready_path look at Redis",
            id="Circus's own look at Redis",
        ),
        pytest.param(
            {"plugin:xboard": {"use": "circus.plugins.statsd.FullStats"}},
            "warning [] : no plugin of xboard-circus: dead workers are replaced, hung and sick ones are not;"
            f" add [plugin:xboard] with use = {BUNDLE}",
            id="nobody probes",
        ),
    ],
)
def test_what_the_file_alone_tells(write: Write, changes: Sections, message: str) -> None:
    assert told_by_file(load(write(changes))) == [message]


def test_what_an_included_file_includes_is_said_to_be_passed_over(write: Write, tmp_path: Path) -> None:
    """Given an include in an included file, where Circus looks for none, then `check` says where to write it; one that
    the first file has too is not passed over."""
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.ini").write_text("[circus]\ninclude = two.ini three.ini\n")

    assert told_by_file(load(write({"circus": {"include": "one.ini two.ini"}}))) == [
        f"warning [circus] include: {tmp_path}/{name}.ini includes three.ini, and Circus follows no include of an"
        f" included file; write it in {tmp_path}/circus.ini"
        for name in ("one", "two")
    ]


def test_plugins_of_circus_that_touch_no_armed_watcher_are_let_be(write: Write) -> None:
    job: Sections = {"watcher:job": {"cmd": "sleep 60"}}
    for name, options in {
        "statsd.StatsdEmitter": {},
        "statsd.FullStats": {},
        "resource_watcher.ResourceWatcher": {"watcher": "job"},
    }.items():
        assert told_by_file(load(write({**job, "plugin:c": {"use": f"circus.plugins.{name}", **options}}))) == []


def test_what_would_restart_all_workers_when_redis_is_down_is_refused(write: Write) -> None:
    given: dict[str, str | None] = {
        "use": "circus.plugins.redis_observer.RedisObserver",
        "restart_on_timeout": "web",
    }

    assert told_by_file(load(write({"plugin:f": given})))[0] == (
        "error [plugin:f] restart_on_timeout: orders a restart of all workers of web when Redis does not answer;"
        " take it out; no restart of the workers brings Redis back"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user's watcher")
def test_a_user_who_may_write_what_root_uses_is_refused(write: Write, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(mode=0o755)
    file = write({"watcher:web": {"uid": "nobody", "stdout_stream.filename": "logs/web.log"}})

    def refused() -> list[str]:
        return [line for line in told_by_host(load(file)) if "has root" in line]

    assert refused() == []

    shutil.chown(tmp_path / "logs", "nobody")
    assert [line.partition(", which")[0] for line in refused()] == [
        f"error stdout_stream.filename: nobody may write {tmp_path}/logs"
    ]

    shutil.chown(file, "nobody")
    tmp_path.chmod(0o777)
    assert refused()[0] == (
        f"error uid: nobody may write {tmp_path} and {file}, which circusd uses as root: who has nobody has root;"
        f" `chown root {tmp_path} {file}` and `chmod go-w` it, or start circusd as nobody"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user's watcher")
def test_a_user_who_may_put_another_folder_or_link_in_the_place_of_roots_is_refused() -> None:
    with tempfile.TemporaryDirectory(prefix="xb-check-", dir="/tmp") as made:
        home, roots = Path(made), Path(made, "roots")
        home.chmod(0o755)
        for folder in ("roots", "users", "roots/below"):
            (home / folder).mkdir(mode=0o755)
        (roots / "env").touch(0o644)
        (home / "users" / "link").symlink_to(roots / "env")
        (roots / "way").symlink_to(home / "users" / "link")
        user = User(65534, frozenset({65534}), "nobody")
        places = [roots / "below", roots / "env", home / "users" / "link", roots / "way", roots / "none"]

        assert [user.writable(place) for place in places] == [None] * 5

        shutil.chown(home / "users", 65534)
        through = home / "users"
        assert [user.writable(place) for place in places] == [None, None, through, through, None]

        shutil.chown(home, 65534)
        assert [user.writable(place) for place in places] == [home] * 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
def test_nothing_runs_in_a_folder_that_the_watchers_user_may_write(write: Write, tmp_path: Path) -> None:
    planted = f"open({str(tmp_path / 'proof')!r}, 'a').close()\n"
    for name in ("json.py", "logging.py", "app.py", "sitecustomize.py"):
        (tmp_path / name).write_text(planted)
    file = write({"watcher:web": {"uid": "nobody"}})
    shutil.chown(tmp_path, "nobody")

    report = check(file, others=list)

    assert [each.option for each in report.findings if "has root" in each.what] == ["uid"]
    assert not (tmp_path / "proof").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize(("owner", "group", "mode"), [("nobody", "root", 0o755), ("root", "nogroup", 0o1775)])
def test_check_by_root_imports_nothing_from_a_folder_that_another_user_may_write(
    write: Write, tmp_path: Path, owner: str, group: str, mode: int
) -> None:
    (tmp_path / "json.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'a').close()\n")
    (tmp_path / "app.py").write_text("import json\n")
    file = write({"watcher:web": {"hooks.after_start": "app.hook"}})
    shutil.chown(tmp_path, owner, group)
    tmp_path.chmod(mode)

    told = [str(each) for each in check(file, others=list).findings]

    assert not (tmp_path / "proof").exists()
    writer = "nobody" if owner == "nobody" else "its group"
    assert f"hooks, plugins and apps were not looked for: {writer} may write {tmp_path}" in "\n".join(told)
    assert "all of it imports" not in "\n".join(told)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
def test_the_app_is_looked_for_as_the_user_whose_folder_it_lies_in(write: Write, tmp_path: Path) -> None:
    package = tmp_path / "app" / "xboard_circus"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'app' / 'proof')!r}, 'a').close()\n")
    for path in (package, package.parent):
        shutil.chown(path, "nobody")
    file = write({"watcher:web": {"uid": "nobody", "working_dir": "app"}})

    check(file, others=list)

    proof = package.parent / "proof"
    assert not proof.exists() or proof.owner() == "nobody"


@pytest.mark.parametrize("place", ["", "app", "theirs"])
def test_what_every_user_may_write_is_told_and_nothing_runs_there_as_root(
    write: Write, tmp_path: Path, place: str
) -> None:
    for name in ("app", "theirs"):
        (tmp_path / name).mkdir(mode=0o755)
    for folder in (tmp_path, tmp_path / "app"):
        (folder / "app.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'a').close()\n")
    hooks: dict[str, str | None] = {"hooks.after_start": "app.hook", "working_dir": "app"}
    file = write({"watcher:web": hooks, "env:web": {"PYTHONPATH": "theirs"}})

    def told(*people: str) -> list[str]:
        found = [each for each in check(file, others=lambda: people).findings if "every user" in each.what]
        assert {each.level for each in found} <= {Level.ERROR if people and os.geteuid() == 0 else Level.WARNING}
        return [f"{each.section}: {each.what}".partition(", and so")[0] for each in found]

    assert told("ann") == []
    (tmp_path / "proof").unlink(missing_ok=True)
    (tmp_path / place).chmod(0o777)
    assert told("ann") == [f"watcher:web: every user of this host may write {tmp_path / place}"]
    assert os.geteuid() != 0 or not (tmp_path / "proof").exists()
    (tmp_path / place).chmod(0o1777)
    assert told("ann") == [f"watcher:web: every user of this host may write {tmp_path / place}"]
    # Without people on the host a program of the system's users, such as a web server, may still be taken over.
    assert len(told()) == (os.geteuid() == 0)


OF_ROOT: list[Sections] = [
    {"watcher:web": {"virtualenv": "theirs"}},
    {"circus": {"loggerconfig": "theirs/logging.ini"}},
    {"circus": {"pidfile": "theirs/circusd.pid"}},
    {"plugin:xboard": {"working_dir": "theirs"}},
    {"plugin:xboard": {"ledger.file": "theirs/ledger.db"}},
    {"socket:web": {"path": "theirs/web.sock", "host": None, "port": None, "so_reuseport": None}},
]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("changes", [{"env:web": {"PYTHONPATH": "theirs"}}, *OF_ROOT], ids=str)
def test_what_root_imports_and_writes_must_not_be_the_users(write: Write, tmp_path: Path, changes: Sections) -> None:
    (tmp_path / "theirs").mkdir()
    changes = {**changes, "watcher:web": {"uid": "nobody", **changes.get("watcher:web", {})}}
    file = write(changes)
    assert open_doors(file) == []

    shutil.chown(tmp_path / "theirs", "nobody")

    assert [str(each).partition(", which")[0] for each in open_doors(file)] == [
        f"{file}: [watcher:web] uid = nobody: nobody may write {tmp_path}/theirs"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("what", ["executable", "prefix"])
def test_the_python_of_roots_circusd_must_not_be_the_users(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Given a virtual environment that the watcher's user has made, when root checks from it, then it is named."""
    (tmp_path / "theirs" / "bin").mkdir(parents=True)
    (tmp_path / "theirs" / "bin" / "python").symlink_to(sys.executable)
    file = write({"watcher:web": {"uid": "nobody"}})
    assert open_doors(file) == []

    shutil.chown(tmp_path / "theirs", "nobody")
    monkeypatch.setattr(sys, what, str(tmp_path / "theirs" / ("bin/python" if what == "executable" else "")))

    (door,) = open_doors(file)
    assert f"nobody may write {tmp_path}/theirs, which circusd uses as root" in str(door)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
def test_the_library_of_the_python_of_roots_circusd_must_not_be_the_users(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a Python of which root has the folder of programs alone, when root checks from it, then it is named."""
    library = tmp_path / "base" / "lib" / "python3.11"
    library.mkdir(parents=True)
    (library / "os.py").touch()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text(f"home = {tmp_path}/base/bin\n")
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    file = write({"watcher:web": {"uid": "nobody"}})
    assert open_doors(file) == []

    shutil.chown(library, "nobody")

    (door,) = open_doors(file)
    assert f"nobody may write {library}, which circusd uses as root" in str(door)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("where", ["the python", "PYTHONPATH", "virtualenv"])
def test_what_a_pth_file_adds_to_the_path_of_roots_circusd_must_not_be_the_users(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Given an editable app of the watcher's user, whose sitecustomize.py root's circusd would run."""
    packages = tmp_path / "venv" / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    (packages / "shop.pth").write_text(f"{tmp_path / 'theirs'}\n")
    changes: Sections = {"watcher:web": {"uid": "nobody"}}
    if where == "the python":
        monkeypatch.setattr("site.getsitepackages", lambda: [str(packages)])
    elif where == "PYTHONPATH":
        changes["env:web"] = {"PYTHONPATH": str(packages)}
    else:
        changes["watcher:web"]["virtualenv"] = "venv"
    file = write(changes)
    assert open_doors(file) == []

    shutil.chown(tmp_path / "theirs", "nobody")

    (door,) = open_doors(file)
    assert f"nobody may write {tmp_path}/theirs, which circusd uses as root" in str(door)


OF_ROOTS_WATCHER: list[Sections] = [
    {"alert:ops": {"type": "command", "command": "theirs/run --urgent"}},
    {"alert:ops": {"type": "command", "command": "sh -e theirs/run"}},
    {"watcher:db": {"cmd": "theirs/run"}},
    {"watcher:db": {"cmd": "sh theirs/run"}},
    {"watcher:db": {"cmd": "nice -n 5 {}/theirs/run"}},
    {"watcher:db": {"cmd": "env A=1 {}/theirs/run"}},
    {"watcher:db": {"cmd": "sleep 9 --log-config {}/theirs/run"}},
    {"watcher:db": {"cmd": "sleep 9 --log-config=theirs/run"}},
    {"watcher:db": {"executable": "theirs/run"}},
    {"env:db": {"PATH": "theirs:/usr/bin"}},
    {"env:db": {"LD_LIBRARY_PATH": "/usr/lib:theirs"}},
    {"env:db": {"LD_PRELOAD": "theirs/run"}},
    {"env:db": {"PYTHONHOME": "theirs"}},
    {"env:db": {"HOME": "{}/theirs"}},
    {"watcher:db": {"worker.env_file": "paths.env"}},
    {"watcher:db": {"cmd": "python theirs"}},
    {"watcher:db": {"cmd": "python theirs/job.py"}},
    {"watcher:db": {"cmd": "./by_their_shell"}},
    {"watcher:db": {"cmd": "sh -e ./by_theirs_in_path"}, "env:db": {"PATH": "{}/bin:/usr/bin"}},
    {"watcher:db": {"run.before": "theirs/run now"}},
    {"watcher:db": {"working_dir": "theirs"}},
    {"watcher:db": {"cmd": "python -m xboard_circus.worker app:app --app-dir theirs"}},
    # What names lead to, from a folder of root's.
    {"watcher:db": {"cmd": "python -m xboard_circus.worker theirs.main:app"}},
    {"watcher:db": {"cmd": "uvicorn --factory theirs.main:make"}},
    {"watcher:db": {"cmd": "uvicorn app:app --http=theirs.http:Protocol"}},
    {"watcher:db": {"cmd": "python -m theirs"}},
    {"watcher:db": {"cmd": "python -um theirs.job"}},
    {"watcher:db": {"run.before": "python -m theirs.migrate"}},
    {"watcher:db": {"worker.preload_modules": "theirs.models"}},
    {"watcher:db": {"hooks.after_start": "theirs.hooks.go"}},
    {"watcher:db": {"stdout_stream.class": "theirs.streams.Stream"}},
    {"plugin:own": {"use": "theirs.plugins.Own"}},
    {"alert:ops": {"type": "command", "command": "python -m theirs.alert"}},
    {"alert:ops": {"type": "webhook", "url": "https://127.0.0.1/", "ca_file": "theirs/run"}},
    {"watcher:db": {"cmd": "python -m uvicorn xboard_circus.dashboard.served:app", "dashboard.folder": "theirs"}},
]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("changes", OF_ROOTS_WATCHER, ids=str)
def test_what_roots_circusd_runs_as_root_must_not_be_another_users(
    write: Write, tmp_path: Path, changes: Sections
) -> None:
    """Given the program of an alert or of a watcher of root's, which the user of another watcher may write."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "run").touch(0o755)
    (tmp_path / "theirs" / "__main__.py").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "own").symlink_to("../theirs/run")
    for name, first in {
        "by_their_shell": f"{tmp_path}/theirs/run -e",
        "by_theirs_in_path": "/usr/bin/env -S own",
    }.items():
        (tmp_path / name).write_text(f"#!{first}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "paths.env").write_text("PYTHONPATH=theirs\n")
    db = {"cmd": "sleep 9", "hooks.before_start": "xboard_circus.plugins.guard.arm", "working_dir": "."}
    theirs, env = (
        {name: str(value).format(tmp_path) for name, value in changes.get(section, {}).items()}
        for section in ("watcher:db", "env:db")
    )
    file = write({**changes, "watcher:web": {"uid": "nobody"}, "watcher:db": {**db, **theirs}, "env:db": {**env}})
    assert open_doors(file) == []

    shutil.chown(tmp_path / "theirs", "nobody")

    doors = [str(each) for each in open_doors(file)]
    assert doors != []
    assert all(f"nobody may write {tmp_path}/theirs, which circusd uses as root" in each for each in doors)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("command", ["{0}/own/bin/python job.py", "./job"])
def test_the_library_of_the_python_that_runs_as_root_must_not_be_another_users(
    write: Write, tmp_path: Path, command: str
) -> None:
    """Given a Python besides circusd's, named in the command or in the first line of its script."""
    library = tmp_path / "own" / "lib" / "python3.11"
    library.mkdir(parents=True)
    (library / "os.py").touch()
    (tmp_path / "own" / "bin").mkdir()
    shutil.copy("/bin/true", tmp_path / "own" / "bin" / "python")
    for name in ("job", "job.py"):
        (tmp_path / name).write_text(f"#!{tmp_path}/own/bin/python\n")
        (tmp_path / name).chmod(0o755)
    db: dict[str, str | None] = {"cmd": command.format(tmp_path), "working_dir": "."}
    file = write({"watcher:web": {"uid": "nobody"}, "watcher:db": db})
    assert open_doors(file) == []

    shutil.chown(library, "nobody")

    assert any(f"nobody may write {library}, which circusd uses as root" in str(each) for each in open_doors(file))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("kind", ["watcher", "alert"])
@pytest.mark.parametrize("name", ["job.py", "job"])
def test_a_python_script_of_roots_lies_in_no_folder_where_all_may_make_modules(
    write: Write, tmp_path: Path, kind: str, name: str
) -> None:
    """Given a script in a folder such as /tmp, where nobody replaces it, but Python looks for modules there first."""
    (shared := tmp_path / "shared").mkdir()
    (shared / name).write_text("#!/usr/bin/env python3\n")
    (shared / name).chmod(0o755)
    command = f"python3 {shared}/{name}" if name == "job.py" else f"{shared}/{name}"
    job: Sections = {"watcher:db": {"cmd": command, "working_dir": "."}}
    file = write(job if kind == "watcher" else {"alert:ops": {"type": "command", "command": command}})
    assert "may write" not in "\n".join(lines(check(file, others=lambda: ["ann"])))

    shared.chmod(0o1777)

    found = "\n".join(lines(check(file, others=lambda: ["ann"])))
    assert f"every user of this host may write {shared}" in found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("place", ["the folder", "a module", "below a link", "the packages of its Python"])
@pytest.mark.parametrize("way", ["app", "hook"])
def test_the_packages_that_root_imports_must_not_be_another_users_at_any_depth(
    write: Write, tmp_path: Path, way: str, place: str
) -> None:
    """Given a package in a folder of root's, of which another user owns the whole, a module, or what a link leads to,
    when root checks it, then that user is named and nothing of it runs, also no __init__.py; data beside it is not
    looked at."""
    packages = tmp_path / "ve" / "lib" / "python3.11" / "site-packages"
    for folder in (packages, tmp_path / "bin", tmp_path / "data", tmp_path / "lib" / "shop" / "api", tmp_path / "else"):
        folder.mkdir(parents=True, mode=0o755)
    (tmp_path / "ve" / "bin").mkdir()
    (tmp_path / "ve" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "lib" / "shop" / "linked").symlink_to(tmp_path / "else")
    proof = f"open({str(tmp_path / 'proof')!r}, 'a').close()\n"
    for name in ("lib/shop/__init__.py", "lib/shop/api/main.py", "else/more.py"):
        (tmp_path / name).write_text(proof)
    if place == "the packages of its Python":
        (tmp_path / "lib" / "shop").rename(packages / "shop")
        (packages / "shop.pth").write_text(f"{tmp_path / 'lib'}\n")
    shutil.chown(tmp_path / "data", "nobody")
    app: dict[str, str | None] = {"cmd": f"{tmp_path}/ve/bin/python -m uvicorn shop.api.main:app", "working_dir": "lib"}
    hook: dict[str, str | None] = {"uid": "daemon", "hooks.after_start": "shop.hooks.go"}
    paths: dict[str, str | None] = {
        "PYTHONPATH": str(packages if place == "the packages of its Python" else tmp_path / "lib")
    }
    file = write({"watcher:web": app} if way == "app" else {"watcher:web": hook, "env:web": paths})
    assert open_doors(file) == []

    theirs = {"the folder": "lib/shop", "a module": "lib/shop/api/main.py", "below a link": "lib/shop/linked"}
    named = tmp_path / theirs.get(place, packages)
    shutil.chown(named, "nobody")

    found = "\n".join(lines(check(file, others=list)))
    assert f"nobody may write {named}, which circusd uses as root: who has nobody has root" in found
    assert not (tmp_path / "proof").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs an app as another user")
@pytest.mark.parametrize("option", ["working_dir", "--app-dir", "its program", "the packages of its Python"])
def test_the_folder_of_an_app_with_a_user_of_its_own_must_not_be_a_third_users(
    write: Write, tmp_path: Path, option: str
) -> None:
    """Given the folder of an app that runs as nobody, when www-data may write it, as one who deploys may, then root's
    check warns, and circusd starts it. Where it is root's or nobody's nothing is told."""
    for name in ("app", "ini"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "app" / "run").touch(0o755)
    packages = tmp_path / "ve" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    place = packages if option == "the packages of its Python" else tmp_path / "app"
    (tmp_path / "ve" / "bin").mkdir()
    (tmp_path / "ve" / "bin" / "python").symlink_to(sys.executable)
    app = {
        "working_dir": {"working_dir": "app"},
        "--app-dir": {"cmd": f"{BASE['watcher:web']['cmd']} --app-dir app"},
        "its program": {"cmd": "app/run"},
        "the packages of its Python": {"cmd": "ve/bin/python -m uvicorn app:app"},
    }[option]
    file = write({"watcher:web": {"uid": "nobody", **app}})

    def found(owner: str, group: str, mode: int) -> tuple[list[str], list[str]]:
        shutil.chown(place, owner, group)
        place.chmod(mode)
        told = [each for each in check(file, others=list).findings if "may write" in each.what]
        return [each.what for each in open_doors(file)], [
            f"{each.level.value} {each.option} {each.what}" for each in told
        ]

    what = f"www-data may write {place}, from which it runs as nobody: who has www-data has nobody"
    assert found("root", "root", 0o755) == found("nobody", "nogroup", 0o755) == ([], [])
    assert found("www-data", "nogroup", 0o755) == ([], [f"warning cmd {what}"])
    assert found("root", "www-data", 0o2775) == ([], [f"warning cmd {what}"])
    assert found("nobody", "www-data", 0o2775) == ([], [f"warning cmd {what}"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be kept busy by what another user wrote")
@pytest.mark.parametrize("theirs", ["lib/shop", "lib/shop/api"])
def test_root_is_led_nowhere_by_a_link_in_another_users_package(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """Given a link to anywhere in a package of another user's, when root checks it, then nothing behind it is looked
    at: all files of the host would be, at each start of a worker."""
    (tmp_path / "lib" / "shop" / "api").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / theirs / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / theirs, *(tmp_path / theirs).iterdir()):
        os.chown(path, pwd.getpwnam("nobody").pw_uid, -1, follow_symlinks=False)
    file = write({"watcher:web": {"cmd": "python -m shop.api", "working_dir": "lib"}})
    seen = set[str]()

    def watched(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(path):
            seen.add(found[0])
            yield found

    monkeypatch.setattr(writers, "walk", watched)

    assert f"nobody may write {tmp_path / theirs}, which" in "\n".join(map(str, open_doors(file)))

    assert str(tmp_path / "elsewhere") not in seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("theirs", ["bin", "bin/job", "bin/python"])
@pytest.mark.parametrize("hook", [ARM, None])
def test_the_programs_of_a_virtualenv_that_root_runs_must_not_be_another_users(
    write: Write, tmp_path: Path, hook: str | None, theirs: str
) -> None:
    """Given a virtualenv of root's whose bin/, which is the first in PATH, another user may write, or a program in it,
    then check names that user; with a uid the worker runs them without root's rights."""
    programs = tmp_path / "ve" / "bin"
    programs.mkdir(parents=True, mode=0o755)
    (tmp_path / "ve" / "lib" / f"python3.{sys.version_info[1]}" / "site-packages").mkdir(parents=True, mode=0o755)
    for name in ("job", "python"):
        (programs / name).touch(0o755)
    web: dict[str, str | None] = {"cmd": "job", "virtualenv": "ve", "use_sockets": None, "hooks.before_start": hook}
    file = write({"watcher:web": web})
    assert "may write" not in (told := "\n".join(lines(check(file, others=list))))
    assert "there is no program" not in told

    shutil.chown(tmp_path / "ve" / theirs, "nobody")

    told = "\n".join(lines(check(file, others=list)))
    assert f"nobody may write {tmp_path}/ve/{theirs}, which circusd uses as root: who has nobody has root" in told
    assert open_doors(write({"watcher:web": {**web, "uid": "nobody"}})) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize(
    ("changes", "is_open"),
    [
        ({"watcher:db": {"cmd": "sh theirs/job.sh"}}, True),
        ({"watcher:db": {"cmd": "sh {}/theirs/more/job"}}, True),
        ({"watcher:db": {"cmd": "sleep 9 --log-config={}/theirs/log.conf"}}, True),
        ({"watcher:db": {"cmd": "sh linked"}}, True),
        ({"watcher:db": {"run.before": "sh theirs/job.sh"}}, True),
        ({"alert:ops": {"type": "command", "command": "sh theirs/job.sh"}}, True),
        ({"watcher:db": {"cmd": "sleep 9 --uds {}/theirs/web.sock"}}, False),  # made by what runs
        ({"watcher:db": {"cmd": "sleep 9 --pid={}/theirs/web.pid"}}, False),
        ({"watcher:db": {"cmd": f"python -c 'x = 1 / 2 # {'long' * 99}'"}}, False),
    ],
    ids=str,
)
def test_a_script_that_is_missing_must_not_be_another_users_to_make(
    write: Write, tmp_path: Path, changes: Sections, is_open: bool
) -> None:
    """Given a script of root's that is missing in a folder of another user's, who may have moved it away for the time
    of a check, then it is as if it were there."""
    (tmp_path / "theirs").mkdir(mode=0o755)
    (tmp_path / "linked").symlink_to("theirs/job.sh")
    db = {"cmd": "sleep 9", "hooks.before_start": "xboard_circus.plugins.guard.arm", "working_dir": "."}
    theirs = {name: str(value).replace("{}", str(tmp_path)) for name, value in changes.get("watcher:db", {}).items()}
    file = write({**changes, "watcher:db": {**db, **theirs}})
    assert open_doors(file) == []

    shutil.chown(tmp_path / "theirs", "www-data")

    doors = [str(each) for each in open_doors(file)]
    assert all(f"www-data may write {tmp_path}/theirs, which circusd uses as root" in each for each in doors)
    assert bool(doors) == is_open


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
def test_what_a_command_of_roots_makes_in_a_folder_such_as_tmp_is_no_script(write: Write, tmp_path: Path) -> None:
    """Given a folder that is open to all, with the sticky bit, when a command of root's names a file to be made there,
    then check refuses it no more than the app itself would; without that bit it does."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    file = write({"watcher:db": {"cmd": f"sleep 9 --cache {tmp_path}/shared/x", "working_dir": "."}})

    def told() -> bool:
        return f"{tmp_path}/shared" in "\n".join(lines(check(file, others=lambda: ["ann"])))

    assert not told()
    (tmp_path / "shared").chmod(0o777)
    assert told()


def access_list(uid: int, right: int, *, mask: int = 7) -> bytes:
    """Return a POSIX access list of mode 0755, with *right* for a user of its own."""
    entries = [(0x01, 7, 2**32 - 1), (0x02, right, uid), (0x04, 5, 2**32 - 1), (0x10, mask, 2**32 - 1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in [*entries, (0x20, 5, 2**32 - 1)])


MORE_OF_ROOT: list[Sections] = [
    {"env:web": {"PYTHONPATH": "roots:theirs"}},
    *OF_ROOT,
    {"watcher:web": {"worker.env_file": "theirs/env"}},
]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("changes", MORE_OF_ROOT, ids=str)
@pytest.mark.parametrize("how", ["owner", "group", "access list"])
def test_what_root_imports_and_writes_must_not_be_a_third_users(
    write: Write, tmp_path: Path, changes: Sections, how: str
) -> None:
    """Given a folder of root's circusd that a user may write who is neither root nor the watcher's, then check names
    that user and runs nothing, and circusd keeps the worker back."""
    for folder in ("roots", "theirs", "theirs/lib/python3.11/site-packages"):
        (tmp_path / folder).mkdir(parents=True, mode=0o755)
    for place in ("theirs", "theirs/lib/python3.11/site-packages"):
        (tmp_path / place / "planted.pth").write_text(f"import os; open({str(tmp_path / 'proof')!r}, 'a').close()\n")
    (tmp_path / "theirs" / "env").touch()
    www, theirs = pwd.getpwnam("www-data"), tmp_path / "theirs"
    file = write({**changes, "watcher:web": {"uid": "nobody", **changes.get("watcher:web", {})}})
    assert open_doors(file) == []

    if how == "owner":
        shutil.chown(theirs, www.pw_uid)
    elif how == "group":
        shutil.chown(theirs, "root", www.pw_gid)
        theirs.chmod(0o2775)
    else:
        os.setxattr(theirs, "system.posix_acl_access", access_list(www.pw_uid, 7))
    (tmp_path / "proof").unlink(missing_ok=True)

    what = f"www-data may write {theirs}, which circusd uses as root: who has www-data has root"
    (door,) = open_doors(file)
    assert (door.what, door.hint.partition(";")[0]) == (what, f"`chown root {theirs}` and `chmod go-w` it")
    assert what in "\n".join(lines(check(file, others=list)))
    assert not (tmp_path / "proof").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("place", [".", "modules"])
@pytest.mark.parametrize("who", ["www-data", "nobody", "every user of this host"])
def test_what_root_makes_beside_its_modules_must_not_be_another_users(
    write: Write, tmp_path: Path, place: str, who: str
) -> None:
    """Given a default access list, which `chmod -R go-w` leaves as it is, by which another user, or the watcher's,
    may write the __pycache__ that root's Python makes; then check, start and circusd refuse that. For reading, in a
    folder of sockets, or with a group that nobody is in, it is as usual."""
    file = write(
        {
            "circus": {"umask": "027"},
            "watcher:web": {"uid": "nobody"},
            "env:web": {"PYTHONPATH": "modules"},
            "socket:web": {"path": "sockets/web", "host": None, "port": None},
        }
    )
    for name in ("modules", "sockets"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "modules" / "shop.py").touch()
    uid = 0 if who.startswith("every") else pwd.getpwnam(who).pw_uid
    shutil.chown(tmp_path / "modules", "root", "www-data")  # without the setgid bit no file gets that group
    for usual, rights in (("sockets", (7, 7)), ("modules", (5, 7)), (".", (7, 5))):
        listed = access_list(pwd.getpwnam("www-data").pw_uid, rights[0], mask=rights[1])
        os.setxattr(tmp_path / usual, "system.posix_acl_default", listed)
    assert open_doors(file) == []
    assert "may write what" not in str(check(file, others=lambda: ["ann"]))
    assert host_rules.refusal(tmp_path, others=["ann"]) is None

    opened = access_list(uid, 7)[: -struct.calcsize("<HHI")] + struct.pack("<HHI", 0x20, 5 if uid else 7, 2**32 - 1)
    os.setxattr(tmp_path / place, "system.posix_acl_default", opened)

    folder = tmp_path / place
    what = f"{who} may write what root makes in {folder}, by its default access list, and root would run it"
    cure = f"look at what lies there, and `setfacl -R -b {folder}`"
    assert f"{what}; {cure}" in "\n".join(lines(check(file, others=lambda: ["ann"])))
    assert [(each.what, each.hint) for each in open_doors(file)] == ([(what, cure)] if uid else [])
    assert (host_rules.refusal(tmp_path, others=["ann"]) == f"{what}; {cure}") == (place == ".")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
def test_what_root_runs_must_not_be_a_number_without_a_users(write: Write, tmp_path: Path) -> None:
    """Given a watcher of root's that runs a script which the number of another watcher may write, then it is named."""
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    file = write({"watcher:web": {"uid": "54321"}, "watcher:job": {"cmd": str(script), "use_sockets": "False"}})
    what = f"54321 may write {script}, which circusd uses as root"
    assert what not in "\n".join(lines(check(file, others=list)))

    os.chown(script, 54321, -1)

    assert what in "\n".join(lines(check(file, others=list)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into writing through another user's link")
@pytest.mark.parametrize(
    "logs",
    [
        {"watcher:web": {"stdout_stream.class": "FileStream", "stdout_stream.filename": "theirs/web.log"}},
        {"circus": {"logoutput": "theirs/circusd.log"}},
        {},  # that of `start`
    ],
    ids=str,
)
@pytest.mark.parametrize("who", ["a person", "a user of the system", "another watcher's"])
def test_roots_logs_must_not_be_where_a_person_or_another_watchers_user_may_put_a_link(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Sections, who: str
) -> None:
    """Given a log of root's circusd, which Circus opens through a link before anything of ours runs, in the folder of
    another user, then check names that user; for a user of the system, such as that of /var/log, it does not."""
    theirs = tmp_path / ("theirs" if logs else "logs")
    theirs.mkdir(mode=0o755, exist_ok=True)
    shutil.chown(theirs, "www-data")
    if who == "a person":
        monkeypatch.setattr(endpoint_rules, "PEOPLE", {theirs.stat().st_uid})
    more: Sections = {"watcher:other": {"cmd": "sleep 1", "uid": "www-data"}} if who == "another watcher's" else {}

    found = "\n".join(lines(check(write({**logs, **more}), others=list, starts=True)))

    assert (f"www-data may write {theirs}, which circusd uses as root" in found) == (who != "a user of the system")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize("theirs", ["circus.ini", "theirs"])
def test_root_imports_nothing_for_another_users_ini_without_a_watcher(tmp_path: Path, theirs: str) -> None:
    """Given a plugin alone, which runs in a folder that another user chose, then check imports nothing there."""
    file, place = tmp_path / "circus.ini", tmp_path / "theirs"
    place.mkdir(mode=0o755)
    (place / "psutil.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'a').close()\n")
    plugin = f"[plugin:x]\nuse = xboard_circus.plugins.bundle.Bundle\nworking_dir = {place}\n"
    file.write_text(f"[circus]\nendpoint = ipc://a\npubsub_endpoint = ipc://b\n{plugin}")
    shutil.chown(tmp_path / theirs, "nobody")

    found = lines(check(file, others=list))

    assert any(f"[circus] nobody may write {tmp_path / theirs}, which circusd uses as root" in line for line in found)
    assert not (tmp_path / "proof").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize(
    "changes", [{"env:web": {"PYTHONPATH": "shared/x"}}, {"circus": {"pidfile": "shared/x"}}], ids=str
)
@pytest.mark.parametrize("uid", [None, "nobody"])
def test_what_is_missing_in_a_folder_such_as_tmp_is_anybodys(
    write: Write, tmp_path: Path, changes: Sections, uid: str | None
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    file = write({**changes, "watcher:web": {"uid": uid}})

    told = "\n".join(lines(check(file, others=lambda: ["ann"])))

    assert f"every user of this host may make {tmp_path}/shared/x" in told
    assert f"name what lies outside {tmp_path}/shared" in told
    assert bool(open_doors(file)) == (uid is not None)
    (tmp_path / "shared" / "x").touch()  # one that root made: nobody replaces it
    is_made_again = "circus" in changes
    assert ("every user" in str(check(file, others=lambda: ["ann"]))) == is_made_again


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be tricked into running what another user wrote")
@pytest.mark.parametrize(
    ("include", "theirs", "is_open"),
    [
        ("apps/*/part.ini", "apps/ann", True),
        ("apps/*/*.ini", "apps/ann", True),
        ("apps/*/*/part.ini", "apps/ann", True),
        ("apps/*/conf/part.ini", "apps/ann", True),
        ("linked/*/part.ini", "apps/ann", True),
        ("away/*/part.ini", "apps", True),
        ("apps/*.ini", "apps", True),
        ("apps/*/part.ini", "apps/notes", False),  # a file, whose owner can put no folder in its place
        ("apps/r*/part.ini", "apps/ann", False),
    ],
)
def test_what_an_include_of_roots_would_find_must_not_be_another_users_to_make(
    write: Write, tmp_path: Path, include: str, theirs: str, is_open: bool
) -> None:
    """Given a place where a pattern finds no file yet: its owner may put one there after the check."""
    for folder in ("apps/roots/conf", "apps/ann/conf", "linked", "away"):
        (tmp_path / folder).mkdir(parents=True, mode=0o755)
    for part in ("apps/notes", "apps/part.ini", "roots.ini", "apps/roots/part.ini", "apps/roots/conf/part.ini"):
        (tmp_path / part).touch()
    (tmp_path / "linked" / "ann").symlink_to(tmp_path / "apps" / "ann")
    (tmp_path / "away" / "ann").symlink_to(tmp_path / "apps" / "that is missing")
    file = write({"circus": {"include": f"roots.ini {include}"}})
    what = "www-data may "
    assert what not in "\n".join(lines(check(file, others=list)))
    assert authorship.other_author(load(file)) is None

    shutil.chown(tmp_path / theirs, "www-data")

    assert (what in "\n".join(lines(check(file, others=list)))) == is_open
    assert (authorship.other_author(load(file)) is not None) == is_open


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_of_roots_nobody_else_can_write_is_not_refused(write: Write, tmp_path: Path) -> None:
    """Given what is usual, then nothing is said of it: a group without members as that of /usr/local, an access list
    for reading or one that is masked, owners without a user as of an archive or in a container, a closed way."""
    www = pwd.getpwnam("www-data").pw_uid
    for name in ("group", "list", "masked", "unknown", "closed"):
        (tmp_path / name).mkdir(mode=0o755)
    shutil.chown(tmp_path / "group", "root", "staff")
    (tmp_path / "group").chmod(0o2775)
    os.setxattr(tmp_path / "list", "system.posix_acl_access", access_list(www, 5))
    os.setxattr(tmp_path / "masked", "system.posix_acl_access", access_list(www, 7, mask=5))
    shutil.chown(tmp_path / "unknown", 61234, 61234)
    (tmp_path / "closed" / "theirs").mkdir()
    shutil.chown(tmp_path / "closed" / "theirs", www)
    (tmp_path / "closed").chmod(0o700)
    paths = "group:list:masked:unknown:closed/theirs"
    file = write({"watcher:web": {"uid": "nobody"}, "env:web": {"PYTHONPATH": paths}})

    assert open_doors(file) == []
    assert "may write" not in str(check(file, others=lambda: ["ann"]))


def test_a_folder_that_may_not_be_looked_at_breaks_no_check(write: Write, tmp_path: Path) -> None:
    """Given such folders in PYTHONPATH and as virtualenv, then a check of another user than root looks at the rest."""
    (tmp_path / "closed" / "x").mkdir(parents=True)
    file = write({"watcher:web": {"virtualenv": "closed/x"}, "env:web": {"PYTHONPATH": "closed/x:closed"}})
    (tmp_path / "closed").chmod(0)

    code = """
import os, sys
if os.geteuid() == 0:
    import xboard_circus.checks.check, xboard_circus.checks.host_rules, dotenv
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
from xboard_circus.checks import authorship, host_rules
from xboard_circus.config import load
(watcher,) = (config := load(sys.argv[1])).watchers
found = host_rules.open_to_all(config, watcher, others=["ann"])
print([*found, *host_rules.open_to_others(config, watcher)])
"""
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=False)
    (tmp_path / "closed").chmod(0o700)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_what_a_line_hides_is_told_with_its_number(tmp_path: Path) -> None:
    file = text_file(
        tmp_path,
        "[circus]\nmulticast_endpoint =\n"
        "[watcher:web]\ncmd = sleep 9\npriority = 2\n  # indented\ncmd = sleep 8\n"
        "[watcher:web]\nnumprocesses = 1",
    )

    found = check(file, others=list)

    assert [line.partition(": ")[2] for line in lines(found)] == [
        "[watcher:web] priority = 2 # indented: Circus cannot read this; write a whole number",
    ]
    file.write_text(file.read_text().replace("priority", "mine"))
    assert told_by_file(load(file)) == [
        "error [watcher:web] cmd: written twice, in lines 4 and 7; Circus keeps the first; delete one",
        "error [watcher:web] : begins twice, in lines 3 and 8; make it one section",
        (
            "error [watcher:web] mine: Circus takes the comment in line 6 for the rest of the value, because it is"
            " indented;"
            " begin the comment in the first column"
        ),
    ]


def test_two_logs_of_one_file_are_told_once(write: Write) -> None:
    stream = {"class": "FileStream", "filename": "logs/web.log", "max_bytes": "9", "backup_count": "1"}
    options = {f"{name}_stream.{key}": value for name in ("stdout", "stderr") for key, value in stream.items()}

    assert told_by_file(load(write({"watcher:web": dict(options)}))) == [
        (
            "warning [watcher:web] stderr_stream.filename: rotated by two writers, as stdout_stream of"
            " [watcher:web] has the same file; lines get out of order and may be lost; give each a file of its own"
        )
    ]


# --- reading ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "cmd = x",
            "line 1: neither a [section] nor an option: cmd = x; nothing may stand before the first [section]",
            id="no section",
        ),
        pytest.param(
            "[watcher:web]\nwhat", "line 2: neither a [section] nor an option: what; write name = value", id="no option"
        ),
        pytest.param(
            "[watcher:web]\nnumprocesses = two",
            "[watcher:web] numprocesses = two: Circus cannot read this; write a whole number",
            id="no number",
        ),
        pytest.param(
            "[socket:web]\nport = 99999",
            "[socket:web] port = 99999: too large; write 65535 or less",
            id="a port that the kernel would take for another",
        ),
        pytest.param(
            "[watcher:web]\nstop_signal = FOO",
            "[watcher:web] stop_signal = FOO: no signal of this system; write one such as TERM or INT",
            id="no signal",
        ),
        pytest.param(
            "[watcher:web]\nhooks.before_start = m.f, perhaps",
            "[watcher:web] hooks.before_start = m.f, perhaps: Circus cannot read this;"
            " write module.function or module.function, True",
            id="no yes or no behind a hook",
        ),
        pytest.param(
            "[watcher:web]\nenv = A=1",
            "[watcher:web] env = A=1: Circus cannot read this; write the variables into [env:NAME]",
            id="a text for a mapping",
        ),
        pytest.param(
            "[env]\nCOUNT = two\n[watcher:web]\nnumprocesses = $(circus.env.count)",
            "[watcher:web] numprocesses = $(circus.env.count): Circus cannot read this; write a whole number",
            id="a variable that is no number",
        ),
        pytest.param(
            "[socket:web]\nfamily = AF_INET7",
            "[socket:web] family = AF_INET7: not one of the words that may stand here;"
            " write one of AF_INET, AF_INET6, AF_UNIX",
            id="no family",
        ),
        pytest.param(
            "[watcher:web]\nrlimit_nofile = many",
            "[watcher:web] rlimit_nofile = many: Circus cannot read this; write a whole number, or nothing for no"
            " limit",
            id="no limit",
        ),
    ],
)
def test_what_circus_cannot_read_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    file = text_file(tmp_path, text)

    with pytest.raises(XboardError) as raised:
        load(file)

    assert str(raised.value) == f"{file}: {message}"
    assert lines(check(file)) == [f"{file}: {message}"]


def test_a_file_that_is_not_there_is_told_with_a_way_to_have_one(tmp_path: Path) -> None:
    file = tmp_path / "none.ini"

    assert lines(check(file)) == [
        (
            f"{file}: no such file; run `xboard-circus init --app module:app` to have one written, or name another with"
            " -c FILE"
        )
    ]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert lines(check(tmp_path)) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_a_file_of_another_encoding_is_told_with_the_cure(tmp_path: Path) -> None:
    marked, foreign = tmp_path / "marked.ini", tmp_path / "foreign.ini"
    marked.write_bytes(b"\xef\xbb\xbf[circus]\n")
    foreign.write_bytes("# 中文\n[circus]\n".encode("gbk"))

    assert lines(check(marked)) == [
        (
            f"{marked}: line 1: begins with a byte order mark, which Circus cannot read;"
            r" save it as UTF-8 without one, or `sed -i '1s/^\xef\xbb\xbf//'` it"
        )
    ]
    (told,) = lines(check(foreign))
    assert told.startswith(f"{foreign}: cannot be read: it is not text in this system's encoding, ")
    assert told.endswith("; save it in that")


def test_reading_gives_what_circus_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XB_TEST_COUNT", "3")
    (tmp_path / "more.ini").write_text("[watcher:more]\ncmd = sleep 1\nuid = nobody\nworking_dir = sub\n")
    file = text_file(
        tmp_path,
        "[circus]\ninclude = more.ini\nendpoint = ipc:///tmp/x.sock ; a comment\n"
        "[watcher:web]\ncmd = run $(circus.env.XB_TEST_COUNT) ((circus.sockets.WEB))\nname_of_mine = x\n"
        "stdout_stream.filename = logs/a.log\nhooks.before_start = xboard_circus.plugins.guard:arm, True\n"
        "[socket:Web]\nhost = ::1\nport = 8000\nfamily = AF_INET6\n[socket:file]\npath = /tmp/y.sock",
    )

    config = load(file)

    web = config.watcher("WEB")
    assert (config.folder, config.endpoint, [each.name for each in config.watchers]) == (
        tmp_path,
        "ipc:///tmp/x.sock",
        ["more", "web"],
    )
    assert (web.cmd, web.sockets_used, is_armed(web)) == ("run 3 ((circus.sockets.WEB))", ("WEB",), True)
    assert (config.watcher("more").working_dir, config.watcher("more").uid) == (tmp_path / "sub", "nobody")
    assert [(each.name, each.section, each.host, each.port, each.path) for each in config.sockets] == [
        ("file", "socket:file", "localhost", None, "/tmp/y.sock"),
        ("web", "socket:Web", "::1", 8000, None),
    ]
    assert log_folders(config) == [tmp_path / "logs"]


def test_a_watcher_that_is_not_there_is_told_with_those_that_are(write: Write) -> None:
    with pytest.raises(XboardError, match=r"there is no watcher wob; known are: web"):
        load(write({})).watcher("wob")


# --- this host ---


@pytest.fixture
def on_host(tmp_path: Path) -> Callable[[dict[str, str | None]], list[str]]:
    """Return a function that says what the host rules tell of one watcher with these options."""

    def told(options: dict[str, str | None]) -> list[str]:
        given = {"cmd": "sleep 1", "hooks.before_start": ARM, "copy_env": "True", **options}
        text = "\n".join(f"{key} = {value}" for key, value in given.items() if value is not None)
        return told_by_host(load(text_file(tmp_path, f"[watcher:web]\n{text}")))

    return told


OnHost = Callable[[dict[str, str | None]], list[str]]


def test_of_what_works_the_host_says_nothing(on_host: OnHost) -> None:
    assert on_host({"rlimit_nofile": "16", "working_dir": "."}) == []


def test_a_working_dir_that_is_not_there(on_host: OnHost, tmp_path: Path) -> None:
    assert on_host({"working_dir": "gone"}) == [
        f"error working_dir: there is no folder {tmp_path}/gone; mkdir -p {tmp_path}/gone"
    ]


def test_a_log_folder_that_start_will_make(on_host: OnHost, tmp_path: Path) -> None:
    (told,) = on_host({"stdout_stream.filename": "logs/a.log"})

    assert told == (
        f"warning stdout_stream.filename: there is no folder {tmp_path}/logs; `xboard-circus start` makes it, but under"
        f" bare circusd Circus drops the watcher; mkdir -p {tmp_path}/logs"
    )


def test_a_log_file_that_is_a_folder(on_host: OnHost, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()

    assert on_host({"stdout_stream.filename": "logs"}) == [
        (
            f"error stdout_stream.filename: {tmp_path}/logs cannot be written, and Circus drops the watcher;"
            " name another file"
        )
    ]


def test_a_log_that_is_a_pipe(on_host: OnHost, tmp_path: Path) -> None:
    """Circus does not append to one, and waits for the reader of its own log; /dev/stdout of circusd is another one."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "web.log").symlink_to("pipe")

    assert on_host({"stdout_stream.filename": "web.log"}) == [
        (
            f"error stdout_stream.filename: {tmp_path}/web.log cannot be written, and Circus drops the watcher;"
            " it is a pipe: delete it, or name another file"
        )
    ]
    assert list(host_rules.not_writable("logoutput", tmp_path / "pipe", "circusd does not start"))
    assert not list(host_rules.not_writable("logoutput", Path("/dev/stdout"), "circusd does not start"))


def test_a_log_that_is_another_users_is_to_be_given_to_who_runs_circusd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service that was removed leaves the logs of its user in the checkout."""
    (tmp_path / "a.log").touch()
    owner, user = os.geteuid(), os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "access", lambda *_: False)

    (told,) = host_rules.not_writable("stdout_stream.filename", tmp_path / "a.log", "Circus drops the watcher")

    assert told.hint == f"it is {name_of(owner)}'s: `sudo chown {user} {tmp_path}/a.log`, or name another file"


def test_a_program_that_is_not_there(on_host: OnHost) -> None:
    (told,) = on_host({"cmd": "no-such-program-at-all --port 1"})

    assert told.startswith("error cmd: there is no program no-such-program-at-all in PATH=")


def test_the_interpreter_of_circusd_comes_first_where_a_watcher_is_armed(on_host: OnHost, tmp_path: Path) -> None:
    (told,) = on_host({"cmd": "python -m no_such_module_at_all"})

    python = os.path.join(os.path.dirname(sys.executable), "python")
    assert told == (
        f"error cmd: {python} finds no module no_such_module_at_all in {tmp_path}; install it for that Python"
    )


def test_an_app_that_is_not_there(on_host: OnHost, tmp_path: Path) -> None:
    (told,) = on_host({"cmd": f"{sys.executable} -m uvicorn nowhere_at_all:app"})

    assert told == (
        f"error cmd: {sys.executable} finds no module nowhere_at_all in {tmp_path};"
        " write the module:app that uvicorn is to serve"
    )


def test_an_app_in_the_folder_of_the_ini_is_found(on_host: OnHost, tmp_path: Path) -> None:
    (tmp_path / "somewhere.py").write_text("raise SystemExit('must not be run')")

    assert on_host({"cmd": f"{sys.executable} -m uvicorn somewhere:app"}) == []


def test_one_run_looks_for_all_modules_of_a_watcher(
    on_host: OnHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start, restart and reload waits for it."""
    runs: list[list[str]] = []

    def counted(command: list[str], **more: Any) -> Any:
        runs.append(command)
        return run_captured(command, **more)

    monkeypatch.setattr(host_rules, "run_captured", counted)
    (tmp_path / "somewhere.py").touch()

    assert on_host({"cmd": f"{sys.executable} -m uvicorn somewhere:app", "worker.preload_modules": "json, os"}) == []

    assert [command[-4:] for command in runs] == [["uvicorn", "somewhere", "json", "os"]]


def test_a_limit_that_does_not_exist(on_host: OnHost) -> None:
    (told,) = on_host({"rlimit_beer": "1"})

    assert told.startswith("error rlimit_beer: no such limit on this system; known are ")


def test_a_limit_above_what_the_kernel_allows(on_host: OnHost) -> None:
    most = int(Path("/proc/sys/fs/nr_open").read_text()) if sys.platform == "linux" else 1 << 40
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    assert on_host({"rlimit_nofile": str(max(most, hard) + 1)}) == [
        (
            f"error rlimit_nofile: above the hard limit of {hard}, and no worker would start;"
            f" write rlimit_nofile = {hard} or less, or raise the hard limit for circusd"
        )
    ]


def test_a_user_that_is_not_known(on_host: OnHost) -> None:
    assert "error uid: not known on this host; create it, or name one that `getent` knows" in on_host(
        {"uid": "no-such-user"}
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_number_without_a_user_gets_no_group_of_roots(write: Write, tmp_path: Path, on_host: OnHost) -> None:
    users = {user.pw_uid for user in pwd.getpwall()}
    group = next(group for group in grp.getgrall() if group.gr_gid not in users)
    number = str(group.gr_gid)

    told = (
        f"error uid: there is no user {number}, and group {number} is {group.gr_name}; name the group: gid = {number}"
    )
    assert [line for line in on_host({"uid": number}) if line.startswith(told)]
    assert [line for line in on_host({"uid": number, "gid": number}) if line.startswith("error uid")] == []
    assert [line for line in on_host({"uid": "54321"}) if line.startswith("error uid")] == []
    (watcher,) = load(write({"watcher:web": {"uid": "54321"}})).watchers
    assert host_rules.user_of(watcher).groups == {54321}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
def test_another_user_is_only_for_root(on_host: OnHost) -> None:
    assert "error uid: only root may become another user; start circusd as root, or take it out" in on_host(
        {"uid": "root"}
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_what_the_watchers_user_may_not_enter(on_host: OnHost, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    cure = f"chmod o+x {tmp_path} and what is above it, or choose another folder: it is entered as that user"
    assert f"error : nobody may not enter {tmp_path}; {cure}" in on_host({"uid": "nobody"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_what_a_user_does_to_its_own_folder_is_no_reason_against_others_watchers(write: Write, tmp_path: Path) -> None:
    """Given a watcher of a user whose folder is gone, a link to nowhere, or shut, then it is warned of;
    where that user could not have done it, it is an error."""
    tmp_path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    app = home / "app"
    given: dict[str, str | None] = {"uid": "nobody", "working_dir": "home/app"}

    def found() -> list[str]:
        return [
            line.partition(";")[0] for line in told_by_host(load(write({"watcher:web": given}))) if str(app) in line
        ]

    gone = f"working_dir: there is no folder {app}"
    assert found() == [f"error {gone}"]
    shutil.chown(home, "nobody")
    assert found() == [f"warning {gone}"]
    app.symlink_to("n" * 300)
    assert found() == [f"warning {gone}"]
    app.unlink()
    app.mkdir(mode=0o700)
    assert found() == [f"warning working_dir: nobody may not enter {app}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_link_in_the_place_of_the_working_dir_of_an_unarmed_watcher_is_refused(write: Write, tmp_path: Path) -> None:
    """Circus itself enters that folder before it becomes the user; the launcher of an armed watcher does after."""
    tmp_path.chmod(0o755)
    (tmp_path / "home" / "app").mkdir(parents=True)
    (tmp_path / "home").chmod(0o755)
    shutil.chown(tmp_path / "home" / "app", "nobody")

    def found(changes: dict[str, str | None]) -> list[str]:
        given = {"uid": "nobody", "working_dir": "home/app", **changes}
        return [line for line in told_by_host(load(write({"watcher:web": given}))) if "link in the place" in line]

    unarmed: dict[str, str | None] = {"hooks.before_start": None}
    assert found(unarmed) == []
    shutil.chown(tmp_path / "home", "nobody")
    assert found({}) == []
    place = tmp_path / "home"
    (line,) = found(unarmed)
    assert line == (
        f"error working_dir: nobody may put a link in the place of {place}/app, and Circus enters it as root, wherever"
        f" that leads; arm the watcher with hooks.before_start = {ARM}, or `chown root {place}` and `chmod go-w` it"
    )


def test_rights_are_counted_out_from_the_mode_bits(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.touch()
    owner, group = file.stat().st_uid, file.stat().st_gid
    somebody = owner + 4242

    file.chmod(0o710)

    assert User(somebody, frozenset({group}), "").has(file, os.X_OK)
    assert not User(somebody, frozenset({group}), "").has(file, os.R_OK)
    assert not User(somebody, frozenset(), "").has(file, os.X_OK)


# --- imports ---


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    (tmp_path / "good.py").write_text("def hook(**kw): return True\nclass Plugin: pass\nnumber = 1\n")
    (tmp_path / "broken.py").write_text("print('noise')\nimport no_such_module_at_all\n")
    (tmp_path / "wrong.py").write_text("def hook(:\n")
    (tmp_path / "exits.py").write_text("import os\nos._exit(7)\n")
    return tmp_path


def imports_of(folder: Path, text: str) -> list[str]:
    config = load(text_file(folder, text))
    return [f"[{each.section}] {each.option}: {each.what}" for each in import_rules.findings(config)]


def test_hooks_are_imported_as_circus_will(modules: Path) -> None:
    found = imports_of(
        modules,
        "[watcher:web]\ncmd = x\nhooks.before_start = good.hook\nhooks.after_start = broken.hook\n"
        "hooks.before_stop = wrong.hook\nhooks.after_stop = good.number\n[env:web]\nPYTHONPATH = .",
    )

    assert found == [
        (
            "[watcher:web] hooks.after_start: cannot be imported, and Circus runs on without this watcher:"
            f" ModuleNotFoundError: No module named 'no_such_module_at_all' ({modules}/broken.py:2)"
        ),
        (
            "[watcher:web] hooks.before_stop: cannot be imported, and Circus runs on without this watcher:"
            f" SyntaxError: invalid syntax ({modules}/wrong.py:1)"
        ),
        (
            "[watcher:web] hooks.after_stop: cannot be imported, and Circus runs on without this watcher:"
            " good.number is no function"
        ),
    ]


def test_the_current_folder_is_not_on_the_path_of_circusd(modules: Path) -> None:
    (told,) = imports_of(modules, "[watcher:web]\ncmd = x\nhooks.before_start = good.hook")

    assert "No module named 'good'" in told


def test_a_module_that_ends_the_process_is_told(modules: Path) -> None:
    (told,) = imports_of(modules, "[watcher:web]\ncmd = x\nhooks.before_start = exits.hook\n[env:web]\nPYTHONPATH = .")

    assert told == "[] : circusd could not load it: the process ended with 7 in the middle of an import"


def test_what_else_makes_circus_drop_a_watcher_is_told(modules: Path) -> None:
    (told,) = imports_of(modules, "[watcher:web]\ncmd = x\nstdout_stream.class = NoStream")

    assert told == "[watcher:web] : Circus drops this watcher: KeyError: 'NoStream'"


def test_a_plugin_is_looked_for_in_circusd_and_in_its_own_process(modules: Path) -> None:
    text = "[watcher:web]\ncmd = x\n[env:web]\nPYTHONPATH = {}\n[plugin:mine]\nuse = good.Plugin\nworking_dir = /"

    assert imports_of(modules, text.format(modules)) == []
    (told,) = imports_of(modules, text.format("/nowhere"))
    assert told.startswith("[plugin:mine] use: cannot be imported, and circusd does not start: ModuleNotFoundError")


def test_what_a_plugin_needs_when_it_begins_is_tried_too(modules: Path) -> None:
    (modules / "later.py").write_text("class Plugin:\n    needs = 'broken'\n")

    (told,) = imports_of(
        modules, "[watcher:web]\ncmd = x\n[env:web]\nPYTHONPATH = .\n[plugin:mine]\nuse = later.Plugin"
    )

    assert told.startswith(
        "[plugin:mine] use: cannot be imported, and the plugin dies again and again, in silence: Mod"
    )


def test_a_plugin_is_a_class(modules: Path) -> None:
    (told,) = imports_of(modules, "[watcher:web]\ncmd = x\n[env:web]\nPYTHONPATH = .\n[plugin:mine]\nuse = good.hook")

    assert told.endswith("circusd does not start: good.hook is no class")


def test_no_log_is_opened_by_a_check(modules: Path) -> None:
    assert imports_of(modules, "[watcher:web]\ncmd = x\nstdout_stream.filename = made.log") == []
    assert not (modules / "made.log").exists()


# --- ports ---


@pytest.fixture
def held() -> Iterator[int]:
    """Yield the number of a port that this process holds."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def ports_of(config: Config) -> list[str]:
    return [
        f"{each.level.value} [{each.section}] {each.option}: {each.what}; {each.hint}"
        for each in port_rules.findings(config)
    ]


def test_a_stranger_on_the_public_port_is_named_and_waited_for(write: Write, held: int) -> None:
    (told,) = ports_of(load(write({"socket:web": {"port": str(held)}})))

    assert told.startswith(f"warning [socket:web] port: 127.0.0.1:{held}: the port is held by pid {os.getpid()} (")
    assert told.endswith("a stranger; stop it; until then web waits and tries every 10 s")


def test_a_stranger_on_an_endpoint_stops_circusd(write: Write, held: int) -> None:
    (told,) = ports_of(load(write({"circus": {"endpoint": f"tcp://127.0.0.1:{held}"}})))

    assert told.startswith(
        f"error [circus] endpoint: 127.0.0.1:{held} is an endpoint of circusd, and circusd would not"
    )
    assert told.endswith("a stranger; stop that process, or choose another port")


def test_our_own_circusd_may_hold_its_ports(write: Write, held: int) -> None:
    from xboard_circus.host import procs

    file = write({"circus": {"endpoint": f"tcp://127.0.0.1:{held}"}})
    runtime.write_record(runtime.instance_id(file), pid=os.getpid(), started=procs.start_time(os.getpid()))

    assert ports_of(load(file)) == []


def test_two_files_of_one_folder_that_share_a_ledger_are_told(write: Write) -> None:
    """Their `why`, `events` and page would show the other's deaths; one that does not run is no harm."""
    from xboard_circus.host import procs

    file = write({"plugin:xboard": {"use": "xboard_circus.plugins.bundle.Bundle"}})
    other = file.with_name("other.ini")
    shutil.copy(file, other)
    assert not [line for line in lines(check(file)) if "ledger" in line]
    record = {"pid": os.getpid(), "started": procs.start_time(os.getpid()), "config_file": str(other)}
    runtime.write_record(runtime.instance_id(other), **record)

    (told,) = [line for line in lines(check(file)) if "ledger" in line]

    assert f"circusd of {other} (pid {os.getpid()}) records to {file.with_name('ledger.db')}, too" in told


def test_an_address_of_another_host_cannot_be_bound(write: Write) -> None:
    assert ports_of(load(write({"socket:web": {"host": "192.0.2.1"}}))) == [
        (
            "error [socket:web] port: 192.0.2.1:18000 cannot be bound: Cannot assign requested address;"
            " use an address of this host, or 0.0.0.0 for all of them"
        )
    ]


def test_a_runtime_folder_too_deep_for_a_socket_is_told(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(deep))

    (told,) = ports_of(load(write({})))

    assert "a unix socket may have" in told


# --- the whole ---


def test_a_finding_is_one_line_with_its_place(write: Write) -> None:
    file = write({"watcher:web": {"restrt.burst": "5", "cmd": "sleep 1"}})

    assert f"{file}: [watcher:web] restrt.burst = 5: unknown option; did you mean restart.burst?" in lines(check(file))


def test_what_init_writes_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(xboard_circus.__file__).parents[1]))
    (tmp_path / "mine.py").write_text("")
    port, page, endpoint, pubsub = (free_port() for _ in range(4))
    file = write_config(tmp_path, NewBackend(app="mine:app", port=port, page_port=page, live_path="/live"))
    file.write_text(file.read_text().replace(":5555", f":{endpoint}").replace(":5556", f":{pubsub}"))

    found = check(file, others=list)

    assert lines(found) == []
    assert [str(finding) for finding in found.findings] == [
        f"{file}: 2 watchers, 2 sockets, 1 plugin: every option is read, all of it imports"
    ]


def test_a_report_is_sorted_and_says_nothing_twice() -> None:
    warning = Finding(Level.WARNING, "", "odd", "change it", "a", "c.ini")
    error = Finding(Level.ERROR, "x", "wrong", "write 2", "b", "c.ini", "1")

    found = report([warning, error, warning])

    assert found.findings == (error, warning)
    assert (found.passed, found.at(Level.ERROR), found.at(Level.WARNING)) == (False, [error], [warning])
    assert json.loads(json.dumps(found.as_dict())) == {
        "passed": False,
        "findings": [
            {
                "topic": "settings",
                "level": "error",
                "file": "c.ini",
                "section": "b",
                "option": "x",
                "value": "1",
                "what": "wrong",
                "hint": "write 2",
            },
            {
                "topic": "settings",
                "level": "warning",
                "file": "c.ini",
                "section": "a",
                "option": "",
                "value": None,
                "what": "odd",
                "hint": "change it",
            },
        ],
    }


def test_a_secret_in_a_command_is_not_printed() -> None:
    finding = Finding(Level.ERROR, "cmd", "wrong", "write another", "watcher:w", "c.ini", "run --api-key hunter2")

    assert str(finding) == "c.ini: [watcher:w] cmd = run --api-key ***: wrong; write another"


@pytest.mark.parametrize("app", ["mine", "mine.py", "mine:", ":app", "my-app:app", "a b:c", "m:a;b"])
def test_init_refuses_what_is_no_app(tmp_path: Path, app: str) -> None:
    with pytest.raises(XboardError, match="not a module and an app in it") as raised:
        write_config(tmp_path, NewBackend(app=app))

    assert (raised.value.exit_code, list(tmp_path.iterdir())) == (2, [])


def test_init_does_not_write_over_a_file_unasked(tmp_path: Path) -> None:
    file = text_file(tmp_path, "mine")

    with pytest.raises(XboardError, match="--force writes over it"):
        write_config(tmp_path, NewBackend(app="mine:app"))

    assert file.read_text() == "mine\n"
    assert "mine:app" in write_config(tmp_path, NewBackend(app="mine:app"), force=True).read_text()


def test_a_new_ini_is_written_through_no_link_of_another_users(tmp_path: Path) -> None:
    """Given a link to a file of root's, not there yet or there, then `init` and root's `init --force` leave that be."""
    target = tmp_path / "of-root"
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "circus.ini").symlink_to(target)

    with pytest.raises(XboardError, match=r"circus\.ini is there already"):
        write_config(tmp_path / "app", NewBackend(app="mine:app"))

    assert not target.exists()
    if os.geteuid() == 0:
        target.write_text("root's")
        (tmp_path / "app").chmod(0o777)
        with pytest.raises(XboardError, match=r"circus\.ini cannot be written: not a plain file"):
            write_config(tmp_path / "app", NewBackend(app="mine:app"), force=True)
        assert target.read_text() == "root's"
        (tmp_path / "link").symlink_to("other")
        os.chown(tmp_path / "link", 65534, -1, follow_symlinks=False)
        (tmp_path / "other").mkdir()
        with pytest.raises(XboardError, match="another user's link is in the place of a folder"):
            write_config(tmp_path / "link", NewBackend(app="mine:app"))
        assert list((tmp_path / "other").iterdir()) == []


def test_init_writes_a_dockerfile_and_keeps_what_is_there(tmp_path: Path) -> None:
    """Given a folder with requirements, then Dockerfile and .dockerignore are new, and a second time needs --force."""
    (tmp_path / "requirements.txt").write_text("shop-things\n")
    backend = NewBackend(app="shop.main:app", live_path="/live")

    file = write_dockerfile(tmp_path, backend)

    assert "XBOARD_APP=shop.main:app XBOARD_WORKERS=2 XBOARD_LIVE_PATH=/live XBOARD_READY_PATH=\n" in file.read_text()
    assert (tmp_path / "requirements.txt").read_text() == "shop-things\n"
    ignored = (tmp_path / ".dockerignore").read_text().splitlines()
    assert ignored.index("**/.env*") < ignored.index("!**/.env.example")  # the last one that fits counts
    assert "secrets" in ignored  # where circus.ini's example has url_file
    file.unlink()
    with pytest.raises(XboardError, match=r"\.dockerignore is there already; --force writes over it"):
        write_dockerfile(tmp_path, backend)
    assert not file.exists()
    assert write_dockerfile(tmp_path, backend, force=True).exists()
    with pytest.raises(XboardError, match="a path begins with a slash"):
        write_dockerfile(tmp_path, NewBackend(app="shop.main:app", ready_path="ready"))


def test_init_leaves_out_the_paths_that_an_app_has_not(tmp_path: Path) -> None:
    options = load(write_config(tmp_path / "new", NewBackend(app="mine:app", ready_path="/ready"))).watchers[0].options

    assert (options.health.live_path, options.health.ready_path) == (None, "/ready")
    assert (tmp_path / "new" / "logs").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to others")
def test_root_runs_nothing_in_a_folder_of_somebody_who_exists_here(tmp_path: Path) -> None:
    """A folder of the host's user 1234 in a container, and a group without a user, are nobody's here."""
    nobody = pwd.getpwnam("nobody")
    group_of_none = next(gid for gid in range(40_000, 50_000) if not members(gid))

    def refused(uid: int, gid: int, mode: int) -> str | None:
        os.chown(tmp_path, uid, gid)
        tmp_path.chmod(mode)
        return host_rules.refusal(tmp_path)

    assert [refused(0, 0, 0o775), refused(54_321, 0, 0o755), refused(0, group_of_none, 0o775)] == [None] * 3
    said = refused(nobody.pw_uid, 0, 0o755) or ""
    assert "nobody may write" in said
    # What they have open for writing outlives `chown` and `chmod`.
    assert "end their processes, look at what lies there, `chown -R root` and" in said
    assert "its group may write" in (refused(0, nobody.pw_gid, 0o775) or "")
    below = tmp_path / "below"
    below.mkdir()
    assert refused(nobody.pw_uid, 0, 0o755) is not None
    assert f"nobody may write {tmp_path}, and" in (host_rules.refusal(below) or "")
    os.chown(tmp_path, 0, 0)
    assert host_rules.refusal(below) is None


def test_of_a_program_that_prints_without_measure_the_end_is_kept() -> None:
    writes = "import sys; [sys.stderr.write('x' * 2**20) for _ in range(32)]; print('done'); sys.exit('the end')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    run = run_captured([sys.executable, "-c", writes], timeout=60, env=os.environ)

    assert run is not None
    assert (run.returncode, run.stdout, len(run.stderr)) == (1, "done\n", KEPT)
    assert run.stderr.endswith("xthe end\n")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


@pytest.mark.parametrize("rest", ["", "while True: print(1)", "os.close(1), os.close(2), time.sleep(60)"])
def test_a_program_that_does_not_end_in_time_is_ended(rest: str) -> None:
    sleeps = f"import os, time\n{rest or 'time.sleep(60)'}"

    assert run_captured([sys.executable, "-c", sleeps], timeout=0.5, env=os.environ) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
@pytest.mark.parametrize("me", [0, 1])
@pytest.mark.parametrize(
    ("ini", "included", "host"), [(0, 0, "s3cret"), (4242424, 0, "s3cret"), (65534, 0, ""), (0, 65534, "")]
)
def test_no_variable_of_ours_is_put_into_the_ini_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ini: int, included: int, host: str, me: int
) -> None:
    """Given a name of a host with a variable in it, then whoever answers for that name in DNS gets none of ours."""
    monkeypatch.setenv("XB_SECRET", "s3cret")
    monkeypatch.setattr(os, "geteuid", lambda: me)
    file, more = tmp_path / "circus.ini", tmp_path / "more.ini"
    file.write_text("[circus]\nendpoint = tcp://$(circus.env.XB_SECRET).example:1\ninclude = more.ini\n[env]\nA = 1\n")
    more.write_text("[watcher:web]\ncmd = sleep $(circus.env.XB_SECRET) $(circus.env.A)\ncopy_env = True\n")
    os.chown(file, ini, -1)
    os.chown(more, included, -1)
    found = load(file, looks=me != 0)
    shown = host or "$(circus.env.XB_SECRET)"
    assert found.endpoint == f"tcp://{shown}.example:1"
    assert found.watchers[0].cmd == f"sleep {shown} 1"
    assert ("XB_SECRET" in found.watchers[0].env) == bool(host)
    assert "XB_SECRET" in load(file).endpoint or host or me  # a start needs it, and root starts nothing of others'


def test_no_name_in_which_a_shell_would_read_a_command_is_in_a_cure_to_copy(tmp_path: Path) -> None:
    """Given folders with a command in their name, then each cure has them in quotes."""
    folder = tmp_path / "$(id)"
    folder.mkdir()
    ini = folder / "circus.ini"
    ini.write_text(
        "[circus]\nendpoint = ipc://$(a)/x\n[watcher:web]\ncmd = sleep 1\nworking_dir = $(b)\n"
        "stdout_stream.filename = $(c)/x\nstdout_stream.class = FileStream\n[socket:s]\npath = $(d)/s\n"
    )
    hints = [finding.hint for finding in check(ini, others=list).findings]
    found = [hint for hint in hints if "$(id)" in hint]
    assert len(found) >= 4, hints
    assert all(f"'{folder}" in hint for hint in found), found
