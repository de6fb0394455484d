"""What the page shows of a verdict: a real Chromium, and a circusd whose answers are made up."""

import contextlib
import json
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from fake_circusd import FakeCircusd, always
from playwright.sync_api import Locator, Page, Route, expect

from xboard_circus.config import load
from xboard_circus.dashboard.settings import of_config
from xboard_circus.dashboard.tokens import load_or_make
from xboard_circus.ledger import LedgerStore
from xboard_circus.ledger.location import ledger_of
from xboard_circus.ledger.record import record_of

from .browsing import check_sound, chromium, keep_picture, press
from .harness import crowding, eventually
from .parts import needs
from .visitor import served, state, watcher, worker

INI = """\
[circus]
endpoint = {endpoint}

[watcher:web]
cmd = sleep 1000
stdout_stream.class = FileStream
stdout_stream.filename = web.log

[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
"""
OK: dict[str, Any] = {"status": "ok"}


def verdict(word: str, **changes: Any) -> dict[str, Any]:
    empty = {"since": 1.0, "cause": "", "cause_say": None, "next": "", "next_say": None, "next_in": None}
    return {"word": word, **empty, "cure": "", "cure_say": None, **changes}


def slot(number: int, phase: str = "up", **changes: Any) -> dict[str, Any]:
    """A worker in a slot."""
    if phase != "up":
        changes = {"health": "unknown", "ready": None, "ready_for": None, "latency": None, **changes}
    return worker(4_000_100 + number, slot=number, wid=number, phase=phase, **changes)


def backend(word: str, *workers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A watcher with a verdict; what is neither well nor wanted so is an incident of two minutes."""
    own = {key: changes.pop(key) for key in ("cause", "next", "next_in", "cure") if key in changes}
    is_well = word in ("ok", "deploying", "stopped")
    incident, since = (None, 1.0) if is_well else ({"age": 125.0, "worst": word}, 125.0)
    name = changes.pop("name", "web")
    told = {"numprocesses": len(workers), "verdict": verdict(word, since=since, **own), "incident": incident, **changes}
    return watcher(name, *workers, **told)


def held(number: int, by: str = "cooldown", next_try: float = 42.0) -> dict[str, Any]:
    return slot(number, "held", held_by=by, next_try=next_try, reason="cooling down, next try in 42 s")


WELL = backend("ok", slot(1), slot(2))
COOLING = backend(
    "looping",
    held(1),
    held(2, next_try=80.0),
    cause="none of 2 is up: exited with code 3",
    next="#1 is started again",
    next_in=42.0,
    cure="read the end of its log: `xboard-circus logs web`",
    budget={"used": 5, "limit": 5},
    ends={"crash": 4, "commanded": 1},
)
TAKEN = backend(
    "blocked",
    held(1, "port", 2.0),
    held(2, "port", 2.0),
    cause="port 8000: held by pid 812 (nginx)",
    next="the port is tried again",
    next_in=2.0,
    cure="stop what holds it, or set another port",
    port={"host": "127.0.0.1", "port": 8000, "state": "refused", "reason": "held by pid 812 (nginx)"},
)
TROUBLED = {
    "0 of 2 up": (backend("down", slot(1, "starting"), slot(2, "starting")), "down", "bad"),
    "all cooling down": (COOLING, "looping", "bad"),
    "port taken": (TAKEN, "port taken", "bad"),
    "dependency down": (
        backend("dependency", slot(1, health="sick"), slot(2, health="sick")),
        "dependency down",
        "bad",
    ),
    "one hung": (backend("degraded", slot(1, health="hung"), slot(2)), "degraded", "warn"),
}


@dataclass
class Stage:
    """A page, and the state that its circusd answers."""

    page: Page
    circusd: FakeCircusd
    folder: Path
    url: str
    token: str
    state: dict[str, Any] = field(default_factory=lambda: state(WELL))

    def show(self, *watchers: dict[str, Any]) -> None:
        self.state = state(*watchers)

    def watcher(self, name: str = "web") -> Locator:
        return self.page.locator(f'.watcher[data-watcher="{name}"]')

    def row(self, number: int) -> Locator:
        return self.watcher().locator(f'tr[data-slot="{number}"]')

    def picture(self, name: str) -> None:
        keep_picture(self.page, name)


@contextlib.contextmanager
def staged(folder: Path, role: str = "admin", **context: Any) -> Iterator[Stage]:
    """Serve a dashboard before a circusd whose answers are made up, and open it."""
    needs("chromium")
    stage: list[Stage] = []
    answers = {
        "xboard_state": lambda asked: stage[0].state if stage else state(WELL),
        "listsockets": always({"sockets": []}),
    }
    orders = ("kill", "stop", "restart", "xboard_retry", "xboard_replace", "xboard_reload")
    with FakeCircusd({**answers, "stats": always({"infos": {}}), **dict.fromkeys(orders, always(OK))}) as fake:
        (folder / "circus.ini").write_text(INI.format(endpoint=fake.endpoint))
        (folder / "web.log").write_text("the line before\n")
        with served(of_config(load(folder / "circus.ini"))) as visitor, chromium(**context) as browser:
            url = f"http://127.0.0.1:{visitor.port}"
            tokens = load_or_make(folder)
            token = tokens.admin if role == "admin" else tokens.reader
            stage.append(Stage(browser.pages[0], fake, folder, url, token))
            stage[0].page.goto(f"{url}/login#token={token}")
            stage[0].page.wait_for_url(f"{url}/")
            expect(stage[0].watcher()).to_be_visible()
            yield stage[0]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


TAB = """([title, icon]) =>
  document.title === title && document.getElementById("icon").getAttribute("href").endsWith(icon)"""


def test_title_icon_and_colour_follow_the_verdict_and_go_back_with_it(stage: Stage) -> None:
    """Given a watcher that Circus calls active, when it is in trouble, then tab and card show it until it is well."""
    expect(stage.page).to_have_title("xboard-circus")
    late = []

    def show(shown: dict[str, Any], *tab: str) -> None:
        began = time.monotonic()
        stage.show(shown)
        stage.page.wait_for_function(TAB, arg=tab)
        late.append(time.monotonic() - began)

    for shown, words, tone in TROUBLED.values():
        show(shown, f"web: {words} · xboard-circus", f"static/icon-{tone}.svg")

        badge = stage.watcher().locator(".watcher-title .badge")
        expect(badge).to_have_text(words)
        expect(badge).to_have_attribute("data-tone", tone)
        expect(stage.watcher().locator(".watcher-title .badge[data-tone=good]")).to_have_count(0)
        since = re.compile(r"for 2 min \d+ s, since (\d+ \w+ )?\d\d:\d\d:\d\d: web, ")
        expect(stage.page.locator(".headline strong")).to_contain_text(since)
        expect(stage.watcher().locator(".pulse")).to_be_visible()

        show(WELL, "xboard-circus", "static/icon.svg")

        expect(stage.page.locator(".headline[data-verdict=ok]")).to_be_visible()
    assert statistics.median(late) < 2 * crowding()  # seconds, from circusd's word to the tab's


NOTIFICATIONS = """
  window.told = [];
  window.Notification = class {
    static permission = localStorage.getItem("test_permission") ?? "default";
    static async requestPermission() {
      localStorage.setItem("test_permission", "granted");
      return (this.permission = "granted");
    }
    constructor(title, { body, tag }) { window.told.push([title, body, tag]); }
  };
"""


def test_a_change_of_verdict_is_notified_to_who_has_asked_for_it(stage: Stage) -> None:
    """Given a browser, then it shows nothing before its button was pressed, and remembers that it was."""
    stage.page.add_init_script(NOTIFICATIONS)
    stage.page.reload()
    button = stage.page.get_by_role("button", name="Notify me")

    def told() -> list[list[str]]:
        found: list[list[str]] = stage.page.evaluate("told")
        return found

    expect(button).to_have_attribute("aria-pressed", "false")
    stage.show(COOLING)
    expect(stage.page).to_have_title("web: looping · xboard-circus")
    assert told() == []

    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    stage.show(WELL)
    eventually(lambda: told() == [["web is fine again", "", "local/web"]], what="the end is notified")

    stage.page.reload()
    expect(stage.watcher()).to_be_visible()
    stage.show(COOLING)
    eventually(told, what="the trouble is notified, by a page that was opened anew")
    ((title, body, _),) = told()
    assert re.fullmatch(r"DOWN for 2 min \d+ s, since .*: web, 0 of 2 up", title)
    assert "exited with code 3" in body

    button.click()
    stage.show(WELL)
    expect(stage.page).to_have_title("xboard-circus")
    assert len(told()) == 1


def test_an_incident_is_told_once_with_a_live_countdown_and_the_card_adds_what_the_line_has_not(stage: Stage) -> None:
    """Given a trouble, then the first line has it, and the card how bad it was and the last words of its worker, once
    the ledger has them; a trouble that is not among the first is told by its card."""
    stage.show(COOLING)
    first, card = stage.page.locator(".headline").first, stage.watcher().locator(".incident")
    expect(first).to_contain_text("exited with code 3")
    expect(first).to_contain_text("read the end of its log")
    expect(first).to_contain_text(re.compile(r"#1 is started again in \d+ s"))
    expect(card).to_be_hidden()

    store = LedgerStore(ledger_of(load(stage.folder / "circus.ini")))
    died = {"time": time.time() - 100, "pid": 9, "cause": "crash", "slot": 1, "reason": "exited with code 3"}
    lines = "\n".join(f"frame {number}" for number in range(30))
    store.append([record_of("web", "restart", {**died, "log": f"{lines}\nKeyError: 'DATABASE_URL'"}, now=time.time())])
    store.close()
    worse = {"incident": {"age": 125.0, "worst": "down"}, "last_reason": "exited with code 3", "last_reason_age": 1.0}
    stage.show({**COOLING, **worse})
    expect(card).to_contain_text("at worst: down")
    expect(card.locator("pre")).to_have_text(re.compile(r"^frame \d+\n(frame \d+\n){6}KeyError: 'DATABASE_URL'\n$"))
    expect(card).not_to_contain_text("read the end of its log")

    stage.circusd.answers["xboard_state"] = lambda asked: None  # nothing new comes in: the page counts on by itself
    said = first.inner_text()
    eventually(lambda: first.inner_text() != said, what="the countdown goes on")

    stage.circusd.answers["xboard_state"] = lambda asked: stage.state
    stage.show(*({**COOLING, "name": name} for name in "abcde"))
    expect(stage.page.locator(".headline")).to_have_count(4)
    expect(stage.page.locator(".incident", has_text="exited with code 3. Next: ")).to_have_count(1)


def test_since_when_is_in_the_time_of_the_reader(tmp_path: Path) -> None:
    with staged(tmp_path, timezone_id="Asia/Kathmandu") as stage:  # 5:45 from UTC, as no host of ours is
        stage.show(COOLING)
        began = time.time() + 5.75 * 3600 - 125
        minutes = "|".join(time.strftime("%H:%M", time.gmtime(began + late)) for late in (-10, 50))
        expect(stage.page.locator(".headline strong")).to_contain_text(
            re.compile(rf"since (\w+ \d+,? )?({minutes}):\d\d:")
        )


def test_several_in_trouble_are_counted_and_come_first_the_worst_before_the_others(stage: Stage) -> None:
    stage.show(
        backend("ok", slot(1), name="a"),
        backend("degraded", slot(1), slot(2, "starting"), name="b"),
        backend("down", slot(1, "starting"), name="c"),
    )

    expect(stage.page).to_have_title("2 in trouble · xboard-circus")
    expect(stage.page.locator(".watcher h3")).to_have_text(["c", "b", "a"])


def test_a_button_of_the_first_lines_stays_under_the_pointer(stage: Stage) -> None:
    """Given the pointer on a line, when a worse one comes, another ends and its own words grow, then nothing moves;
    when its own trouble ends, then no button of another comes in its place."""
    first, last = (backend("degraded", slot(1), slot(2, "starting"), name=name) for name in ("first", "last"))
    worse = backend("down", slot(1, "starting"), name="worse")
    stage.show(first, last)
    lines = stage.page.locator(".headline")
    log = lines.filter(has_text="last, 1 of 2 up").get_by_role("link", name="Log")
    log.hover()
    place = log.bounding_box()

    stage.show(first, last, worse)
    expect(lines).to_have_count(3)
    assert log.bounding_box() == place
    stage.show(backend("ok", slot(1), name="first"), last, worse)
    expect(lines.first).to_contain_text("first is fine again")
    assert log.bounding_box() == place
    stage.show(backend("degraded", slot(1), slot(2, "starting"), name="last", cure="read " * 100), worse)
    expect(lines.nth(1)).to_contain_text("read read")
    assert log.bounding_box() == place
    stage.show(worse)
    expect(lines.nth(1)).to_contain_text("last is fine again")
    assert place is not None
    under = "([x, y]) => document.elementFromPoint(x, y).closest('button, a')"
    assert stage.page.evaluate(under, [place["x"] + 9, place["y"] + 9]) is None

    stage.page.mouse.move(0, 0)
    expect(lines).to_have_count(1)


def test_a_held_worker_offers_retry_and_one_that_is_up_reload(stage: Stage) -> None:
    waiting = [held(5, "port"), held(6, "before")]  # it would fail at once for as long as what holds it is there
    stage.show(backend("degraded", slot(2), slot(3, "leaving"), slot(4, "starting"), *waiting, held(1)))

    def offered(number: int) -> list[str]:
        return stage.row(number).get_by_role("button").all_inner_texts()

    expect(stage.row(1)).to_contain_text("cooling down")
    places = stage.watcher().locator("tbody th").all_inner_texts()
    assert places == [f"#{number}" for number in range(1, 7)]  # circusd lists a slot that holds its worker last
    assert [offered(number) for number in range(1, 7)] == [
        ["Details", "Try now"],
        ["Details", "Reload one"],
        *[["Details"]] * 4,
    ]
    behind = [stage.row(number).locator(".menu:visible").all_inner_texts() for number in (1, 2, 3, 4)]
    assert [len(each) for each in behind] == [0, 1, 0, 1]

    stage.row(1).get_by_role("button", name="Retry #1").click()

    expect(stage.page.locator(".toast")).to_contain_text("#1 of web")
    (order,) = [each["properties"] for each in stage.circusd.asked if each["command"] == "xboard_retry"]
    assert (order["name"], order["slot"]) == ("web", 1)
    assert "kill" not in stage.circusd.commands()


def test_what_takes_healthy_workers_down_says_so_first(stage: Stage) -> None:
    stage.show(backend("degraded", held(1), slot(2), slot(3)))
    expect(stage.row(1)).to_contain_text("cooling down")
    dialog = stage.page.get_by_role("dialog")
    steps: list[tuple[Locator, str | re.Pattern[str], str]] = [
        (stage.watcher(), "Restart", "2 of 3 are healthy"),
        (stage.watcher(), "Stop", "2 of 3 are healthy and go down too"),
        (stage.row(2), re.compile("^Kill"), "1 of 3 workers serve until its successor is up"),
        (stage.page.locator(".server"), "Restart all", "no request is lost; 2 are healthy"),
    ]
    for place, name, sentence in steps:
        press(place, name)
        expect(dialog).to_contain_text(sentence)
        stage.page.keyboard.press("Escape")
    assert not {"stop", "restart", "kill"} & set(stage.circusd.commands())


def test_a_worker_has_one_condition(stage: Stage) -> None:
    """Given a worker that is up and not ready, then the page says just that; of one that hangs, that it hangs."""
    stage.show(backend("degraded", slot(1, ready=False), slot(2, ready=False, health="hung"), slot(3, health="busy")))

    expect(stage.row(1).locator(".badge")).to_have_text(["not ready"])
    expect(stage.row(2).locator(".badge")).to_have_text(["hung"])
    expect(stage.row(3).locator(".badge")).to_have_text(["busy"])
    expect(stage.watcher()).to_contain_text("2 of 3 up")


def test_a_worker_that_was_ended_for_hanging_is_shown_as_hung_for_a_while(stage: Stage) -> None:
    """Given a hung worker and one that was stopped, when both have gone, then only the end of the first is news."""
    why = {"reason": "hung: no answer", "say": {"key": "HUNG", "fields": {}}}
    stage.show(backend("degraded", slot(1, "leaving", **why), slot(2, "leaving"), slot(3)))
    expect(stage.row(1)).to_contain_text("leaving")

    stage.show(backend("ok", slot(3)))

    expect(stage.row(2)).to_have_count(0)
    expect(stage.row(1).locator(".badge")).to_have_text(["hung"])
    expect(stage.row(1)).to_contain_text(re.compile(r"ended \d+ s ago"))

    # Another one of the slot, of whose end nothing is known: the last reason of the watcher is that of some worker.
    stage.show(backend("ok", {**slot(1), "pid": 4_000_900}, slot(3)))
    expect(stage.row(1).filter(has_text="4000900")).to_be_visible()
    stage.show(backend("ok", slot(3), last_reason="killed from outside by SIGKILL", last_reason_age=1.0))
    ended = stage.watcher().locator("tr[data-ended]").filter(has_text="4000900")
    expect(ended).to_contain_text(re.compile(r"ended \d+ s ago"))
    expect(ended).not_to_contain_text("killed")


def test_the_deaths_of_a_slot_are_one_line(stage: Stage) -> None:
    """Given five deaths of a slot, of which the page saw two, then its line has how many there were, and the last."""
    last, now = 4_000_101, time.time()
    deaths = [(30, 1, 11), (20, 1, 12), (10, 1, 13), (9, 2, 4_000_102), (5, 1, 4_000_100), (3, 1, last)]
    store = LedgerStore(ledger_of(load(stage.folder / "circus.ini")))
    for ago, number, pid in deaths:
        died = {"time": now - ago, "slot": number, "pid": pid, "cause": "crash", "reason": "exited with code 3"}
        store.append([record_of("web", "restart", died, now=now)])
    store.close()
    for pid in (4_000_100, last):
        stage.show(backend("degraded", {**slot(1), "pid": pid}, slot(2)))
        expect(stage.row(1).first.locator(".cell-pid")).to_have_text(str(pid))
    stage.show(backend("degraded", *({**held(number), "pid": 0} for number in (1, 2))))

    ended = stage.watcher().locator("tr[data-ended]")
    expect(ended).to_have_count(2)
    expect(ended.first).to_contain_text("5 deaths in 27 s, last: exited with code 3")
    expect(ended.last).not_to_contain_text("deaths")

    # One that came and went between two states.
    died = {"time": now, "slot": 1, "pid": 4_000_103, "cause": "crash", "reason": "died by SIGSEGV"}
    with contextlib.closing(LedgerStore(store.path)) as store:
        store.append([record_of("web", "restart", died, now=now)])
    stage.show(backend("degraded", *({**held(number), "pid": 0} for number in (1, 2)), restarts=1))
    missed = ended.filter(has_text="6 deaths in 30 s, last: died by SIGSEGV")
    expect(missed).to_contain_text("4000103")
    expect(missed).to_contain_text(re.compile(r"ended [1-9]\d? s ago"))  # by the page's own clock, which goes on
    expect(ended).to_have_count(2)


def test_what_is_known_of_the_past_follows_the_verdict(stage: Stage) -> None:
    """Given a clock that stands still, when the verdict changes, then the past is asked for as soon as it is kept."""
    asked: list[str] = []
    stage.page.clock.install()
    stage.page.on("request", lambda request: asked.append(request.url))
    stage.page.reload()
    expect(stage.watcher()).to_be_visible()
    stage.page.clock.pause_at(time.time() + 5)
    beats = sum("api/beats" in url for url in asked)

    stage.show(COOLING)
    expect(stage.page).to_have_title("web: looping · xboard-circus")
    stage.page.clock.run_for(2000)

    eventually(lambda: sum("api/beats" in url for url in asked) > beats, what="the past is asked for")


def test_of_many_watchers_those_in_trouble_are_open_on_top_and_the_healthy_a_line_each(tmp_path: Path) -> None:
    """Given 15 backends, a page and a plugin, then the troubled one is open, and the others are found and sorted."""
    many = [backend("ok", slot(1), slot(2), name=f"b{number:02}") for number in range(14)]
    own = [backend("ok", slot(1), name="dashboard", is_page=True), backend("ok", slot(1), name="plugin:xboard")]
    for each in many[9]["workers"]:
        each["probe"]["rss"] = 900_000_000
    with staged(tmp_path, opens=False, viewport={"width": 1440, "height": 900}) as stage:
        stage.show(*many, *own, backend("degraded", held(1), slot(2), name="z"))
        names, shown = stage.page.locator(".watcher:visible h3"), stage.page.locator(".watcher-body:visible")

        expect(names).to_have_count(15)
        expect(names.first).to_have_text("z")
        expect(shown).to_have_count(1)
        expect(stage.watcher("b09")).to_contain_text("2 of 2 up")
        expect(stage.watcher("b09")).to_contain_text("1.7 GiB")
        assert stage.page.evaluate("document.documentElement.scrollHeight") < 1500
        expect(stage.page.get_by_text("System: dashboard, plugin:xboard")).to_be_visible()
        stage.picture("many")
        check_sound(stage.page, "many")

        stage.page.get_by_label("Sort").select_option("memory")
        expect(names.nth(1)).to_have_text("b09")
        stage.page.get_by_label("Filter").fill("B1")
        expect(names).to_have_text(["b10", "b11", "b12", "b13"])
        stage.page.get_by_label("Filter").fill("degraded")
        expect(names).to_have_text(["z"])
        stage.page.get_by_label("Filter").fill("")
        stage.watcher("b03").get_by_role("button", name="Open b03").click()
        expect(shown).to_have_count(2)
        stage.page.get_by_role("button", name="Open all").click()
        expect(stage.watcher("plugin:xboard")).to_be_visible()
        stage.show(*many[:3])
        for at in (0, 2):
            expect(stage.watcher(f"b0{at}").locator("tbody tr")).to_have_count(2)
        edges = "all => all.map((each) => Math.round(each.getBoundingClientRect().left))"
        columns = [stage.watcher(f"b0{at}").locator("thead th").evaluate_all(edges) for at in (0, 2)]
        assert columns[0] == columns[1]


def test_nothing_undated_is_shown_and_old_news_go(stage: Stage) -> None:
    """Given a last event and a failed reload, then both have their age, go in an hour, and stand below an incident;
    nor is anything shown of a reload whose old code is gone, or of a port that nobody waits for."""
    reload = {
        "state": "failed",
        "done": 0,
        "total": 2,
        "age": 600.0,
        "replaced": [],
        "old": 2,
        "reason": "new one failed",
        "log": "",
    }
    stage.show({**WELL, "last_reason": "exited with code 3", "last_reason_age": 130.0, "reload": reload})
    last, box = stage.watcher().locator(".last").first, stage.watcher().locator(".reload")
    expect(last).to_contain_text("2 min ago: exited with code 3")
    expect(stage.page.locator(".headline")).to_contain_text(re.compile("begun 10 min ago.*new one failed"))

    stage.show({**COOLING, "last_reason": "exited with code 3", "last_reason_age": 130.0, "reload": reload})
    expect(last).to_be_hidden()
    assert stage.watcher().locator(":is(.incident, .reload)").evaluate_all(
        "all => all.map((each) => each.className)"
    ) == ["incident", "reload"]
    stage.show({**COOLING, "reload": {**reload, "old": 0}})
    expect(box).to_be_hidden()
    waiting = {"host": "127.0.0.1", "port": 8000, "state": "waiting", "reason": ""}
    badge = stage.watcher().locator('.facts .badge[data-state="waiting"]')
    stage.show({**COOLING, "port": waiting})
    expect(badge).to_be_visible()
    stage.show(backend("stopped", status="stopped", port=waiting))
    expect(badge).to_be_hidden()  # nobody waits for it

    stage.show({**WELL, "last_reason": "exited", "last_reason_age": 4000.0, "reload": {**reload, "age": 4000.0}})
    expect(box).to_be_hidden()
    expect(last).to_be_hidden()


def test_a_deep_link_without_a_session_leads_to_its_view_after_the_sign_in(stage: Stage) -> None:
    """Given a link to a view and no session, then no token is tried, and the view opens after the sign-in."""
    stage.page.evaluate("localStorage.clear()")
    tried: list[str] = []
    stage.page.on("request", lambda request: tried.append(request.method) if request.url.endswith("/login") else None)
    stage.page.goto("about:blank")
    stage.page.goto(f"{stage.url}/#timeline/local/web")

    expect(stage.page.get_by_label("Token")).to_have_value("")
    expect(stage.page.get_by_role("alert")).to_have_count(0)
    assert "POST" not in tried
    stage.page.get_by_label("Token").fill(stage.token)
    stage.page.get_by_role("button", name="Sign in").click()

    expect(stage.page.locator("#timeline")).to_be_visible()
    expect(stage.page.locator("#timeline-watcher")).to_have_value("web")


def test_a_link_with_a_token_keeps_the_view_wherever_it_is_opened(stage: Stage) -> None:
    """Given a view that needs a sign-in, when the link is pasted over it, or carries a view itself, then that opens."""
    page, timeline = stage.page, stage.page.locator("#timeline")
    page.evaluate("localStorage.clear()")
    page.goto("about:blank")
    page.goto(f"{stage.url}/#timeline/local/web")
    expect(page.get_by_text("in the folder of circus.ini")).to_contain_text("where circusd runs")
    page.evaluate("text => { location.hash = text }", f"token={stage.token}")
    expect(timeline).to_be_visible()
    expect(page.locator("#timeline-watcher")).to_have_value("web")
    assert stage.token not in page.url

    page.goto(f"{stage.url}/#overview")
    page.evaluate("text => { location.hash = text }", f"token={stage.token}&timeline/local/web")
    expect(timeline).to_be_visible()
    assert stage.token not in page.url


def test_the_command_of_the_sign_in_is_copied(stage: Stage) -> None:
    stage.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    stage.page.goto(f"{stage.url}/login")
    stage.page.get_by_role("button", name="Copy").click()

    expect(stage.page.get_by_role("button", name="Copied")).to_be_visible()
    assert stage.page.evaluate("navigator.clipboard.readText()") == "xboard-circus dashboard --no-open"


LINES = 500


def test_a_burst_of_log_lines_is_drawn_at_once(stage: Stage) -> None:
    """Given an open log, when 500 lines come at once, then the page is laid out a few times and not for each line."""
    stage.page.goto(f"{stage.url}/#logs/local/web")
    expect(stage.page.get_by_role("log")).to_have_attribute("data-following", "yes")
    devtools = stage.page.context.new_cdp_session(stage.page)
    devtools.send("Performance.enable")

    def figures() -> dict[str, float]:
        return {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}

    before = figures()
    with (stage.folder / "web.log").open("a") as log:
        log.write("".join(f"number {number}\n" for number in range(LINES)))
    expect(stage.page.get_by_role("log").locator(".line").last).to_have_text(re.compile(f"number {LINES - 1}$"))
    after = figures()

    layouts = after["LayoutCount"] - before["LayoutCount"]
    print(f"{layouts:.0f} layouts, {1000 * (after['TaskDuration'] - before['TaskDuration']):.0f} ms of the main thread")
    assert layouts < LINES / 5
    expect(stage.page.get_by_role("log").locator(".line").last).to_be_in_viewport()


# The page's names for its controls; those in menus come when these are open. What lies over another, and what moves.
CONTROLS = """() => {
  const isSeen = (each) => each.getClientRects().length > 0;
  window.controls = [...document.querySelectorAll("button:not([disabled]), a[href], summary, select, input")]
    .filter((each) => !each.closest("dialog") && (each.closest(".menu-items") ? !each.hidden : isSeen(each)));
  window.reached = new Set();
  window.nameOf = (each) => each.ariaLabel || each.textContent || each.id;
  const isBehind = (each) => each.closest(".menu:not([open]) > .menu-items");
  const shown = controls.filter((each) => isSeen(each) && !isBehind(each));
  const over = shown.flatMap((one, at) => shown.slice(at + 1).filter((other) => {
    const [a, b] = [one, other].map((each) => each.getBoundingClientRect());
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    return wide > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1 && !one.contains(other);
  }).map((other) => `${nameOf(one)} lies over ${nameOf(other)}`));
  const seconds = ({ transitionDuration, animationDuration }) =>
    Math.max(...`${transitionDuration},${animationDuration}`.split(",").map(parseFloat));
  const moving = [...document.querySelectorAll("*")].filter((each) => seconds(getComputedStyle(each)) > 0.01);
  return [...over, ...moving.map((each) => `${each.outerHTML.slice(0, 80)} moves`)];
}"""
FOCUSED = """async () => {
  for (const _ of [1, 2]) await new Promise(requestAnimationFrame); // it is in view, and what makes way has done so
  const node = document.activeElement;
  if (node === document.body) return null;
  const isNew = !reached.has(node);
  reached.add(node);
  const { left, top, right, bottom } = node.getBoundingClientRect();
  const above = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  const wrong = [
    getComputedStyle(node).outlineStyle === "none" && "has no outline",
    (top < 0 || left < 0 || bottom > innerHeight || right > innerWidth) && "is not in view",
    !(node.contains(above) || above?.contains(node)) && "is covered",
    document.getAnimations().some(({ effect }) => effect.getComputedTiming().duration > 10) && "moves",
  ].filter(Boolean);
  const menu = node.matches("summary") ? node.closest(".menu") : null;
  const isLeft = (each) => !each.hidden && !each.disabled && !reached.has(each);
  const opens = menu !== null && [...menu.querySelectorAll("button")].some(isLeft);
  const isAction = isNew && node.matches("button") && node.closest(".actions, .row-actions, .stepper") !== null;
  return { name: nameOf(node), wrong, isAction, opens };
}"""


def answer_by_keyboard(page: Page, name: str) -> None:
    """Answer the question, or close the form, that Enter on a button has opened: it has the focus and gives it back."""
    dialog = page.locator("dialog[open]")
    assert dialog.evaluate("each => each.contains(document.activeElement)"), f"{name}: the question has the focus"
    if dialog.get_attribute("id") != "confirm":
        page.keyboard.press("Escape")
    else:
        for _ in range(4):
            if page.evaluate("document.activeElement.id === 'confirm-typed'"):
                page.keyboard.type("circus.ini")
            if page.evaluate("document.activeElement.id === 'confirm-yes'"):
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    assert page.evaluate("document.activeElement !== document.body"), f"{name}: the focus comes back"


def test_a_keyboard_alone_does_everything_at_200_per_cent_and_nothing_moves(tmp_path: Path) -> None:
    """Given 200 %, reduced motion and no mouse, when Tab goes through the page, then it comes to each control, in view,
    outlined and not covered, and Enter sends each action."""
    size = {"width": 640, "height": 450}  # of 1280 x 900
    with staged(tmp_path, viewport=size, device_scale_factor=2, reduced_motion="reduce") as stage:
        page, sent = stage.page, list[str]()

        def take(route: Route) -> None:
            sent.append(json.loads(route.request.post_data or "{}")["action"])
            route.fulfill(json={"message": "done"})

        page.route("**/api/actions", take)
        stopped = backend("stopped", name="idle", status="stopped", numprocesses=1)
        stage.show(backend("degraded", held(1), slot(2), slot(3)), stopped)
        expect(stage.row(1)).to_contain_text("cooling down")
        expect(stage.watcher("idle")).to_be_visible()
        check_sound(page, "200 %")
        wrong = list(page.evaluate(CONTROLS))
        for _ in range(150):
            page.keyboard.press("Tab")
            if (focused := page.evaluate(FOCUSED)) is None:
                break
            wrong += [f"{focused['name']} {each}" for each in focused["wrong"]]
            if focused["opens"] or focused["isAction"]:
                page.keyboard.press("Enter")
            if focused["isAction"] and page.locator("dialog[open]").count():
                answer_by_keyboard(page, focused["name"])
                if (page.evaluate(FOCUSED) or {}).get("opens"):
                    page.keyboard.press("Enter")

        assert wrong == []
        assert page.evaluate("controls.filter((each) => each.isConnected && !reached.has(each)).map(nameOf)") == []
        one = {"start", "reload", "restart", "stop", "incr", "decr", "retry", "retry_all", "replace", "kill"}
        assert set(sent) == one | {"start_all", "restart_all", "stop_all", "reload_config"}
