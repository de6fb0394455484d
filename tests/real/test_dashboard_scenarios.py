"""The first 400 px of the page in each trouble: a real circusd, two browsers, each in its language."""

# ruff: noqa: RUF001 - Chinese has marks of its own

import contextlib
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Locator, Page, expect

from xboard_circus.config import load
from xboard_circus.dashboard.hub import TICK
from xboard_circus.dashboard.settings import WATCHER, Settings
from xboard_circus.ledger import LedgerStore
from xboard_circus.ledger.location import ledger_of
from xboard_circus.ledger.record import record_of

from .browsing import PATIENCE, PHONE, QUICK, Visit, check_sound, chromium, dashboard, open_incidents, page_watcher
from .free_ports import stranger
from .harness import BUNDLE, HERE, Circusd, Watcher, circusd, eventually, fill, kill
from .load import Load
from .made_history import DAY, give_history
from .parts import needs

WIDE = {"width": 1440, "height": 720}
COOLS = {"restart.burst": 3, "restart.delay": 0.1, "restart.delay_max": 60, "restart.cooldown": 300}
FIRST = 400  # px
FIRST_PAINT = 1000.0  # ms
PICTURES = bool(os.environ.get("XBOARD_SCREENSHOTS"))
TROUBLE = "-bad|-warn"
CALM = (None, "ok", "deploying", "stopped", "unknown")
LOOKS: list[tuple[Any, Any]] = [(size, theme) for size in (PHONE, WIDE) for theme in ("dark", "light")]
# By language, for one step after another: all eight in four, and in each step both of each.
SOUND = [((PHONE, "dark"), (WIDE, "light")), ((WIDE, "light"), (PHONE, "dark"))]
SOUND += [((PHONE, "light"), (WIDE, "dark")), ((WIDE, "dark"), (PHONE, "light"))]


class Watch:
    """Two who look at the page of one circusd: in English, mostly wide and light, and in Chinese, narrow and dark."""

    def __init__(self, *visits: Visit) -> None:
        self.visits = visits
        self.steps = 0

    def line(self, visit: Visit) -> Locator:
        return visit.page.locator(".headline").first

    def see(
        self, name: str, verdict: str, *english: str, chinese: str, title: str, icon: str = TROUBLE, card: str = ""
    ) -> None:
        """Check that the first line of both has these words, and that the *card* adds what it has beyond the line."""
        for visit, words in zip(self.visits, (english, (chinese,)), strict=True):
            line = self.line(visit)
            expect(visit.page.locator(f'.headline[data-verdict="{verdict}"]')).to_be_visible()
            for each in words:
                expect(line).to_contain_text(re.compile(each))
            expect(visit.page.locator("#icon")).to_have_attribute("href", re.compile(icon))
        expect(self.visits[0].page).to_have_title(re.compile(title))
        eventually(self.is_same_in_status, what=f"{name}: `status` begins with the same words")
        eventually(lambda: self.english_words() == [], what=f"{name}: the Chinese line has no English")
        if card:
            expect(self.visits[0].watcher().locator(".incident")).to_contain_text(card)
        self.look(name, is_green=icon != TROUBLE)

    def look(self, name: str, *, is_green: bool) -> None:
        """Check in both languages, sizes and themes that the line ends within 400 px, with nothing green.

        axe, which takes longer than all else, looks at one size and theme for each language, other ones in each step;
        where pictures are kept, at all of them.
        """
        self.steps += 1
        sound_here = SOUND[self.steps % len(SOUND)]
        for visit, looks, sound in zip(self.visits, (LOOKS, LOOKS[::-1]), sound_here, strict=True):
            page = visit.page
            page.evaluate(FOLLOW)
            for size, theme in looks:
                page.set_viewport_size(size)
                page.emulate_media(color_scheme=theme)
                page.evaluate("scrollTo(0, 0)")
                # Another line may have come in its place meanwhile.
                box = eventually(lambda visit=visit: self.line(visit).bounding_box(), what="the line is shown")  # type: ignore[misc]
                end = box["y"] + box["height"]
                assert end <= FIRST, f"{name}: the line ends at {end:.0f} px, {size['width']} px wide"
                if not is_green:
                    eventually(lambda page=page: not page.evaluate(GREEN, FIRST), what=f"{name}: nothing is green")  # type: ignore[misc]
                if PICTURES or (size, theme) == sound:
                    check_sound(page, f"{name}, {size['width']} px, {theme}")
        self.keep(name)

    def check_titles(self) -> None:
        """Check that title and icon change with the state that brings a trouble or its end, which comes within 2 s."""
        assert Settings.poll + TICK <= 2
        for visit in self.visits:
            states = visit.page.evaluate("refreshes")
            assert len({word for word, _, _ in states}) > 2
            wrong = [
                each for each in states if len({each[0] in CALM, each[1] == "xboard-circus", "-" not in each[2]}) > 1
            ]
            assert wrong == []

    def is_same_in_status(self) -> bool:
        """Check that `status` begins with the words of the page, all of them, but for their marks, ages and moments."""
        done = self.visits[0].running.run_cli("status")
        told = done.stdout.splitlines()[0] if done.returncode == 0 else done.stderr.removeprefix("xboard-circus: ")
        page = self.line(self.visits[0]).locator("p").inner_text()
        one, other = (re.sub(r"[`.\s]", "", PASSING.sub("", each)) for each in (page, told))
        assert one == other
        return True

    def check_first_paint(self) -> None:
        """Check that the page is painted within a second, or no later than a crowded machine paints next to nothing."""
        page = self.visits[0].page

        def first_paint(path: str) -> float:
            times = []
            for _ in range(3):
                page.goto(f"{self.visits[0].url}/{path}")
                times.append(float(page.wait_for_function(PAINTED).json_value()))
            return statistics.median(times)

        assert first_paint("") < max(FIRST_PAINT, 4 * first_paint("healthz"))
        page.goto(f"{self.visits[0].url}/")
        self.visits[0].live()

    def english_words(self) -> list[str]:
        """Find English words in the first line of the Chinese page, without names, commands and what programs say."""
        line = str(self.line(self.visits[1]).locator("p").evaluate(TEXT))
        return [each for each in re.findall(r"[A-Za-z]{2,}", OTHERS.sub("", line)) if each not in NAMES]

    def keep(self, name: str) -> None:
        """Keep the picture of docs/scenarios.md where it is wanted."""
        if not PICTURES:
            return
        visit = self.visits[0]
        own = [[str(visit.running.folder), "/srv/app"], [f"{sys.prefix}/bin/", ""]]
        told = [*own, [str(HERE.parents[1]), "/srv/xboard-circus"], [sys.base_prefix, "/usr"]]

        def is_kept() -> bool:
            visit.page.evaluate(RENAME, told)
            visit.picture(f"scenarios/{name}", whole=False)
            text = visit.page.evaluate("document.body.textContent")
            return not any(path in text for path, _ in told)  # else a state came in between

        eventually(is_kept, what=f"the picture of {name} names no folder of this machine")

    def see_fine(self, *english: str) -> None:
        expect(self.line(self.visits[0])).to_have_attribute("data-verdict", "ok")
        for each in english:
            expect(self.line(self.visits[0])).to_contain_text(re.compile(each))
        expect(self.line(self.visits[1])).to_contain_text("一切正常")
        expect(self.visits[0].page).to_have_title("xboard-circus")


TEXT = """(node) => {
  const own = node.cloneNode(true);
  own.querySelectorAll("code").forEach((each) => each.remove());
  return own.textContent;
}"""
# Paths and addresses, the command line of a stranger, what the app, the system or the sender of a command says.
OTHERS = re.compile(
    r"\(“/[^)]*\)|/[^\s，。：]+|No space left on device|database: no answer|no answer|disk|database|[KM]iB"
    r"|xboard-circus stop, user \w+|RuntimeError: told to die at import"
)
# What time changes, and of which other watchers `status` says something.
PASSING = re.compile(
    r" Also: .*|once|\d+ times in a row| at once| in [\d.]+ \w+( \d+ \w+)?"
    r"|[\d.]+ (s|min|h)(?![a-z])|\d+:\d+:\d+( [AP]M)?"
)
NAMES = {"web", "circusd", "SIGKILL", "SIGABRT", "SIGSTOP", "SIGCONT", "pid", "PID", "root", "ini"}
FOLLOW = """async () => {
  if (window.refreshes) return;
  window.refreshes = [];
  const { Headlines } = await import(new URL("static/headlines.js", document.baseURI));
  const { update } = Headlines.prototype;
  Headlines.prototype.update = function (servers) {
    update.call(this, servers);
    const icon = document.getElementById("icon");
    setTimeout(() => window.refreshes.push([servers[0].headlines[0]?.word, document.title, icon.getAttribute("href")]));
  };
}"""
STEPS = """async () => (await import(new URL("static/reload.js", document.baseURI)))
  .stepsOf({state: "done", step: "", replaced: [[11, 12], [13, 13]], done: 2, total: 2},
    {workers: [{pid: 13, slot: 2}]}, new Map([[12, 1], [13, 2]])).map(({words}) => words)"""
RENAME = """(told) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    for (const [path, name] of told) texts.currentNode.data = texts.currentNode.data.replaceAll(path, name);
}"""
UNDER = """([x, y]) => {
  window.under = [];
  window.isOver = false;
  const look = () => {
    const found = document.elementFromPoint(x, y);
    const node = found.closest("button, a, select, summary, tr, .headline, .card") ?? document.body;
    const name = node.ariaLabel || node.textContent;
    if (window.under.at(-1) !== name) window.under.push(name);
    if (!window.isOver) requestAnimationFrame(look);
  };
  look();
}"""
# "color(srgb" has parts of 1, "rgb" of 255.
GREEN = """(most) => {
  const isGreen = (colour) => {
    const parts = colour.replace("color(srgb", "").match(/[\\d.e-]+/g) ?? [0, 0, 0];
    const [red, green, blue, alpha = 1] = parts.map(Number);
    return alpha > 0 && green - Math.max(red, blue) > (colour.startsWith("color") ? 5 / 255 : 5);
  };
  const names = ["color", "backgroundColor", "fill", "stroke", "borderTopColor", "borderLeftColor"];
  const hasGreen = (style) => names.some((name) => isGreen(style[name]));
  return [...document.querySelectorAll("main *, .link-state")]
    .filter((each) => each.getClientRects().length && each.getBoundingClientRect().top < most)
    .filter((each) => [null, "::before"].some((part) => hasGreen(getComputedStyle(each, part))))
    .map((each) => each.outerHTML.slice(0, 120));
}"""
PAINTED = """() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime"""


def remember(c: Circusd, *, disk: float | None = None) -> None:
    """Give the ledger 20 days in which web was down once, and the history a week of requests, busy by day.

    Args:
        disk: The bytes of its disk, which fills in the last hours.
    """
    config, now = load(c.ini), time.time()
    down = now - 40 * 3600
    events: list[tuple[str, dict[str, Any]]] = [
        *(("ready", {"time": now - 20 * DAY, "pid": pid}) for pid in (11, 12)),
        *(
            ("restart", {"time": down, "pid": pid, "cause": "out of memory", "reason": "ended for want of memory"})
            for pid in (11, 12)
        ),
        *(("ready", {"time": down + 240, "pid": pid}) for pid in (13, 14)),
    ]
    with contextlib.closing(LedgerStore(ledger_of(config))) as ledger:
        told = (
            (kind, {**data, "slot": 1 + data["pid"] % 2, "seq": f"1f-{at}"}) for at, (kind, data) in enumerate(events)
        )
        ledger.append([record_of("web", kind, data, now=now) for kind, data in told])
    give_history(config, now, disk=disk, is_down=lambda at: down < at < down + 240)


@contextlib.contextmanager
def watching(c: Circusd) -> Iterator[Watch]:
    """Look at the page of *c* with two browsers, while somebody sends a few requests where anything listens."""
    needs("chromium")
    listens = c.watchers["web"].listens
    with (
        Load(c.url, rate=5 if listens else 0.001, connections=2, timeout=2),
        chromium(opens=False, viewport=WIDE, color_scheme="light", reduced_motion="reduce") as one,
        chromium(viewport=PHONE, color_scheme="dark", reduced_motion="reduce", locale="zh-CN") as other,
    ):
        yield Watch(Visit(one, c).sign_in(), Visit(other, c).sign_in())


def press(visit: Visit, name: str) -> None:
    visit.page.locator(".headline").first.get_by_role("button", name=name).click()


@contextlib.contextmanager
def at_rest(visit: Visit, control: Locator, *expected: Locator) -> Iterator[None]:
    """Check that what the mouse is on stays under it, frame by frame, until what is *expected* is there."""
    box = control.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.evaluate(UNDER, [x, y])
    yield

    def is_there() -> bool:
        visit.page.mouse.move(x + time.time() % 2, y)  # a hand does not keep still
        return all(each.is_visible() for each in expected)

    eventually(is_there, timeout=PATIENCE, what="the trouble is shown")
    names = visit.page.evaluate("(window.isOver = true, window.under)")
    assert names == [control.evaluate("(node) => node.ariaLabel || node.textContent")]
    visit.page.mouse.move(0, 0)
    expect(visit.page.locator("html")).not_to_have_attribute("data-held", "")


def look_at_the_incident(visit: Visit) -> None:
    """Find the crashes folded into a line, which opens to its events, has an address, and is found by its words."""
    page = visit.page
    page.goto(f"{visit.url}/#timeline/local/web")
    incident = page.locator(".event-incident").first
    expect(incident).to_contain_text(re.compile(r"#1.* ended \d+ times in .* s(, last)?: .*code 1"))
    expect(incident.locator(".badge").first).to_have_text("open")
    expect(incident.locator("ol")).to_be_hidden()
    address = incident.locator(".moment").first.get_attribute("href")
    visit.picture("timeline-incident")

    page.goto(f"{visit.url}/#overview")
    page.goto(f"{visit.url}/{address}")
    expect(page.locator(".event-incident[data-wanted] ol .event").first).to_be_in_viewport()
    check_sound(page, "an open incident")
    one = page.locator(".event-incident ol .event .moment").first.get_attribute("href")
    page.goto(f"{visit.url}/#timeline/local/web")
    page.goto(f"{visit.url}/{one}")
    expect(page.locator(".event-incident ol .event[data-wanted]")).to_be_in_viewport()

    page.get_by_label("Search").fill("no such words")
    expect(page.locator("#timeline-empty")).to_be_visible()
    page.get_by_label("Search").fill("CODE 1")
    expect(page.locator(".event-incident").first).to_be_visible()
    page.get_by_label("Search").fill("")
    page.goto(f"{visit.url}/#overview")


def open_options(page: Page, place: Locator) -> None:
    """Open the options, again where circusd was too busy to answer."""

    def is_answered() -> bool:
        place.get_by_role("button", name="Options").click()
        expect(page.locator("#options-rows tr, #options-notice").locator("visible=true").first).to_be_visible()
        if page.locator("#options-rows tr").count():
            return True
        page.keyboard.press("Escape")
        return False

    eventually(is_answered, timeout=PATIENCE, what="circusd answers")


def look_at_the_options(visit: Visit) -> None:
    """Find circusd's load, the options of circusd and of a watcher with their places, and read the ini file anew."""
    page, dialog = visit.page, visit.page.get_by_role("dialog")
    facts = page.locator(".server-facts")
    expect(facts).to_contain_text(re.compile(r"CPU [\d.]+ % · \d+ MiB"))
    open_options(page, facts)
    expect(dialog).to_contain_text(re.compile(r"pubsub_endpoint.*circus\.ini:\d+"))
    check_sound(page, "the options")
    page.keyboard.press("Escape")
    visit.watcher().get_by_role("button", name="Open web").click()
    open_options(page, visit.watcher())
    expect(dialog).to_contain_text(re.compile(r"restart\.burst3circus\.ini:\d+"))
    page.keyboard.press("Escape")
    visit.watcher().get_by_role("button", name="Fold web").click()
    page.locator(".server-head .menu summary").click()
    page.get_by_role("button", name="Reload configuration").click()
    dialog.get_by_role("button", name="Reload configuration").click()
    expect(page.locator(".toast")).to_contain_text("circusd reads its ini file")
    page.locator(".toast").get_by_role("button").click()


def look_at_the_failed_reload(visit: Visit) -> None:
    """Find what the reload did, from which code to which, and what serves on; put away, it stays away."""
    panel = visit.watcher().locator(".reload")
    expect(panel).to_contain_text("The old code still serves: 2 of 2 workers are up.")
    expect(panel.locator("li[data-step=done]").first).to_contain_text("Preflight")
    expect(panel.locator("li[data-step=failed]")).to_contain_text(re.compile(r"#\d was not replaced"))
    assert visit.page.locator("main").inner_text().count("exited with code 1") == 1
    expect(panel.locator("pre")).to_contain_text("RuntimeError: told to die at import")
    for _ in ("in a page that saw it", "in one that is opened afterwards"):
        expect(panel.locator(".reload-head .mono")).to_contain_text(re.compile("files of .* → files of .*"))
        assert visit.complaints == []
        visit.page.reload()
        visit.live()
    check_sound(visit.page, "a failed reload")
    panel.get_by_role("button", name="Dismiss").click()
    expect(panel).to_be_hidden()
    visit.page.reload()
    visit.live()
    expect(visit.watcher()).to_contain_text("2 of 2 up")
    expect(panel).to_be_hidden()


def look_at_the_running_reload(visit: Visit) -> None:
    """Find the worker that is replaced now, those to come, and the reload before this one."""
    panel = visit.watcher().locator(".reload")
    expect(panel.locator("li[data-step=runs]")).to_contain_text(re.compile(r"#\d new worker \d+ starts"))
    expect(panel.locator("li[data-step=wait]")).to_contain_text("1 more to come")
    assert visit.page.evaluate(STEPS)[2:] == ["#1 PID 11 → 12", "#2 (PID 13)"]
    panel.get_by_text("Last reloads").click()
    expect(panel.locator(".reload-past li")).to_contain_text(re.compile("failed: 0 of 2 replaced.* · .*admin"))


def look_at_a_moment_of_the_small_curves(visit: Visit) -> None:
    """Find what all three had at one moment, by the pointer and by the keyboard."""
    pulse = visit.watcher().locator(".pulse")
    cross = pulse.locator(".pulse-part:not([hidden]) .chart-cross[d]")
    moment = re.compile(r"Requests per second · .*\d\d:\d\d:\d\d")  # perhaps one of the outage, without figures
    expect(pulse).to_contain_text(re.compile("Requests per second · 1 h.*/s"))
    pulse.locator(".sparkline").nth(1).hover()
    expect(cross).to_have_count(3)
    expect(pulse).to_contain_text(moment)
    visit.page.mouse.move(0, 0)
    expect(cross).to_have_count(0)
    slider = pulse.get_by_label("web: Moment")
    slider.press("ArrowLeft")
    expect(cross).to_have_count(3)
    expect(pulse).to_contain_text(moment)
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^\d.*, Requests per second .*, p95 "))
    slider.blur()
    expect(cross).to_have_count(0)


@pytest.mark.timeout(1800)  # two minutes alone, and over ten on a machine that does ten other things
def test_the_first_line_says_what_since_when_why_what_is_next_and_what_to_do(tmp_path: Path) -> None:
    """Given two workers, when they fail in each way, then the first line has it all, and nothing of it afterwards."""
    (tmp_path / "app.py").touch()
    os.utime(tmp_path / "app.py", (0, time.time() - 3600))
    with dashboard(tmp_path, [Watcher(options={**QUICK, **COOLS})], prepare=remember) as c:
        first, second = c.wait_ready()
        (tmp_path / "new.py").touch()
        with watching(c) as watch:
            watch.see_fine("1 backend, 2 workers", r"\d requests/s")
            watch.look("healthy", is_green=True)
            expect(watch.visits[0].watcher().locator(".pulse")).to_contain_text("Requests per second · 24 h")
            look_at_the_options(watch.visits[0])

            c.set("live", '503 {"checks": {"database": "no answer", "disk": "ok"}}')
            does = "restore what the live path depends on"
            watch.see(
                *(
                    "dependency",
                    "dependency",
                    "dependency down for .*: web, 2 of 2 up",
                    '503, "database: no answer"',
                    "Next: ",
                    does,
                ),
                chinese="依赖中断已持续.*：web，2/2 运行中",
                title="web: dependency down",
            )
            cells = watch.visits[0].watcher().locator(".beats rect")
            expect(cells.last).to_have_attribute("data-tone", "bad")
            expect(cells.last.locator("title")).to_contain_text("a dependency is down")
            c.set("live", "")
            watch.see_fine()

            c.set("boot", "die")
            watch.visits[0].watcher().get_by_role("button", name="Reload", exact=True).first.click()
            watch.see(
                *(
                    "reload-failed",
                    "reload_failed",
                    r"reload failed, begun .* ago, at \d.*: web, 0 replaced, the old code",
                ),
                *("Why: .*exit", "xboard-circus reload web"),
                chinese="重载失败（.*前开始）：web",
                title="web: reload failed",
            )
            look_at_the_failed_reload(watch.visits[0])

            c.set("boot", "held")
            c.do("xboard_reload", name="web")
            watch.see(
                *("reload-runs", "deploying", "deploying for .*: web, 2 of 2 up", "Why: reload: 0 of 2", "Next: "),
                chinese="部署中已持续.*：web，2/2 运行中",
                title="^xboard-circus",
                icon="/icon.svg",
            )
            look_at_the_running_reload(watch.visits[0])
            watch.keep("reload-runs")
            c.set("boot", "")
            watch.see_fine()

            assert c.run_cli("stop", "web").returncode == 0
            watch.see(
                *(
                    "stopped",
                    "nothing_serves",
                    "Nothing serves: web was stopped .* ago, at .*, by xboard-circus stop, user",
                ),
                "xboard-circus start web",
                chinese="没有任何服务：web 已停止.*前",
                title="web: stopped",
            )
            expect(watch.visits[0].watcher().locator(".pulse b").first).to_have_text(
                "–"
            )  # and not the rate of the last minutes
            press(watch.visits[0], "Start")
            watch.see_fine()
            c.set("boot", "die")

            first, second = c.wait_ready()
            visit = watch.visits[0]
            told = watch.line(visit).filter(has_text="cooling down")
            reload = visit.watcher().get_by_role("button", name="Reload", exact=True)
            with at_rest(visit, reload, told, visit.watcher().locator("tbody tr").first):
                kill(first)
            watch.see(
                *(
                    "one-cooling",
                    "degraded",
                    "degraded for .*: web, 1 of 2 up",
                    "Why: #.*: cooling down, after: .*code 1: .RuntimeError",
                    "is started again in",
                ),
                chinese="降级已持续.*：web，1/2 运行中",
                title="web: degraded",
                card="RuntimeError: told to die at import",
            )
            log = watch.line(visit).get_by_role("link", name="Log")
            with at_rest(visit, log, watch.line(visit).filter(has_text="DOWN")):
                kill(second)
            watch.see(
                *("all-cooling", "looping", "DOWN for .*: web, 0 of 2 up", "Every start fails: .*code 1: .Runtime"),
                *(r"Next: #. is started again in \d+ s", "then xboard-circus retry web"),
                chinese="中断已持续.*：web，0/2 运行中.*每次启动都失败",
                title="web: looping",
                card="RuntimeError: told to die at import",
            )
            expect(watch.line(watch.visits[0]).get_by_role("link", name="Log")).to_be_visible()

            visit = watch.visits[0]
            visit.page.get_by_label("Range").first.select_option("3600")
            down = visit.watcher().locator('.beats rect[data-tone="bad"]')
            title = re.compile(r"ended \d+ times in .*: exited with code 1")
            expect(down.filter(has_text=title).first).to_be_attached()
            shares = re.compile(r"[\d.]+ % up in 24 h · [\d.]+ % in 7 d · [\d.]+ % in 20 d")
            expect(visit.watcher().locator(".beats-line")).to_contain_text(shares)
            expect(visit.watcher().locator(".pulse")).to_contain_text("Requests per second · 1 h")
            expect(visit.watcher("plugin:xboard").locator(".beats-line")).to_be_hidden()

            look_at_the_incident(visit)

            c.set("boot", "")
            press(visit, "Try now")
            first, second = c.wait_ready()
            watch.see_fine("last trouble .* ago")
            curves = visit.watcher().locator(".pulse-part:not([hidden]) .chart-line")
            expect(curves).to_have_count(3)
            for curve in curves.all()[:2]:
                expect(curve).to_have_attribute("d", re.compile("^M"))
            look_at_a_moment_of_the_small_curves(visit)

            c.set("boot", "held")
            c.tell(first, "block 600")
            watch.see(
                *("hung", "degraded", "degraded for .*: web, 1 of 2 up", "Why: #.*hung"),
                chinese="降级已持续.*：web，1/2 运行中",
                title="web: degraded",
                card="Its stacks when it was ended",
            )
            c.set("boot", "")
            c.wait_ready()
            watch.see_fine()

            workers = c.wait_ready()
            c.kill9()
            watch.see(
                *("circusd-killed", "circusd_lost", "circusd is down for .*: nothing replaces a worker that ends"),
                *(rf"on :{c.watchers['web'].port} \(2 alive\)", "run xboard-circus start"),
                chinese="circusd 已停止",
                title="circusd down",
            )
            expect(visit.page.locator(".server > .notice")).to_be_hidden()
            expect(visit.page.locator(".server-age")).to_contain_text(re.compile(r"figures are \d+ s old"))
            expect(visit.page.locator("#link-state[data-link=lost]")).to_have_text("circusd does not answer")
            expect(visit.page.locator(".server-facts")).to_contain_text(re.compile(r"was pid \d+figures"))
            expect(visit.watcher().locator(".up-count")).to_have_text("2 of 2 were up")
            assert c.get() in map(str, workers)
            c.start_again()
            watch.see_fine("last trouble .* ago")
            visit.page.goto(f"{visit.url}/#timeline/local/web")
            over = visit.page.locator(".event-incident").filter(has_text="code 1").first
            expect(over).to_contain_text(re.compile(r"over.*lasted"))
            expect(visit.page.locator(".event-incident .badge[data-state=open]")).to_have_count(0)
            hang = visit.page.locator(".event-incident").filter(has_text=re.compile("ended.*: hung: "))
            expect(hang).to_have_count(1)
            expect(hang).to_contain_text(re.compile(r"over.*lasted \d"))
            hang.get_by_role("button", name="events").click()
            replaced = hang.locator("ol .event").filter(has_text=f"successor of pid {first}")
            expect(replaced).to_contain_text("came up")
            watch.check_titles()


def test_a_port_that_is_taken_a_full_disk_and_a_crash_loop_are_named_first(
    tmp_path: Path, small_disk: Callable[[str, str], Path]
) -> None:
    """Given a stranger on the port, no room for the log, or code that always crashes, then the first line says so."""
    log = small_disk("small", "20m") / "web.log"
    (log.parent / "taken").write_bytes(bytes(18 * 10**6))
    slowly = {"port.retry": 1, "restart.delay": 3, "restart.delay_max": 3}
    files = {"stdout_stream.filename": log, "stderr_stream.filename": log}
    watchers = [Watcher(options={**QUICK, **slowly, **files}), page_watcher({})]
    with (
        circusd(tmp_path, watchers=watchers, plugins=BUNDLE, start=False) as c,
        stranger(c.watchers["web"].port, tmp_path) as holder,
    ):
        remember(c, disk=2e7)
        assert f"pid {holder.pid}" in c.run_cli("start").stderr
        eventually(lambda: "ok" in c.get("/healthz", name=WATCHER), timeout=PATIENCE, what="the page is served")
        with watching(c) as watch:
            watch.see(
                *("port-taken", "blocked", "DOWN for .*: web, 0 of 2 up", f"held by pid {holder.pid}"),
                *("the port is tried again", f"Cure: kill {holder.pid}, or set another port"),
                chinese="中断已持续.*：web，0/2 运行中",
                title="web: port taken",
            )
            visit = watch.visits[0]
            expect(visit.watcher().locator(":is(.last, .incident):visible")).to_have_count(0)
            expect(visit.page.get_by_role("button", name="Try now")).to_have_count(0)
            expect(watch.line(visit).get_by_role("button", name="Copy")).to_be_visible()
            waiting = visit.watcher().locator(".reason", has_text="waits for the port")
            expect(waiting).to_have_text(["waits for the port"] * 2)
            kill(holder.pid)
            watch.see_fine()

            first, second = c.wait_ready()
            disk = visit.watcher().locator(".pulse-part:not([hidden])").nth(3)
            expect(disk).to_contain_text(f"Free on the disk of {log.parent} · 24 h")
            expect(disk).to_contain_text(re.compile(r"MiB less than \d+ min ago, full in \d+ min at this pace$"))
            filler = fill(log.parent)
            c.tell(first, f"print {'nobody reads this ' * 500}")
            watch.see(
                *("disk-full", "degraded", "degraded for .*: web, 2 of 2 up", "No space left on device: "),
                rf"[\d.]+ MiB of [\d.]+ MiB used on {re.escape(str(log.parent))}, 0 B free",
                "Next: the file is opened again",
                rf"Cure: du -xah {re.escape(str(log.parent))} \| sort -h \| tail shows what fills it",
                chinese="降级已持续.*：web，2/2 运行中",
                title="web: degraded",
            )
            expect(watch.line(visit).get_by_role("button", name="Copy")).to_be_visible()

            def is_full() -> bool:
                for span, name in (("21600", "6 h"), ("86400", "24 h")):  # asks at once, and not within 15 s
                    visit.page.get_by_label("Range").first.select_option(span)
                    expect(disk).to_contain_text(f" · {name}")
                return disk.locator("b").inner_text() == "0 MiB"

            eventually(is_full, every=1, timeout=PATIENCE, what="the page shows that nothing is free")
            expect(disk).to_contain_text(re.compile(r"\d+ MiB less than \d+ min ago$"))
            expect(disk.locator(".chart-line")).to_have_attribute("d", re.compile("^M"))
            watch.keep("disk-full")
            filler.unlink()
            c.tell(first, "print and this is written")
            watch.see_fine()
            expect(visit.watcher().locator(".pulse-part[data-tone=bad]")).to_have_count(0)

            c.set("boot", "die")
            kill(first)
            kill(second)
            watch.see(
                *(
                    "crash-loop",
                    "looping",
                    "DOWN for .*: web, 0 of 2 up",
                    "Every start fails: .*code 1: .RuntimeError: told to die at import",
                ),
                "Next: #. is (started again|starting, and is tried again if that fails too)",
                "then xboard-circus retry web",
                chinese="中断已持续.*：web，0/2 运行中.*每次启动都失败",
                title="web: looping",
                card="RuntimeError: told to die at import",
            )
            c.set("boot", "")
            watch.see_fine()
            watch.check_titles()
            visit.page.goto(f"{visit.url}/#timeline/local/web")
            folded = visit.page.locator(".event-incident")
            expect(folded.filter(has_text="code 1")).to_have_count(1)
            expect(folded.locator(".badge[data-state=open]")).to_have_count(0)
            for each in folded.all():
                expect(each).to_contain_text(re.compile(r"over.*lasted"))
            visit.page.get_by_role("button", name="Older").evaluate_all("all => all.forEach((each) => each.click())")
            open_incidents(visit.page)
            for words in ("is held by", "No space left on device"):
                expect(folded.locator("ol .event").filter(has_text=words)).to_have_count(1)
            assert [each.complaints for each in watch.visits] == [[], []]


def test_of_forty_workers_the_one_that_hangs_is_named_first(tmp_path: Path) -> None:
    """Given 40 workers of which one stands still, then the first line says so, and its row needs no scrolling."""
    command = f"{sys.executable} -I -S {HERE / 'fake_worker.py'} xboard_circus.worker"
    options = {**QUICK, "health.period": 1}
    many = Watcher(numprocesses=40, command=command, listens=False, options=options, env={"FAKE_LIGHT": "1"})
    with dashboard(tmp_path, [many], prepare=remember) as c:
        eventually(lambda: c.words() == ["up"] * 40, what="all are up")
        with watching(c) as watch:
            watch.see_fine("1 backend, 40 workers")
            watch.check_first_paint()
            c.set("boot", "held")
            kill(c.workers()[20], signal.SIGSTOP)
            watch.see(
                *("forty-workers", "degraded", "degraded for .*: web, 39 of 40 up", "Why: #.*hung"),
                chinese="降级已持续.*：web，39/40 运行中",
                title="web: degraded",
                card="Its stacks when it was ended",
            )
            card = watch.visits[0].watcher()
            expect(card.locator("tbody tr").first).to_be_in_viewport()
            card.get_by_role("button", name="Show 39 healthy workers").click()
            expect(card.locator("tbody tr:not([data-ended])")).to_have_count(40)
            c.set("boot", "")
            watch.see_fine("1 backend, 40 workers")
