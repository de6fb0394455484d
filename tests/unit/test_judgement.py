"""What `reloadconfig` is to refuse, judged within circusd: the same as `check` refuses, in the same words."""

import glob
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xboard_circus.checks.check import check
from xboard_circus.checks.findings import Level
from xboard_circus.checks.judgement import judge
from xboard_circus.config import ARM
from xboard_circus.host import writers

ROOT = Path(__file__).resolve().parents[2]
INI = f"""[circus]
endpoint = tcp://127.0.0.1:15555
pubsub_endpoint = tcp://127.0.0.1:15556
multicast_endpoint =
[watcher:web]
cmd = {sys.executable} -m http.server --fd $(circus.sockets.web)
numprocesses = 2
use_sockets = True
copy_env = True
priority = 10
hooks.before_start = {ARM}
[socket:web]
host = 127.0.0.1
port = 18000
so_reuseport = True
[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
"""


@pytest.fixture
def ini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(folder))
    file = tmp_path / "circus.ini"
    file.write_text(INI)
    return file


def test_a_sound_file_is_judged_so(ini: Path) -> None:
    assert judge(ini) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "numprocesses = 2",
            "numprocesses = -3",
            "numprocesses = -3: starts nothing; write 1 or more",
            id="a negative number of workers",
        ),
        pytest.param(
            "use_sockets = True",
            "use_sockets = False",
            "use_sockets = False: the command uses a socket of Circus's but is not given it; write use_sockets = True",
            id="no sockets for a command that has one",
        ),
        pytest.param(
            INI.splitlines()[5],
            "cmd =",
            "cmd = : missing or empty; write cmd = python -m xboard_circus.worker module:app",
            id="an empty command",
        ),
        pytest.param(
            "[socket:web]",
            "hooks.after_start = no_such_module_here.started\n[socket:web]",
            "hooks.after_start = no_such_module_here.started: cannot be imported, and Circus runs on without this"
            " watcher: ModuleNotFoundError: No module named 'no_such_module_here'"
            f"; name what circusd can import; its Python is {sys.executable}",
            id="a hook that no module has",
        ),
        pytest.param(
            "[socket:web]",
            "hooks.before_strat = xboard_circus.plugins.guard.arm\n[socket:web]",
            "hooks.before_strat = xboard_circus.plugins.guard.arm: Circus calls no hook of that name; "
            "did you mean hooks.before_start?",
            id="a hook that Circus does not call",
        ),
    ],
)
def test_what_check_refuses_is_refused_within_circusd_in_the_same_words(
    ini: Path, old: str, new: str, expected: str
) -> None:
    ini.write_text(INI.replace(old, new))

    errors = [str(finding) for finding in judge(ini) if finding.level is Level.ERROR]

    assert errors == [f"{ini}: [watcher:web] {expected}"]
    assert errors[0] in [str(finding) for finding in check(ini).at(Level.ERROR)]


MUCH = "9" * 23


@pytest.mark.parametrize(
    ("section", "option", "value", "expected"),
    [
        ("watcher:web", "stop_signal", "99999", "no signal of this system; write one such as TERM or INT"),
        ("watcher:web", "stop_signal", "0", "no signal of this system"),
        ("watcher:web", "stop_signal", "FOO+15", "no signal of this system"),
        ("watcher:web", "stop_signal", "KILL", "it kills a worker with its requests: no process can catch it"),
        ("watcher:web", "stop_signal", "19", "it halts a worker and ends none: no process can catch it"),
        ("watcher:web", "graceful_timeout", "nan", "Circus cannot read this; write a number of seconds"),
        ("watcher:web", "graceful_timeout", "1e400", "Circus cannot read this; write a number of seconds"),
        ("watcher:web", "graceful_timeout", "-1", "too small; write 0 or more"),
        ("watcher:web", "numprocesses", MUCH, "too large; write 256 or less"),
        ("watcher:web", "warmup_delay", MUCH, "too large; write 86400 or less"),
        ("watcher:web", "max_age", "-1", "too small; write 0 or more"),
        ("watcher:web", "rlimit_as", MUCH, "too large; write"),
        ("watcher:web", "rlimit_nofile", "0", "no worker can run without any; write more, or take it out"),
        ("watcher:web", "uid", str(2**32 - 1), "too large; write 4294967294 or less"),
        ("watcher:web", "gid", MUCH, "too large; write 4294967294 or less"),
        ("watcher:web", "gid", "\u00b2", "not known on this host"),
        ("watcher:web", "virtualenv", "x" * 9000, "a path has 2000 letters at most, and each name in it 255"),
        ("watcher:web", "stdout_stream.filename", "x" * 300, "a path has 2000 letters at most"),
        ("watcher:web", "working_dir", "a\n b", "a path has no line break; begin the line below in the first column"),
        ("watcher:web", "worker.env_file", "x" * 300, "a path has 2000 letters at most"),
        ("circus", "check_delay", "inf", "Circus cannot read this; write a number of seconds"),
        ("circus", "check_delay", "0", "too small; write 0.05 or more"),
        ("circus", "pidfile", "x/" * 1500, "a path has 2000 letters at most"),
        ("circus", "loggerconfig", "x" * 9000, "a path has 2000 letters at most"),
        ("socket:web", "host", "x" * 64, "not an address; write one such as 127.0.0.1 or localhost"),
        ("socket:web", "backlog", MUCH, "too large; write 2147483647 or less"),
        ("socket:web", "interface", "lo", "Circus cannot read this; write the address of that interface into host"),
        ("env:web", "PYTHONPATH", ".:" + "x" * 300, "a path has 2000 letters at most"),
        ("plugin:xboard", "log_dir", "x" * 300, "a path has 2000 letters at most"),
    ],
)
def test_a_value_that_no_system_takes_is_refused_by_every_door(
    ini: Path, section: str, option: str, value: str, expected: str
) -> None:
    """Given a number, a signal or a path without sense, when any door judges the file, then it names the option."""
    text = re.sub(f"(?m)^{option} = .*\n", "", INI) + "[env:web]\n"
    ini.write_text(text.replace(f"[{section}]\n", f"[{section}]\n{option} = {value}\n"))

    errors = [str(finding) for finding in judge(ini) if finding.level is Level.ERROR]

    assert len(errors) == 1
    assert f"[{section}] {option} = " in errors[0]
    assert f": {expected}" in errors[0]
    assert errors[0] in [str(finding) for finding in check(ini).at(Level.ERROR)]


@pytest.mark.parametrize("value", ["TERM", "sigint", "2", "RTMIN+1", "usr1"])
def test_each_signal_that_a_process_can_catch_may_end_workers(ini: Path, value: str) -> None:
    ini.write_text(INI.replace("numprocesses = 2", f"stop_signal = {value}"))

    assert judge(ini) == []


def test_a_file_with_a_nul_character_is_refused_with_its_line(ini: Path) -> None:
    ini.write_text(INI.replace("priority = 10", "priority = 10\0"))

    assert [finding.what for finding in judge(ini)] == ["line 10: a character that is no text (NUL); delete it"]


def test_a_file_that_cannot_be_read_is_one_error(ini: Path) -> None:
    ini.write_text("no section\n")
    missing = ini.with_name("none.ini")

    assert [finding.what.partition(":")[0] for finding in judge(ini)] == ["line 1"]
    assert [finding.what.partition(";")[0] for finding in judge(missing)] == ["no such file"]


def test_a_hook_is_looked_for_in_the_pythonpath_of_its_watcher(ini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (ini.parent / "site").mkdir()
    (ini.parent / "site" / "hooks_of_the_test.py").write_text("def started(**_): return True\n")
    hook = f"hooks.after_start = hooks_of_the_test.started\n[env:web]\nPYTHONPATH = {ini.parent / 'site'}\n[socket:web]"
    ini.write_text(INI.replace("[socket:web]", hook))

    assert judge(ini) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's circusd looks for what other users may write")
def test_what_many_watchers_share_is_looked_at_once(ini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more watchers that share the folders of modules and of the app, when circusd judges them, and answers
    nobody meanwhile, then it looks at few more places than for one."""
    looks = list[object]()

    def counted(module: object, name: str) -> None:
        look = getattr(module, name)

        def counting(*args: object) -> object:
            looks.append(args[0])
            return look(*args)

        monkeypatch.setattr(module, name, counting)

    counted(writers, "_access_list")
    counted(glob, "glob")

    def looks_for(watchers: int) -> int:
        web = INI[INI.index("[watcher:web]") : INI.index("[socket:web]")].replace("use_sockets = True\n", "")
        more = (web.replace(":web]", f":web{n}]") for n in range(1, watchers))
        ini.write_text(INI + "".join(more))
        looks.clear()
        judge(ini)
        return len(looks)

    one, many = looks_for(1), looks_for(11)
    assert one > 100
    assert many < 1.5 * one, f"{one} looks for one, {many} for 11"


def test_the_judgement_starts_no_process_prints_nothing_and_is_quick() -> None:
    """Within circusd's loop it stands between the workers and their supervision."""
    code = (
        "import socket, subprocess, sys, time, xboard_circus.plugins.guard, xboard_circus.plugins.bundle\n"
        "from xboard_circus.checks.judgement import judge\n"
        "def refuse(*_, **__): raise AssertionError('an effect')\n"
        "subprocess.Popen = socket.socket.bind = refuse\n"
        "judge(sys.argv[1]); began = time.process_time(); judge(sys.argv[1])\n"
        "print(time.process_time() - began)"
    )
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "circus.ini")], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 0.3, f"{done.stdout} of {time.monotonic() - began} s"
