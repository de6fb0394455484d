"""The page in a real browser, in front of a real circusd."""

# ruff: noqa: RUF001 - Chinese has marks of its own

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Route, expect

from xboard_circus.dashboard.settings import WATCHER

from .browsing import DESKTOP, PATIENCE, PHONE, QUICK, Visit, check_sound, chromium, dashboard, open_incidents, press
from .eavesdropper import eavesdropping
from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually
from .parts import needs

EVIL = "<img src=x onerror=window.hit=1>"


@pytest.fixture(autouse=True)
def _has_a_browser() -> None:
    needs("chromium")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    """One circusd for the tests that change nothing of it for good."""
    needs("chromium")
    watchers = [
        Watcher(options=QUICK),
        Watcher("cron", armed=False, listens=False, command="sleep 1000", numprocesses=1),
    ]
    with dashboard(tmp_path_factory.mktemp("shared"), watchers, options={"dashboard.allow_add": True}) as c:
        c.wait_ready(timeout=PATIENCE)
        yield c


@pytest.fixture
def visit(shared: Circusd) -> Iterator[Visit]:
    """An administrator's page, and no complaint of its console."""
    with chromium() as browser:
        visit = Visit(browser, shared).sign_in()
        yield visit
        assert visit.complaints == []


@contextlib.contextmanager
def visiting(c: Circusd, role: str = "admin", **context: Any) -> Iterator[Visit]:
    with chromium(**context) as browser:
        yield Visit(browser, c).sign_in(role)


def confirm(visit: Visit, name: str, typed: str = "") -> None:
    if typed:
        visit.page.get_by_label(f"Type {typed} to confirm").fill(typed)
    press(visit.page.get_by_role("dialog"), name)


def test_each_state_appears_as_workers_are_blocked_killed_and_healed(tmp_path: Path) -> None:
    """Given four workers / when they are blocked, sick, killed, crash, heal / then the page shows each state."""
    options = {**QUICK, "restart.burst": 6, "restart.delay": 5, "restart.delay_max": 30, "restart.window": 600}
    with dashboard(tmp_path, [Watcher(numprocesses=4, options=options)]) as c, visiting(c) as visit:
        full, sick, unready, hung = c.wait_ready(timeout=PATIENCE)
        for pid in (full, sick, unready, hung):
            visit.sees(pid, "up")

        c.set(f"ready.pid-{unready}", "503")
        visit.sees(unready, "not_ready")

        c.tell(full, "busy 40 20")
        visit.sees(full, "busy")
        expect(visit.row(full)).to_contain_text("40 of 40 threads busy")

        c.set("boot", "held")
        c.set(f"live.pid-{sick}", "503")
        visit.sees(sick, "sick")
        expect(visit.row(sick)).to_contain_text("live path failed")
        visit.picture("states-1")
        expect(visit.watcher().locator('.badge[data-state="starting"]')).to_be_visible()

        c.set("boot", "")
        eventually(lambda: sick not in c.workers(), what="the sick one is replaced")
        c.set("boot", "slow 3")
        c.tell(hung, "block 600")
        visit.sees(hung, "hung")
        expect(visit.row(hung)).to_contain_text("no answer")
        visit.picture("states-2")

        c.set(f"ready.pid-{unready}", "")
        visit.sees(unready, "up")
        visit.sees(full, "up")

        c.set("boot", "exit 3")
        os.kill(unready, signal.SIGKILL)
        # Its row says SIGKILL until the next worker of its slot is there, which is at once.
        expect(visit.watcher()).to_contain_text("killed from outside 1")
        held = visit.watcher().locator('tr:has(.badge[data-state="held"])')
        expect(held.first).to_contain_text("next try in", timeout=PATIENCE * 1000)
        visit.picture("states-3")

        c.set("boot", "")
        expect(visit.watcher().locator('tr:not([data-ended]) .badge[data-state="up"]')).to_have_count(
            4, timeout=PATIENCE * 1500
        )
        expect(visit.watcher()).to_contain_text("4 of 4 up")
        assert visit.complaints == []


def test_one_worker_is_reloaded_and_its_sibling_stays(visit: Visit, shared: Circusd) -> None:
    old, sibling = shared.wait_ready(timeout=PATIENCE)

    visit.row(old).get_by_role("button", name=re.compile("^Reload worker")).click()

    expect(visit.page.locator(".toast").filter(has_text=str(old))).to_be_visible()
    expect(visit.row(old)).to_have_count(0, timeout=PATIENCE * 2000)
    visit.sees(sibling, "up")
    assert sibling in shared.wait_ready(timeout=PATIENCE)


def test_a_kill_is_asked_first_and_escape_means_no(visit: Visit, shared: Circusd) -> None:
    victim, sibling = shared.wait_ready(timeout=PATIENCE)
    kill = re.compile("^Kill worker")

    press(visit.row(victim), kill)
    expect(visit.page.get_by_role("dialog")).to_contain_text(str(victim))
    visit.page.keyboard.press("Escape")
    expect(visit.page.get_by_role("dialog")).to_have_count(0)
    assert shared.workers() == [victim, sibling]

    press(visit.row(victim), kill)
    confirm(visit, "Kill")
    eventually(lambda: victim not in shared.workers(), timeout=PATIENCE)
    visit.sees(sibling, "up")
    shared.wait_ready(timeout=PATIENCE)


def test_a_reload_shows_its_progress_and_replaces_all(visit: Visit, shared: Circusd) -> None:
    before = shared.wait_ready(timeout=PATIENCE)
    shared.set("boot", "held")  # until the page has shown it

    press(visit.watcher().locator(".watcher-head"), "Reload")

    box = visit.watcher().locator(".reload")
    expect(box).to_contain_text(re.compile(r"Reloading: \d of 2 replaced"))
    shared.set("boot", "")
    expect(box).to_contain_text("Reloaded: 2 of 2 replaced", timeout=PATIENCE * 2000)
    assert not set(before) & set(shared.wait_ready(timeout=PATIENCE))


NOTE_STATES = """async () => {
  const { History } = await import(new URL("static/history.js", document.baseURI));
  const { add } = History.prototype;
  History.prototype.add = function (state) {
    add.call(this, state);
    window.heard = state.now;
    setTimeout(() => { window.shown = state.now; });
  };
}"""
STOP = """async () => {
  const { PROOF } = await import(new URL("static/session.js", document.baseURI));
  const body = JSON.stringify({ action: "stop", server: "local", watcher: "web" });
  return (await fetch("api/actions", { method: "POST", headers: PROOF, body })).status;
}"""


def test_a_process_is_added_and_removed_before_the_eyes_of_one_who_may_not(visit: Visit, shared: Circusd) -> None:
    """Given two operators at once, one of them read-only, when one adds a worker, then the next update of the other
    has it, with no button to do the same."""
    card = visit.watcher()
    with visiting(shared, role="reader") as other:
        for each in (visit, other):
            each.page.evaluate(NOTE_STATES)
        press(card, "Add a worker: web")
        expect(card).to_contain_text("3 of 3 up", timeout=PATIENCE * 1000)
        # Of two pages one may be some states behind.
        heard = visit.page.evaluate("window.heard")
        other.page.wait_for_function("(heard) => window.shown >= heard", arg=heard, timeout=PATIENCE * 1000)
        assert "3 of 3 up" in other.watcher().inner_text()
        expect(other.watcher().locator(":is(.actions, .row-actions, .stepper) button:visible")).to_have_text(
            ["Details"] * 3
        )
        assert other.page.evaluate(STOP) == 403

    visit.page.locator(".toast").get_by_role("button", name="Undo").click()

    expect(card).to_contain_text("2 of 2 up", timeout=PATIENCE * 1000)


def test_a_watcher_is_stopped_and_started(visit: Visit, shared: Circusd) -> None:
    card = visit.watcher("cron")
    press(card, "Stop")
    confirm(visit, "Stop")
    expect(card.locator('.badge[data-state="stopped"]')).to_be_visible(timeout=PATIENCE * 1000)
    eventually(lambda: shared.status("cron") == "stopped", what="it is stopped")

    press(card, "Start")

    expect(card.locator('.badge[data-state="ok"]')).to_be_visible(timeout=PATIENCE * 1000)
    expect(card).to_contain_text("1 of 1 up")


def test_all_are_stopped_and_started_but_the_page_itself(visit: Visit, shared: Circusd) -> None:
    section = visit.page.locator('.server[data-server="local"]')
    press(section, "Stop all")
    expect(visit.page.get_by_role("dialog").get_by_role("button", name="Stop all")).to_be_disabled()
    confirm(visit, "Stop all", typed="circus.ini")
    expect(visit.watcher().locator('.badge[data-state="stopped"]')).to_be_visible(timeout=PATIENCE * 1000)
    expect(visit.watcher("cron").locator('.badge[data-state="stopped"]')).to_be_visible(timeout=PATIENCE * 1000)
    visit.live()

    press(section, "Start all")
    confirm(visit, "Start all")

    expect(visit.watcher()).to_contain_text("2 of 2 up", timeout=PATIENCE * 1500)
    expect(visit.watcher("cron")).to_contain_text("1 of 1 up")


def test_a_refusal_is_shown_with_the_servers_words(visit: Visit, shared: Circusd) -> None:
    press(visit.page.locator(".server"), "Add a watcher")
    form = visit.page.get_by_role("dialog")
    form.get_by_label("Name").fill("cron")
    form.get_by_label("Command").fill("sleep 1000")
    form.get_by_role("button", name="Add and start").click()

    expect(form.get_by_role("alert")).to_contain_text("cron")
    visit.complaints.clear()  # Chromium notes each answer that is not 2xx


def test_a_watcher_is_added(visit: Visit, shared: Circusd) -> None:
    press(visit.page.locator(".server"), "Add a watcher")
    form = visit.page.get_by_role("dialog")
    form.get_by_label("Name").fill("extra")
    form.get_by_label("Command").fill("sleep 1000")
    form.get_by_role("button", name="Add and start").click()

    expect(visit.watcher("extra")).to_contain_text("1 of 1 up", timeout=PATIENCE * 1000)
    shared.do("rm", name="extra")
    expect(visit.watcher("extra")).to_have_count(0, timeout=PATIENCE * 1000)


def test_a_log_is_followed_paused_and_searched(visit: Visit, shared: Circusd) -> None:
    log = shared.folder / "logs" / "web.log"

    def write(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")

    write("the line before")
    visit.watcher().get_by_role("link", name="Logs").click()
    shown = visit.page.get_by_role("log")
    expect(shown).to_contain_text("the line before")
    write("one that comes while it is open")
    expect(shown).to_contain_text("one that comes while it is open")
    visit.picture("logs")

    press(visit.page.locator("#logs"), "Pause")
    write("one that has to wait")
    expect(visit.page.locator("#log-foot")).to_contain_text(re.compile(r"Paused; \d+ new lines wait"))
    expect(shown).not_to_contain_text("one that has to wait")
    press(visit.page.locator("#logs"), "Resume")
    expect(shown).to_contain_text("one that has to wait")

    visit.page.get_by_label("Only lines with").fill("HAS TO WAIT")
    expect(shown.locator(".line")).to_have_count(1)


HELD = """() => {
window.begun = new Promise((resolve) => { window.begin = resolve; });
const asked = window.fetch;
window.fetch = async (path, options) => {
  const response = await asked(path, options);
  if (!/logs.*stream/.test(path)) return response;
  window.answered = true;
  const held = new TransformStream({ start: () => window.begun });
  return new Response(response.body.pipeThrough(held), response);
};
}"""


def test_what_is_written_before_the_stream_of_a_log_begins_comes_once(visit: Visit, shared: Circusd) -> None:
    """Given an end of a log that was read, and a stream that has not begun, then lines between are neither lost nor
    shown twice."""
    log = shared.folder / "logs" / "web.log"
    visit.page.evaluate(HELD)
    visit.watcher().get_by_role("link", name="Logs").click()
    shown = visit.page.get_by_role("log")
    eventually(lambda: visit.page.evaluate("window.answered"), every=0.1)
    with log.open("a") as file:
        file.write("one that comes before it has begun\n")
    expect(shown.locator(".line").last).to_be_visible()
    visit.page.evaluate("window.begin()")

    expect(shown).to_contain_text("one that comes before it has begun")
    expect(shown.get_by_text("one that comes before it has begun")).to_have_count(1)


def test_a_log_keeps_a_bounded_number_of_lines_with_the_newest_at_the_end(visit: Visit, shared: Circusd) -> None:
    visit.watcher().get_by_role("link", name="Logs").click()
    shown = visit.page.get_by_role("log")
    expect(visit.page.locator("#log-foot")).to_contain_text("lines")
    expect(shown).to_have_attribute("data-following", "yes")
    with (shared.folder / "logs" / "web.log").open("a") as file:
        file.writelines(f"number {number}\n" for number in range(5000))

    expect(shown.locator(".line").last).to_have_text("number 4999", timeout=PATIENCE * 1000)
    expect(shown.locator(".line").last).to_be_in_viewport()
    assert shown.locator(".line").count() < 200  # those in view, and some beyond


def test_the_timeline_tells_what_happened_and_why(visit: Visit, shared: Circusd) -> None:
    victim = shared.wait_ready(timeout=PATIENCE)[0]
    visit.watcher().get_by_role("link", name="Timeline").click()
    expect(visit.page.locator("#timeline-watcher")).to_have_value("web")
    os.kill(victim, signal.SIGKILL)

    event = visit.page.locator('.event[data-kind="restart"]', has_text=str(victim)).first
    expect(event).to_contain_text("SIGKILL", timeout=PATIENCE * 1000)
    open_incidents(visit.page)
    event.get_by_role("button").click()
    expect(event.locator(".why")).to_contain_text("SIGKILL")
    expect(event.locator(".why")).to_contain_text("not circusd: the signal came from outside")
    for nothing in ("__proto__", "constructor/x", "%zz"):  # links by anybody: the view that is open stays
        visit.page.goto(f"{visit.url}/#{nothing}")
        expect(visit.page.locator("#timeline")).to_be_visible()
    visit.picture("timeline")

    kinds = """async () => (await import(new URL("static/timeline.js", document.baseURI))).kindOf"""
    planned, found = (
        {"kind": kind, "cause": cause} for kind, cause in (("restart", "commanded"), ("replace", "unhealthy"))
    )
    assert visit.page.evaluate(f"async (all) => all.map(await ({kinds})())", [planned, found]) == ["end", "replaced"]

    visit.page.locator("#timeline-kind").select_option("cooldown")
    expect(visit.page.locator('.event[data-kind="restart"]')).to_have_count(0)
    visit.page.locator("#timeline-kind").select_option("restart")
    visit.page.locator("#timeline-range").select_option("3600")
    visit.page.get_by_label("Search").fill("no such words")
    expect(visit.page.locator("#timeline-empty")).to_be_visible()
    visit.page.reload()
    expect(visit.page.locator("#timeline-empty")).to_be_visible()
    for name, value in {"kind": "restart", "range": "3600", "text": "no such words"}.items():
        expect(visit.page.locator(f"#timeline-{name}")).to_have_value(value)
    visit.page.get_by_label("Search").fill("SIGKILL")
    expect(visit.page.locator(".event", has_text="SIGKILL").first).to_be_visible()
    visit.page.goto(f"{visit.url}/#timeline/local/web/e999999999")
    expect(visit.page.locator("#timeline-notice")).to_contain_text("not among the newest 1,000 events")
    shared.wait_ready(timeout=PATIENCE)


def test_the_details_of_a_worker_have_curves_that_a_screen_reader_is_told_of(visit: Visit, shared: Circusd) -> None:
    pid = shared.wait_ready(timeout=PATIENCE)[0]
    visit.row(pid).get_by_role("button", name=re.compile("^Curves and details")).click()

    dialog = visit.page.get_by_role("dialog")
    expect(dialog.get_by_role("img", name=re.compile(r"Memory: now \d+ MiB, highest \d+ MiB"))).to_be_visible()
    expect(dialog.get_by_role("img", name=re.compile(r"CPU: now"))).to_be_visible()
    expect(dialog.get_by_role("img", name=re.compile(r"Probe latency: now .* ms"))).to_be_visible()
    visit.picture("details")


def test_the_history_has_curves_over_a_chosen_time(visit: Visit, shared: Circusd) -> None:
    shared.wait_ready(timeout=PATIENCE)
    visit.watcher().get_by_role("link", name="History").click()
    expect(visit.page.locator("#history-watcher")).to_have_value("web")

    curve = visit.page.locator("#history").get_by_role("img", name=re.compile(r"Memory: now \d+ MiB"))
    expect(curve).to_be_visible(timeout=PATIENCE * 1000)
    shared.get("/")
    expect(visit.page.get_by_role("img", name=re.compile(r"Latency, percentiles: now p50 .* ms"))).to_be_visible(
        timeout=PATIENCE * 1000
    )
    victim = shared.workers()[0]
    os.kill(victim, signal.SIGKILL)
    mark = visit.page.locator('#history-charts .chart-mark[data-mark="crash"][d]').last
    expect(mark).to_be_attached(timeout=PATIENCE * 1000)
    shared.wait_ready(timeout=PATIENCE)
    read_a_moment(visit)
    visit.picture("history")
    for hours in ("3600", "604800"):
        visit.page.locator("#history-range").select_option(hours)
        expect(visit.page.locator("#history-charts")).to_contain_text({"3600": "−1 h", "604800": "−7 d"}[hours])
    disk = visit.page.locator("#history").get_by_role("img", name=re.compile(r"Free disk space: now"))
    expect(disk).to_be_visible(timeout=(60 + PATIENCE) * 1000)  # of seven days one has a figure a minute
    visit.page.locator("#history-slot").select_option("2")
    expect(disk).to_be_hidden()
    visit.page.reload()
    expect(visit.page.locator("#history-slot")).to_have_value("2")
    expect(visit.page.locator("#history-range")).to_have_value("604800")
    visit.page.locator("#history-range").select_option("300")
    expect(curve).to_be_visible(timeout=PATIENCE * 1000)


def read_a_moment(visit: Visit) -> None:
    """Read what all charts have at the moment of a crash, by pointer and by keyboard."""
    said, charts = visit.page.locator("#history-said"), visit.page.locator("#history-charts")
    chart = charts.locator(".chart").last

    def points_at_it() -> bool:
        place = re.findall(r"M([\d.]+)", str(chart.locator('[data-mark="crash"]').get_attribute("d")))[-1]
        box = chart.bounding_box()
        assert box is not None
        visit.page.mouse.move(box["x"] + float(place) / 560 * box["width"], box["y"] + 40)
        expect(said).to_contain_text(re.compile(r"\d\d:\d\d:\d\d · .*crash: "), timeout=1000)
        return True

    eventually(points_at_it, what="the crash is read where its mark is, though the chart moves on")
    expect(charts.locator(".chart-cross[d]")).to_have_count(8)
    for reading in charts.locator(".reading").all()[-2:]:  # of memory, and of the disk
        expect(reading).to_contain_text(re.compile("[MG]iB"))
    visit.page.mouse.move(2, 2)
    expect(charts.locator(".chart-cross[d]")).to_have_count(0)
    visit.page.get_by_label("Moment", exact=True).press("ArrowLeft")
    expect(charts.locator(".chart-cross[d]")).to_have_count(8)
    expect(visit.page.get_by_label("Moment", exact=True)).to_have_attribute(
        "aria-valuetext", re.compile("Memory [0-9]+ MiB")
    )


# Each pair of a language, a theme and a width: axe takes ten seconds of CPU for the views of one.
@pytest.mark.parametrize(
    ("language", "theme", "width"),
    [("en", "light", PHONE), ("en", "dark", DESKTOP), ("zh-CN", "light", DESKTOP), ("zh-CN", "dark", PHONE)],
    ids=["en-light-375px", "en-dark-1280px", "zh-CN-light-1280px", "zh-CN-dark-375px"],
)
def test_every_view_is_sound(shared: Circusd, language: str, theme: Any, width: dict[str, Any]) -> None:
    """Given a language, theme and width / when each view is looked at / then axe finds nothing serious in any."""
    shared.wait_ready(timeout=PATIENCE)
    pid = shared.workers()[0]
    name = f"{language}-{theme}-{width['width']}"
    with chromium(locale=language, color_scheme=theme, viewport=width) as browser:
        visit = Visit(browser, shared)
        visit.page.goto(f"{visit.url}/login")
        look_at(visit, f"login-{name}")
        visit.sign_in()
        assert visit.page.locator("html").get_attribute("lang") == language
        expect(visit.row(pid)).to_contain_text({"en": "up", "zh-CN": "运行中"}[language])
        look_at(visit, f"overview-{name}")
        visit.row(pid).get_by_role("button").first.click()
        expect(visit.page.get_by_role("dialog")).to_be_visible()
        look_at(visit, f"details-{name}")
        visit.page.keyboard.press("Escape")
        for view in ("history", "timeline", "logs"):
            visit.page.goto(f"{visit.url}/#{view}/local/{'' if view == 'timeline' else 'web'}")
            expect(visit.page.locator(f"#{view} :is(.chart, .event, .line)").first).to_be_visible()
            look_at(visit, f"{view}-{name}")
        assert visit.complaints == []


def look_at(visit: Visit, name: str) -> None:
    """Keep a picture, and check that the page is sound."""
    visit.picture(name)
    check_sound(visit.page, name)


def test_language_and_theme_are_chosen_and_remembered(visit: Visit) -> None:
    html = visit.page.locator("html")
    visit.page.get_by_role("button", name="Light or dark").click()
    assert html.get_attribute("data-theme") == "dark"

    visit.page.get_by_label("Language").select_option("zh-CN")
    expect(visit.page.get_by_role("link", name="概览")).to_be_visible()
    assert html.get_attribute("data-theme") == "dark"

    visit.page.reload()
    expect(visit.page.get_by_role("link", name="概览")).to_be_visible()
    visit.live()
    assert html.get_attribute("lang") == "zh-CN"


def test_a_chinese_page_says_reasons_and_answers_in_chinese(shared: Circusd) -> None:
    """Given a page in Chinese / when a worker is killed and another replaced / then no place tells it in English."""
    victim, other = shared.wait_ready(timeout=PATIENCE)
    with visiting(shared, locale="zh-CN") as visit:
        visit.sees(victim, "up")
        os.kill(victim, signal.SIGKILL)

        killed = re.compile("被外部用 SIGKILL 终止")
        expect(visit.row(victim)).to_contain_text(killed, timeout=PATIENCE * 1000)
        expect(visit.watcher().locator(".last").first).to_contain_text("该工作进程的重启额度")
        shared.wait_ready(timeout=PATIENCE)
        visit.row(other).get_by_role("button", name=re.compile("^重载工作进程")).click()
        expect(visit.page.locator(".toast")).to_contain_text(f"正在重载 web 的工作进程 {other}，先启动新的")

        visit.page.goto(f"{visit.url}/#timeline/local/web")
        event = visit.page.locator('.event[data-kind="restart"]', has_text=str(victim)).first
        expect(event).to_contain_text(killed, timeout=PATIENCE * 1000)
        open_incidents(visit.page)
        event.get_by_role("button").click()
        expect(event.locator(".story-head")).to_contain_text(f"（PID {victim}）被外部终止")
        expect(event.locator(".story-facts")).to_contain_text("不是 circusd：信号来自外部")
        asked = visit.page.locator('.event[data-kind="replace"]', has_text=str(other)).first
        expect(asked).to_contain_text("要求者：控制台（管理员，127.0.0.1）", timeout=PATIENCE * 1000)

        visit.page.goto(f"{visit.url}/#logs/local/web")
        expect(visit.page.locator("#logs-file option:checked")).to_have_text("web 的 stderr，web 的 stdout")
        refused = visit.page.evaluate(
            """async () => { const { get } = await import("./static/api.js");
            return get("api/logs/nothing").catch((refused) => refused.message); }"""
        )
        assert refused == "没有这个日志"
    shared.wait_ready(timeout=PATIENCE)


def test_a_keyboard_is_enough(visit: Visit, shared: Circusd) -> None:
    """Given no mouse / when Tab and Enter are pressed / then the content, a question and its no are reached."""
    pid = shared.wait_ready(timeout=PATIENCE)[0]
    keyboard, focused = visit.page.keyboard, visit.page.locator(":focus")
    visit.page.locator("body").evaluate("body => body.focus()")
    keyboard.press("Tab")
    expect(focused).to_have_text("Skip to the content")
    expect(focused).to_be_in_viewport()
    keyboard.press("Enter")
    assert focused.get_attribute("id") == "main"

    kill, more = visit.row(pid).get_by_text("Kill …"), visit.row(pid).locator("summary")
    for _ in range(40):
        keyboard.press("Tab")
        if more.evaluate("each => each === document.activeElement"):
            keyboard.press("Enter")
        if kill.evaluate("button => button === document.activeElement"):
            break
    outline = focused.evaluate("each => getComputedStyle(each).outlineStyle")
    assert (focused.text_content(), outline) == ("Kill …", "solid")
    keyboard.press("Enter")
    expect(focused).to_have_text("Cancel")
    keyboard.press("Enter")
    expect(visit.page.get_by_role("dialog")).to_have_count(0)
    expect(more).to_be_focused()


def test_a_screen_reader_is_told_of_an_end_and_of_the_new_worker(visit: Visit, shared: Circusd) -> None:
    victim, sibling = shared.wait_ready(timeout=PATIENCE)
    visit.sees(victim, "up")
    visit.page.evaluate(
        """() => { window.told = []; const node = document.getElementById("announcer");
        new MutationObserver(() => window.told.push(node.textContent)).observe(node, {childList: true}); }"""
    )

    os.kill(victim, signal.SIGKILL)

    new = eventually(lambda: set(shared.wait_ready(timeout=PATIENCE)) - {victim, sibling}, timeout=PATIENCE)

    def told() -> bool:
        text = " ".join(visit.page.evaluate("window.told"))
        return f"(PID {victim}) has ended" in text and any(f"(PID {pid}) is up" in text for pid in new)

    eventually(told, timeout=PATIENCE, every=0.2)


ROWS = """() => [...document.querySelectorAll(".top > *")].map((each) => each.getBoundingClientRect())
  .filter(({ height }) => height).sort((a, b) => a.top - b.top)
  .reduce(([rows, end], { top, bottom }) => [rows + (top >= end), Math.max(end, bottom)], [0, 0])[0]"""


def test_a_reader_sees_everything_and_can_change_nothing(shared: Circusd) -> None:
    shared.wait_ready(timeout=PATIENCE)
    with visiting(shared, role="reader") as visit:
        expect(visit.page.get_by_text("Read only")).to_be_visible()
        expect(visit.page.locator(".watcher")).to_have_count(4)
        names = visit.page.locator("main").get_by_role("button").all_inner_texts()

        assert {name for name in names if name} == {"Details", "Fold the healthy", "Options"}
        visit.picture("reader")
        visit.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        assert visit.page.evaluate(ROWS) == 2
        look_at(visit, "reader-375")
        assert visit.complaints == []


def test_scripts_from_outside_are_shown_as_text(tmp_path: Path) -> None:
    """Given markup in a watcher's name, a log line and a probe's body / when shown / then as text, all three."""
    sneaky = Watcher(EVIL, armed=False, listens=False, command="sleep 1000", numprocesses=1)
    web = Watcher(options={**QUICK, "health.max_unavailable": 1}, told={"live.wid-1": f"503 {EVIL}"})
    with dashboard(tmp_path, [web, sneaky]) as c:
        with (c.folder / "logs" / "web.log").open("a") as log:
            log.write(f"{EVIL}</div><script>window.hit=1</script>\n")
        with visiting(c) as visit:
            expect(visit.page.get_by_role("heading", name=EVIL)).to_be_visible()
            pid = c.wait_ready(1, timeout=PATIENCE)[0]
            c.set(f"live.pid-{pid}", f"503 {EVIL}")
            expect(visit.watcher()).to_contain_text("live path failed", timeout=PATIENCE * 1000)
            visit.watcher().get_by_role("link", name="Logs").click()
            expect(visit.page.get_by_role("log")).to_contain_text(f"{EVIL}</div><script>window.hit=1</script>")
            visit.page.goto(f"{visit.url}/#timeline")
            expect(visit.page.locator(".event").first).to_be_visible()
            # In one step: an event that comes meanwhile would move them all.
            buttons = visit.page.locator(".event").get_by_role("button")
            buttons.evaluate_all("(all) => all.slice(0, 5).forEach((each) => each.click())")

            visit.page.wait_for_timeout(300)  # what would run, runs at once
            assert visit.page.evaluate("window.hit") is None
            assert visit.page.locator('img[src="x"]').count() == 0
            assert visit.complaints == []


def test_a_card_says_why_its_workers_are_not_forked(tmp_path: Path) -> None:
    web = Watcher(options={**QUICK, "worker.preload": "server", "worker.preload_modules": "no_such_module"})
    with dashboard(tmp_path, [web]) as c, visiting(c) as visit:
        os.kill(c.wait_ready(timeout=PATIENCE)[0], signal.SIGKILL)
        why = visit.watcher().get_by_text(re.compile('^no worker is forked: "worker.preload_modules: no_such_module'))
        expect(why).to_be_visible(timeout=PATIENCE * 1000)


def test_figures_turn_grey_with_their_age_while_circusd_is_silent_and_live_again_by_themselves(tmp_path: Path) -> None:
    watcher = Watcher(options={**QUICK, "restart.burst": 1, "restart.cooldown": 600})
    with dashboard(tmp_path, [watcher]) as c, visiting(c) as visit:
        pid, held = c.wait_ready(timeout=PATIENCE)
        visit.sees(pid, "up")
        c.set("boot", "die")
        os.kill(held, signal.SIGKILL)
        countdown = visit.watcher().locator(".next-try", has_text="next try")
        expect(countdown).to_be_visible()
        section = visit.page.locator('.server[data-server="local"]')
        green = section.locator('.badge[data-tone="good"]')

        def colour() -> object:
            return section.locator(".workers td").nth(1).evaluate("(cell) => getComputedStyle(cell).color")

        fresh = colour()
        os.kill(c.pid, signal.SIGSTOP)
        try:
            expect(section.locator(".notice")).to_contain_text(
                re.compile(r"figures are \d+ s old"), timeout=PATIENCE * 1000
            )
            expect(green).to_have_count(0)
            expect(visit.row(pid)).to_contain_text("was up")
            expect(countdown).to_have_count(0)  # nobody tries it then
            assert colour() != fresh
            expect(visit.watcher().get_by_role("button", name="Reload", exact=True)).to_be_disabled()
            for button in visit.row(pid).get_by_role("button").all()[1:]:
                expect(button).to_be_disabled()
            visit.picture("silent")
        finally:
            os.kill(c.pid, signal.SIGCONT)

        visit.sees(pid, "up")
        expect(green.first).to_be_visible()
        expect(section.locator(".notice")).to_be_hidden()


def test_the_stream_comes_back_by_itself_when_the_dashboard_is_restarted(tmp_path: Path) -> None:
    # Probed so seldom, the stopped one is not replaced before the page has noticed.
    with dashboard(tmp_path, options={"health.period": 600}) as c, visiting(c) as visit:
        c.wait_ready(timeout=PATIENCE)
        visit.page.evaluate("window.same = 1")
        os.kill(c.workers(WATCHER)[0], signal.SIGSTOP)
        expect(visit.page.locator("#link-state[data-link=lost]")).to_contain_text(
            "last update", timeout=PATIENCE * 1000
        )
        os.kill(c.workers(WATCHER)[0], signal.SIGKILL)

        visit.live()

        assert visit.page.evaluate("window.same") == 1


def test_it_works_below_a_path_prefix(tmp_path: Path) -> None:
    with dashboard(tmp_path, options={"dashboard.root_path": "/ops/backend"}) as c, chromium() as browser:
        pids = c.wait_ready(timeout=PATIENCE)
        visit = Visit(browser, c, url=f"{c.url_of(WATCHER)}/ops/backend").sign_in()
        visit.row(pids[0]).get_by_role("button", name=re.compile("^Reload worker")).click()

        expect(visit.row(pids[0])).to_have_count(0, timeout=PATIENCE * 2000)
        visit.page.get_by_role("button", name="Sign out").click()
        visit.page.wait_for_url(f"{visit.url}/login")
        assert visit.complaints == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_another_port_of_this_host_hears_opens_nothing(shared: Circusd, visit: Visit, host: str) -> None:
    """Given an administrator who is signed in, when another port of the host is visited, then nothing there opens the
    page: a cookie knows no port, and went to all of them."""
    page = shared.url_of(WATCHER).replace("127.0.0.1", host)
    visit.url = page
    visit.sign_in()
    with eavesdropping(page) as ear:
        visit.page.goto(f"http://{host}:{ear.port}/")
        visit.page.wait_for_function("document.title === 'over'")
        visit.complaints.clear()  # the browser's own words on what it refused the other port

        assert "Failed to fetch" in ear.heard
        assert ear.gets_in(shared.watchers[WATCHER].port) == []
    visit.page.goto(f"{page}/#logs/local/web")  # still signed in, in a page of its own address
    expect(visit.page.locator("#log[data-following]")).to_be_visible()


def test_another_circusd_is_added_steered_and_removed(shared: Circusd, visit: Visit, tmp_path: Path) -> None:
    quick = Watcher("other", numprocesses=1, options=FAST_RESTARTS)
    (tmp_path / "second").mkdir()
    with circusd(tmp_path / "second", watchers=[quick]) as second:
        second.wait_ready(name="other", timeout=PATIENCE)
        visit.page.get_by_role("button", name="Add a circusd").click()
        form = visit.page.get_by_role("dialog")
        form.get_by_label("Endpoint").fill(second.endpoint)
        form.get_by_label("Name on this page").fill("the other one")
        form.get_by_role("button", name="Add", exact=True).click()

        section = visit.page.locator(".server", has=visit.page.get_by_role("heading", name="the other one"))
        expect(section).to_contain_text("1 of 1", timeout=PATIENCE * 1000)
        press(section.locator('.watcher[data-watcher="other"]'), "Stop")
        confirm(visit, "Stop")
        eventually(lambda: second.status("other") == "stopped", timeout=PATIENCE)
        visit.picture("two-circusds")

        press(section, "Remove from this page")
        confirm(visit, "Remove from this page")
        expect(section).to_have_count(0, timeout=PATIENCE * 1000)
        expect(visit.watcher()).to_be_visible()


def test_a_wrong_token_is_told_and_an_ended_session_leads_to_the_sign_in(shared: Circusd) -> None:
    with chromium() as browser:
        visit = Visit(browser, shared)
        visit.page.goto(f"{visit.url}/login")
        visit.page.get_by_label("Token").fill("wrong")
        visit.page.get_by_role("button", name="Sign in").click()
        expect(visit.page.get_by_role("alert")).to_have_text("This token is wrong.")

        visit.sign_in()
        session = "Object.entries(localStorage).find(([key]) => key.startsWith('xboard_session'))[1]"
        post = f"fetch('logout', {{method: 'POST', headers: {{Authorization: 'Bearer ' + {session}}}}})"
        # At once: the page may notice by itself, and is then another, without that link.
        leave = f"() => {post}.then(() => {{ document.querySelector('[data-view=logs]').click(); }})"
        visit.page.evaluate(leave)
        expect(visit.page.get_by_role("alert")).to_have_text("Your session has ended. Sign in again.")
        expect(visit.page.locator("#command")).to_have_text("xboard-circus dashboard --no-open")
        expect(visit.page.locator("#sign-in")).to_contain_text("on the machine where circusd runs")

        visit.sign_in("reader")
        visit.page.evaluate(leave)
        expect(visit.page.locator("#command")).to_have_text("xboard-circus dashboard --read-only --no-open")


@pytest.mark.parametrize("lost", [("feed.js",), ("page.css", "main.js", "dom.js")], ids=", ".join)
def test_a_page_whose_files_did_not_come_loads_itself_again(shared: Circusd, lost: tuple[str, ...]) -> None:
    """Given files that are cut off once, as when the dashboard dies, when the page is loaded, then it is whole soon."""
    with chromium() as browser:
        visit = Visit(browser, shared).sign_in()
        left = {"boot.js", *lost}

        def cut_once(route: Route) -> None:
            name = route.request.url.rpartition("/")[2]
            if name in left:
                left.discard(name)
                route.abort("connectionreset")
            else:
                route.continue_()

        visit.page.route("**/static/*", cut_once)
        visit.page.reload()

        visit.live()
        visit.page.wait_for_function(
            "[...document.querySelectorAll('link[rel=stylesheet]')].every((link) => link.sheet)"
        )

    assert left == {"boot.js"}, "the script that mends it is no file"
