"""The documents say what the code does: the option reference is generated, circus.ini shows every option, and the
README says the same in both languages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from xboard_circus.checks.file_rules import remarks as remarks_on_file
from xboard_circus.checks.watcher_rules import remarks as remarks_on_watcher
from xboard_circus.config import is_armed, is_dashboard, load
from xboard_circus.options.reading import (
    OptionDoc,
    PluginOptions,
    WatcherOptions,
    documented,
    parse_plugin,
    parse_watcher,
)

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "scripts" / "build_docs.py"
INI = ROOT / "circus.ini"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")


def build(*arguments: str, script: Path = BUILD) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)


def commented_options() -> dict[str, str]:
    """Return the options that circus.ini shows in comments."""
    found: dict[str, str] = {}
    for line in INI.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.removeprefix("# ").partition(" = ")
        if line.startswith("# ") and equals and " " not in name:
            found.setdefault(name, value)
    return found


def console_blocks(readme: Path) -> list[str]:
    """Return what stands between fences, without the comments, which are translated."""
    blocks = re.findall(r"^```.*?^```$", readme.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(r"^(\$ .*?) +# .*$", r"\1", block, flags=re.MULTILINE) for block in blocks]


def benchmark_figures(readme: Path) -> list[list[list[str]]]:
    """Return the numbers of each cell of the benchmark's table, with what is bold and what never came about."""
    table = readme.read_text(encoding="utf-8").partition("\n| | xboard-circus |")[2].partition("\n\n")[0]
    return [
        [re.findall(r"\*\*|never|\d+(?:[.,]\d+)*", cell) for cell in row.replace("永不", "never").split("|")]
        for row in table.splitlines()
    ]


def test_what_is_generated_is_up_to_date() -> None:
    run = build("--check")

    assert (run.returncode, run.stderr) == (0, "")


def test_a_stale_document_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "xboard_circus").symlink_to(ROOT / "xboard_circus")
    (tmp_path / "circus.ini").write_text(INI.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "docs" / "options.md").write_text("old")
    script = tmp_path / "scripts" / "build_docs.py"
    script.write_text(BUILD.read_text(encoding="utf-8"), encoding="utf-8")

    stale = build("--check", script=script)

    assert (stale.returncode, stale.stderr) == (
        1,
        "docs/options.md is not up to date: run python scripts/build_docs.py\n",
    )
    assert (tmp_path / "docs" / "options.md").read_text() == "old"
    assert build(script=script).returncode == 0
    assert build("--check", script=script).returncode == 0


@pytest.mark.parametrize(
    "option", [*documented(WatcherOptions), *documented(PluginOptions)], ids=lambda option: option.name
)
def test_circus_ini_shows_every_option(option: OptionDoc) -> None:
    given = {**load(INI).watcher("xboard").given, **commented_options()}

    assert option.name in given
    if option.name not in ("health.live_path", "health.ready_path"):
        assert f"{option.name} = {given[option.name]}" == option.written


def test_what_circus_ini_shows_in_comments_could_stand_there() -> None:
    shown = commented_options()
    ours = {name: value for name, value in shown.items() if name in {each.name for each in documented(WatcherOptions)}}
    plugins = {
        name: value for name, value in shown.items() if name in {each.name for each in documented(PluginOptions)}
    }

    assert (parse_watcher(ours)[1], parse_plugin(plugins)[1]) == ([], [])


def test_circus_ini_is_read_as_it_is_meant() -> None:
    config = load(INI)
    xboard = config.watcher("xboard")

    assert (config.endpoint, config.pubsub_endpoint) == ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")
    assert (config.circus["multicast_endpoint"], config.circus["statsd"], config.circus["check_delay"]) == (
        "",
        False,
        5,
    )
    assert xboard.cmd == (
        "python -m xboard_circus.worker xboard_circus.app:app --fd $(circus.sockets.xboard)"
        " --timeout-graceful-shutdown 20"
    )
    assert (xboard.numprocesses, xboard.sockets_used, is_armed(xboard)) == (2, ("xboard",), True)
    assert (xboard.options.health.live_path, xboard.options.health.ready_path) == ("/health/live", "/health/ready")
    assert {socket.name: (socket.host, socket.port, socket.so_reuseport) for socket in config.sockets} == {
        "xboard": ("127.0.0.1", 8000, True),
        "dashboard": ("127.0.0.1", 8080, True),
    }
    assert (is_armed(config.watcher("dashboard")), is_dashboard(config.watcher("dashboard"))) == (True, True)
    assert [plugin.use for plugin in config.plugins] == ["xboard_circus.plugins.bundle.Bundle"]
    assert {"PYTHONPATH", "LOG_LEVEL"} <= set(xboard.env)


def test_the_file_of_circus_ini_has_no_fault() -> None:
    config = load(INI)

    assert list(remarks_on_file(config)) == []
    assert [remark for watcher in config.watchers for remark in remarks_on_watcher(config, watcher)] == []


def test_the_alerts_of_circus_ini_have_no_fault(tmp_path: Path) -> None:
    head, _, rest = INI.read_text(encoding="utf-8").partition("# [alert:")
    examples, _, tail = f"# [alert:{rest}".partition("\n\n")
    shown = "\n".join(line.removeprefix("#").removeprefix(" ") for line in examples.splitlines())
    file = tmp_path / "circus.ini"
    file.write_text(f"{head}{shown}\n\n{tail}", encoding="utf-8")

    config = load(file)

    assert [(alert.options.type, alert.problems) for alert in config.alerts] == [
        ("webhook", ()),
        ("email", ()),
        ("command", ()),
    ]
    assert list(remarks_on_file(config)) == []


def test_the_second_backend_of_circus_ini_has_no_fault_either(tmp_path: Path) -> None:
    text = INI.read_text(encoding="utf-8")
    head, _, example = text.partition("# [watcher:reports]\n")
    second = "\n".join(
        line.removeprefix("#").removeprefix(" ") for line in f"[watcher:reports]\n{example}".splitlines()
    )
    file = tmp_path / "circus.ini"
    file.write_text(f"{head}{second}\n", encoding="utf-8")

    config = load(file)

    assert [watcher.name for watcher in config.watchers] == ["dashboard", "reports", "xboard"]
    assert list(remarks_on_file(config)) == []
    assert list(remarks_on_watcher(config, config.watcher("reports"))) == []


def test_the_readme_has_the_same_commands_in_both_languages() -> None:
    english, chinese = map(console_blocks, READMES)

    assert english
    assert chinese == english


def test_the_readme_has_the_same_figures_in_both_languages() -> None:
    english, chinese = map(benchmark_figures, READMES)

    assert len(english) > 2
    assert chinese == english
