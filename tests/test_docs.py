"""The documents say what the code does: what can be generated is, circus.ini is sound, and the README says the same in
both languages."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from xboard_circus.checks.file_rules import findings as findings_in_file
from xboard_circus.checks.watcher_rules import findings as findings_in_watcher
from xboard_circus.config import is_armed, is_dashboard, load
from xboard_circus.core.sentences import Say
from xboard_circus.core.verdict import Word
from xboard_circus.core.worker_phases import diagram
from xboard_circus.options.fields import PluginOptions, WatcherOptions
from xboard_circus.options.reading import ini_text, parse_plugin, parse_watcher
from xboard_circus.options.reference import OptionDoc, documented, sections
from xboard_circus.supervisor.patches.patch import every_kind
from xboard_circus.translations import sentences

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "scripts" / "build_docs.py"
INI = ROOT / "circus.ini"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")


def build(*arguments: str, script: Path = BUILD) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)


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
    (tmp_path / "docs" / "options.md").write_text("old")
    design = "# Mine\n\n<!-- [life] -->\nold\n<!-- [end of life] -->\n\nmine\n"
    (tmp_path / "docs" / "design.md").write_text(design)
    for name in ("verdicts.md", "verdicts.zh-CN.md"):
        (tmp_path / "docs" / name).write_text((ROOT / "docs" / name).read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("scripts/bootstrap.sh", "scripts/clone.py", "scripts/verdict_docs.py", "docs/options.zh.json"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = tmp_path / "scripts" / "build_docs.py"
    script.write_text(BUILD.read_text(encoding="utf-8"), encoding="utf-8")

    stale = build("--check", script=script)

    assert (stale.returncode, stale.stderr) == (
        1,
        "".join(
            f"docs/{name}.md is not up to date: run python scripts/build_docs.py\n"
            for name in ("options", "options.zh-CN", "patches", "design")
        ),
    )
    assert (tmp_path / "docs" / "options.md").read_text() == "old"
    assert not (tmp_path / "docs" / "patches.md").exists()
    assert build(script=script).returncode == 0
    assert build("--check", script=script).returncode == 0
    written = (tmp_path / "docs" / "design.md").read_text()
    assert written == design.replace("old", f"```mermaid\n{diagram()}\n```")


@pytest.fixture
def build_docs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("build_docs")


def test_each_text_of_an_option_has_one_translation_with_the_same_names_numbers_and_links(build_docs: Any) -> None:
    pairs = json.loads(build_docs.TRANSLATIONS.read_text(encoding="utf-8"), object_pairs_hook=list)
    # What is in backticks, links, sections and URLs, names with a dot, underscore or capitals and hyphens, and numbers.
    token = re.compile(
        r"`[^`]+`|\]\([^)]+\)|\[\w+:[^\]]+\]|\w+://[\w:./-]+|[A-Z]\w*(?:-[A-Z]\w+)+|[a-z]+(?:[._][a-z]+)+|\d+", re.ASCII
    )

    assert len(pairs) == len(dict(pairs)) > 100
    assert build_docs.stale_translations(dict(pairs)) == []
    for english, chinese in pairs:
        assert sorted(token.findall(chinese)) == sorted(token.findall(english)), english
    assert [english for english, chinese in pairs if not re.search("[\u4e00-\u9fff]", chinese)] == ["MiB"]


def test_a_changed_text_makes_its_translation_stale(build_docs: Any) -> None:
    translations = json.loads(build_docs.TRANSLATIONS.read_text(encoding="utf-8"))
    text = "Time between two tries of a taken port. Lower it to be up sooner once the port is free."
    translations["Time between two tries."] = translations.pop(text)

    assert build_docs.stale_translations(translations) == [
        f"docs/options.zh.json lacks a text; add its translation: {text}",
        "docs/options.zh.json translates a text that is gone; delete it: Time between two tries.",
    ]


def test_the_design_shows_the_life_of_a_worker_and_the_list_every_patch() -> None:
    design, patches = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("design.md", "patches.md"))

    assert diagram() in design
    assert [kind for kind in every_kind() if f"| `{kind}` |" not in patches] == []


@pytest.mark.parametrize("page", ["verdicts.md", "verdicts.zh-CN.md"])
def test_each_verdict_and_each_cure_of_one_is_on_the_page(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    language = "zh" if "zh" in page else "en"
    source = "".join((ROOT / "xboard_circus" / "core" / f"{name}.py").read_text() for name in ("verdict", "headlines"))
    cures = {key: sentences(language).get(key, Say[key].value) for key in re.findall(r"Say\.(CURE_\w+)", source)}
    words = {"circusd_lost", "nothing_serves", "reload_failed", *(word.value for word in Word)}

    assert len(cures) > 10
    assert [word for word in words if f"\n| `{word}` | " not in text] == []
    for key, cure in cures.items():
        pattern = ".+?".join(map(re.escape, re.split(r"\{\w+\}", str(cure))))
        assert re.search(rf"\| {pattern} \|\n", text), key


def test_the_chinese_site_has_the_figures_of_planned_operations_and_says_which_pages_are_english(
    site: Any, tmp_path: Path
) -> None:
    pages = [(ROOT / "docs" / f"planned{twin}.md").read_text(encoding="utf-8") for twin in ("", ".zh-CN")]
    cells = [re.findall(r"(`[^`]+`)|\| ([\d,.]+)", page.partition("|---|")[2]) for page in pages]
    for language in ("en", "zh"):
        (tmp_path / language).mkdir()
        site.lay(tmp_path / language, language)

    def is_marked(name: str, language: str) -> bool:
        return site.ONLY_ENGLISH in (tmp_path / language / "docs" / f"{name}.md").read_text(encoding="utf-8")

    assert len(cells[0]) > 30
    assert cells[0] == cells[1]
    marked = {name for name in site.PAGES if is_marked(name, "zh")}
    assert marked == {"benchmark", "design", "patches", "contributing", "changelog"}
    assert not any(is_marked(name, "en") for name in site.PAGES)


def test_each_planned_operation_is_shown_as_measured_for_long_and_without_a_loss(tmp_path: Path) -> None:
    planned: Any = importlib.import_module("real.planned")
    page = (ROOT / "docs" / "planned.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if " s | 20" in line]

    assert [row[0] for row in rows] == [*planned.operations(tmp_path), *planned.WITH_PACKAGES]
    for _, rounds, requests, lost, worst, _ in rows:
        assert (int(rounds) >= 20, int(requests.replace(",", "")) >= planned.LEAST, int(lost)) == (True, True, 0)
        assert float(worst.removesuffix(" s")) < planned.LONGEST


def test_the_design_names_no_file_that_is_not_there() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:core|ledger|dashboard|checks|patches)/\w+\.py)`", text))
    heart = text.partition("## The heart")[2].partition("```\n")[2].partition("```")[0]
    rooms = set(re.findall(r"^(\w+(?:\.py|/))|, (\w+\.py)", heart, re.MULTILINE))
    inside = {f"supervisor/{one or other}" for one, other in rooms}
    found = {name.replace("patches/", "supervisor/patches/") for name in named} | inside

    assert len(found) > 10
    assert [name for name in sorted(found) if not (ROOT / "xboard_circus" / name).exists()] == []


def test_circus_ini_points_at_the_reference_and_stays_short() -> None:
    text = INI.read_text(encoding="utf-8")

    assert "docs/options.md" in text
    assert "`xboard-circus options`" in text
    assert text.count("\n") <= 100


@pytest.mark.parametrize("option", [option for section in sections() for option in section.options])
def test_the_example_of_an_option_could_stand_in_the_file(option: OptionDoc) -> None:
    name, value = option.name, option.example if option.default in (None, ()) else ini_text(option.default)
    read = {WatcherOptions: parse_watcher, PluginOptions: parse_plugin}
    for kind, parse in read.items():
        if name in {each.name for each in documented(kind)}:
            assert parse({name: value})[1] == []


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

    assert list(findings_in_file(config)) == []
    assert [finding for watcher in config.watchers for finding in findings_in_watcher(config, watcher)] == []


def test_the_alerts_of_circus_ini_have_no_fault(tmp_path: Path) -> None:
    head, _, rest = INI.read_text(encoding="utf-8").partition("# [alert:")
    examples, _, tail = f"# [alert:{rest}".partition("\n\n")
    shown = "\n".join(line.removeprefix("#").removeprefix(" ") for line in examples.splitlines())
    file = tmp_path / "circus.ini"
    file.write_text(f"{head}{shown}\n\n{tail}", encoding="utf-8")

    config = load(file)

    assert [(alert.options.type, alert.problems) for alert in config.alerts] == [
        ("webhook", ()),
    ]
    assert list(findings_in_file(config)) == []


def test_a_second_backend_copied_as_circus_ini_says_has_no_fault(tmp_path: Path) -> None:
    text = INI.read_text(encoding="utf-8")
    parts = re.split(r"^(?=\[)", text, flags=re.MULTILINE)
    copied = "".join(part for part in parts if re.match(r"\[(watcher|socket|env):xboard\]", part))
    for old, new in (
        ("8000", "8001"),
        (":xboard]", ":reports]"),
        (".sockets.xboard", ".sockets.reports"),
        ("logs/xboard", "logs/reports"),
    ):
        copied = copied.replace(old, new)
    file = tmp_path / "circus.ini"
    file.write_text(f"{text}\n{copied}", encoding="utf-8")

    config = load(file)

    assert [watcher.name for watcher in config.watchers] == ["dashboard", "reports", "xboard"]
    assert list(findings_in_file(config)) == []
    assert list(findings_in_watcher(config, config.watcher("reports"))) == []


def shape(page: Path) -> list[str]:
    """Return how each heading, point of a list and row of a table begins, in order."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^(#+ |- |\|(?=[^|]*\S)).*", text, re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        "README",
        *(f"docs/{page}" for page in ("behaviour", "kubernetes", "operations", "options", "scenarios", "security")),
        *(f"docs/{page}" for page in ("services", "verdicts")),
    ],
)
def test_a_page_has_the_same_commands_names_and_shape_in_both_languages(name: str) -> None:
    pages = ROOT / f"{name}.md", ROOT / f"{name}.zh-CN.md"
    # But for plain words, such as the verdicts, which the page translates, too.
    found = [set(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))) for page in pages]
    names = [{name for name in each if not re.fullmatch("[a-z ]+", name)} for each in found]

    assert console_blocks(pages[1]) == console_blocks(pages[0])
    assert shape(pages[1]) == shape(pages[0])
    assert names[1] ^ names[0] == set()


def test_every_situation_has_a_picture_that_a_test_takes_and_all_are_small() -> None:
    page = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    tests = (ROOT / "tests" / "real" / "test_dashboard_scenarios.py").read_text(encoding="utf-8")
    named = re.findall(r"^!\[.*\]\(scenarios/(.*)\.png\)$", page, re.MULTILINE)
    pictures = sorted((ROOT / "docs" / "scenarios").iterdir())

    assert len(named) == page.count("\n## ") == 13
    assert [each.name for each in pictures] == sorted(f"{name}.png" for name in named)
    assert [name for name in named if f'"{name}"' not in tests] == []
    assert sum(each.stat().st_size for each in pictures) < 140_000 * len(named)


def test_the_readme_shows_lines_of_the_benchmarks_page() -> None:
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8").splitlines()
    table = READMES[0].read_text(encoding="utf-8").partition("\n| | xboard-circus |")[2].partition("\n\n")[0]

    assert [row for row in table.splitlines()[2:] if row not in page] == []


def test_the_readme_has_the_same_figures_in_both_languages() -> None:
    english, chinese = map(benchmark_figures, READMES)

    assert len(english) > 2
    assert chinese == english


def test_each_attack_that_the_threat_model_names_is_a_test_and_both_languages_name_the_same() -> None:
    english, chinese = (
        re.findall(r"`(test_\w+)`", (ROOT / "docs" / name).read_text(encoding="utf-8"))
        for name in ("security.md", "security.zh-CN.md")
    )
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^ *(?:async )?def (test_\w+)\(", sources, re.MULTILINE))

    assert len(english) > 20
    assert [name for name in english if name not in tests] == []
    assert chinese == english


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("build_site")


def test_each_document_is_a_page_of_the_site_in_both_languages(site: Any) -> None:
    documents = {f"docs/{page.name.partition('.')[0]}" for page in (ROOT / "docs").glob("*.md")}

    assert documents | {"README", "CONTRIBUTING", "CHANGELOG"} == {*site.FILES}
    for language in site.LANGUAGES:
        assert len(site.settings(language)["nav"]) == len(site.PAGES)
        assert "http" not in str(site.settings(language))


@pytest.mark.parametrize(
    ("file", "language", "text", "shown"),
    [
        ("README.md", "en", "[all](docs/options.md#x)", "[all](options.md#x)"),
        ("README.md", "en", "[中文](README.zh-CN.md)", "[中文](zh-CN/index.html)"),
        ("docs/operations.zh-CN.md", "zh", "[English](operations.md)", "[English](../operations.html)"),
        ("docs/operations.zh-CN.md", "zh", "[k](kubernetes.zh-CN.md)", "[k](kubernetes.md)"),
        ("docs/operations.zh-CN.md", "zh", "[d](design.md#versions)", "[d](design.md#versions)"),
        ("docs/operations.md", "en", "[nginx](../deploy/nginx), [c](https://c.io)", "nginx, [c](https://c.io)"),
        ("README.md", "en", "![it](docs/scenarios/hung.png)", "![it](hung.png)"),
        ("README.md", "en", r"`du \| sort` \| [a](docs/options.md)", r"`du | sort` \| [a](options.md)"),
    ],
)
def test_links_of_documents_lead_to_the_pages_of_the_site(
    site: Any, file: str, language: str, text: str, shown: str
) -> None:
    assert site.linked(text, file, language, set()) == shown


def test_a_link_that_leads_nowhere_and_a_page_that_fetches_from_elsewhere_fail(site: Any, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://x.io">x</a><script src="app.js"></script>')
    (tmp_path / "b.html").write_text('<link rel=preconnect href="https://fonts.io/a"><script src=//cdn.io/b.js>')

    with pytest.raises(SystemExit, match=r"README\.md: the link to docs/nowhere\.md leads nowhere"):
        site.linked("[x](docs/nowhere.md)", "README.md", "en", set())
    assert [found.rpartition("//")[2] for found in site.outside(tmp_path)] == ["fonts.io/a", "cdn.io/b.js"]


def test_the_picture_of_a_terminal_shows_kill_hang_and_reload() -> None:
    """Given the picture, then it holds what the README says of it, and a browser fetches nothing for it."""
    picture = (ROOT / "docs" / "terminal.svg").read_text(encoding="utf-8")
    text = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")

    for shown in (
        "$ kill -9 ",
        "killed from outside",
        "$ kill -STOP ",
        "hung: a signal such as SIGSTOP has stopped its process",
        "2 of 2 replaced",
        "All fine",
    ):
        assert shown in text, shown
    assert 'url("' not in picture
    assert all("](docs/terminal.svg)" in readme.read_text(encoding="utf-8") for readme in READMES)


@pytest.mark.parametrize("page", [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_no_command_of_the_pages_writes_a_file_or_has_pip_build_in_the_services_folder(page: Path) -> None:
    """Given a page, then no command of the service or the monitor is redirected to a relative path, where root's shell
    would follow a link of the service's user, and `pip install .` is named only as what not to do."""
    text = page.read_text(encoding="utf-8")

    redirected = r"^.*(?:service unit|service\.sh unit|_backend\.sh) *>+ *(?!/dev/null|&)\S+"
    assert re.findall(redirected, text, re.MULTILINE) == []
    assert re.findall(r"^\$ .*pip install \.", text, re.MULTILINE) == []
