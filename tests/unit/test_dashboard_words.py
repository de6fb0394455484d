import re
from pathlib import Path

import pytest
from state_views import watcher_view

from xboard_circus.dashboard import translations, views

DASHBOARD = Path(translations.__file__).resolve().parent.parent
SCRIPTS = sorted((DASHBOARD / "static").glob("*.js"))
TEMPLATES = sorted((DASHBOARD / "templates").glob("*.html"))
STYLES = sorted((DASHBOARD / "static").glob("*.css"))
OTHERS = [language for language in translations.LANGUAGES if language != "en"]

# What a script or template asks for, and the beginnings of keys that it puts together.
LITERAL = re.compile(r"""\btext(?:\(|\[)["']([\w.]+)["']""")
COMPOSED = re.compile(r"""\btext\(`([\w.]+)\$\{""")


@pytest.mark.parametrize("language", OTHERS)
def test_every_language_has_the_same_words_with_the_same_figures_in_them(language: str) -> None:
    def figures(texts: dict[str, str]) -> dict[str, list[str]]:
        return {key: sorted(set(re.findall(r"\{(\w+)\}", words))) for key, words in texts.items()}

    other, english = dict(translations.catalogue(language)), dict(translations.catalogue("en"))

    assert figures(other) == figures(english)


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_no_word_is_empty(language: str) -> None:
    assert [key for key, words in translations.catalogue(language).items() if not words.strip()] == []


@pytest.mark.parametrize("path", [*SCRIPTS, *TEMPLATES], ids=lambda path: path.name)
def test_every_word_that_is_asked_for_is_in_the_catalogue(path: Path) -> None:
    source, keys = path.read_text(encoding="utf-8"), translations.catalogue("en")

    missing = [key for key in LITERAL.findall(source) if key not in keys]
    missing += [start for start in COMPOSED.findall(source) if not any(key.startswith(start) for key in keys)]

    assert missing == []


def test_every_word_of_the_catalogue_is_asked_for() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in [*SCRIPTS, *TEMPLATES, *DASHBOARD.glob("*.py")])
    families = (
        "state.",
        "kind.",
        "cause.",
        "by.",
        "why.",
        "do.",
        "all.",
        "reload.",
        "role.",
        "held.",
        "verdict.",
        "headline.",
        "incident.",
        "wait.",
        "say.",
        "column.",
        "socket.",
        "server.remove.",
        "server.reread.",
        "sort.",
        "unit.",
        "mark.",
    )

    unused = [key for key in translations.catalogue("en") if key not in sources and not key.startswith(families)]

    assert unused == []


@pytest.mark.parametrize(
    ("cookie", "accept", "chosen"),
    [
        pytest.param(None, None, "en", id="nobody says anything"),
        pytest.param(None, "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN", id="what the browser likes best"),
        pytest.param(None, "en-GB,zh;q=0.9", "en", id="not what comes second"),
        pytest.param(None, "zh;q=0.2, en;q=0.9", "en", id="by weight and not by place"),
        pytest.param(None, "de-DE,fr", "en", id="none of ours"),
        pytest.param(None, "zh;q=nonsense,,;q=1", "en", id="nonsense"),
        pytest.param(None, "zh;q=0", "en", id="a weight of 0 is a no"),
        pytest.param("zh-CN", "en", "zh-CN", id="what was chosen before comes first"),
        pytest.param("xx", "zh", "zh-CN", id="a cookie of another age"),
    ],
)
def test_choose(cookie: str | None, accept: str | None, chosen: str) -> None:
    assert translations.choose(cookie, accept) == chosen


@pytest.mark.parametrize(("cookie", "theme"), [("dark", "dark"), ("light", "light"), ("pink", ""), (None, "")])
def test_theme(cookie: str | None, theme: str) -> None:
    assert translations.theme(cookie) == theme


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_a_text(path: Path) -> None:
    risky = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|setTimeout\([\"'`]"

    assert re.findall(risky, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [*TEMPLATES, *STYLES, *SCRIPTS], ids=lambda path: path.name)
def test_nothing_comes_from_another_host_and_nothing_stands_inline(path: Path) -> None:
    source = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    if path.name == "frame.html":
        # The one that the policy lets run by its hash, which is held where it is served.
        source = source.replace("<script>{{ boot | safe }}</script>", "", 1)

    assert re.findall(r"""https?://|(?:src|href|action)=["']/|url\(\s*["']?(?:/|http)""", source) == []
    assert re.findall(r"""<style|\sstyle=|\son\w+=["']|<script(?![^>]*(?:src=|application/json))""", source) == []


def test_the_page_gets_the_judgement_of_the_core() -> None:
    """Given what a name or a phase alone does not show, then the page has it from core/, and asks no script of its."""
    shown = views.watcher(watcher_view("up", "hung", "not ready", "held", name="circusd-sync"), {})
    judged = [(each["condition"], each["serves"]) for each in shown["workers"]]

    assert judged == [("up", True), ("hung", False), ("not_ready", True), ("held", False)]
    helpers = ("plugin:xboard", "circusd-stats", "circushttpd", "circusd-sync")
    assert [views.watcher(watcher_view(name=name), {})["is_helper"] for name in helpers] == [True, True, True, False]
