"""The view of the logs in a real browser: a flood, a long list, filters, rotated files, the address."""

import os
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from fake_circusd import FakeCircusd, always
from playwright.sync_api import Locator, expect

from xboard_circus.config import load
from xboard_circus.dashboard.settings import of_config
from xboard_circus.ledger import LedgerStore
from xboard_circus.ledger.location import ledger_of
from xboard_circus.ledger.record import record_of

from .browsing import Visit, chromium
from .harness import PATIENCE, Circusd, crowding
from .parts import needs
from .visitor import served, state, watcher, worker

INI = """\
[circus]
endpoint = {endpoint}
multicast_endpoint =

[watcher:web]
cmd = sleep 1000
stderr_stream.class = FileStream
stderr_stream.filename = logs/web.log
stderr_stream.max_bytes = 100000000
stderr_stream.backup_count = 3
stdout_stream.class = FileStream
stdout_stream.filename = logs/web.out

[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
"""
CLICKED = 9
AT_ONCE = 100.0  # ms from a click until its effect is painted
CLICKS = """() => {
  window.clicks = [];
  const hear = (list) => {
    for (const { name, duration } of list.getEntries()) if (name === "click") clicks.push(duration);
  };
  new PerformanceObserver(hear).observe({ type: "event", durationThreshold: 16 });
}"""
FLOOD = float(os.environ.get("XBOARD_FLOOD_SECONDS", "5"))
BEGUN = float(int(time.time()) - 7200)
LINE = (
    'INFO:     127.0.0.1:51234 - "GET /things/{number} HTTP/1.1" 200 and words of an app, long as they are {number}\n'
)


def stamp(second: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(BEGUN + second))


def line(second: float, text: str, pid: int = 71) -> str:
    return f"{stamp(second)} [{pid}] | {text}\n"


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    """A page before a stand-in for circusd, whose slots are 1 (pid 71) and 2 (pid 72), and a log of 5,000 seconds."""
    needs("chromium")
    workers = [worker(pid, slot=slot) for slot, pid in ((1, 71), (2, 72))]
    answers = {"xboard_state": always(state(watcher("web", *workers))), "listsockets": always({"sockets": []})}
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, seconds in (("web.log.1", range(2000)), ("web.log", range(2000, 5000))):
        text = "".join(line(second, f"INFO: number {second}", 71 + second % 2) for second in seconds)
        (logs / name).write_text(text)
    (logs / "web.out").write_text(line(4998, "printed", 72))
    with FakeCircusd({**answers, "stats": always({"infos": {}})}) as fake:
        (tmp_path / "circus.ini").write_text(INI.format(endpoint=fake.endpoint))
        with served(of_config(load(tmp_path / "circus.ini"))) as visitor, chromium() as browser:
            page = cast(Circusd, SimpleNamespace(folder=tmp_path))
            visit = Visit(browser, page, url=f"http://127.0.0.1:{visitor.port}").sign_in()
            yield visit
            assert visit.complaints == []


def shown(visit: Visit) -> list[str]:
    return visit.page.locator("#log .line").all_inner_texts()


def opened(visit: Visit, place: str = "local/web") -> None:
    visit.page.goto(f"{visit.url}/#logs/{place}")
    expect(visit.page.locator("#log .line").first).to_be_visible()


def scrolled(visit: Visit, *, to: float, until: Locator) -> None:
    """Scroll the log *to* a place in pixels as often as it takes *until* something is shown, as each batch of lines
    that comes moves the place."""
    deadline = time.monotonic() + PATIENCE
    while not until.count():
        assert time.monotonic() < deadline, f"not shown: {visit.page.locator('#log-foot').inner_text()}"
        visit.page.get_by_role("log").evaluate("(log, to) => { log.scrollTop = to; }", to)
        visit.page.wait_for_timeout(50)


def test_a_flood_freezes_nothing_and_what_is_left_out_is_counted(visit: Visit) -> None:
    """Given 20,000 lines at once and then 50 MB a minute, for FLOOD seconds, when the log is open, then few layouts
    are forced, an action is painted at once, the page stays small and says how many lines it has not got."""
    opened(visit)
    expect(visit.page.locator("#log")).to_have_attribute("data-following", "yes")
    visit.page.evaluate(CLICKS)
    other = visit.page.get_by_role("button", name="Light or dark")

    def painted(clicks: int) -> float:
        """Take the browser's own times from each of *clicks* to its paint; one within a frame is not reported."""
        found: list[float] = visit.page.evaluate("clicks.splice(0)")
        return statistics.median([*found, *[0.0] * (clicks - len(found))])

    for _ in range(CLICKED):
        other.click()
        visit.page.wait_for_timeout(50)
    quiet = painted(CLICKED)
    cdp = visit.page.context.new_cdp_session(visit.page)
    cdp.send("Performance.enable", {"timeDomain": "threadTicks"})

    def figures() -> dict[str, float]:
        return {each["name"]: each["value"] for each in cdp.send("Performance.getMetrics")["metrics"]}

    before, began = figures(), time.monotonic()
    written, clicks = 0, 0
    with (visit.running.folder / "logs" / "web.log").open("a", buffering=1 << 20) as log:
        log.writelines(LINE.format(number=number) for number in range(20_000))
        while (passed := time.monotonic() - began) < FLOOD:
            while written < passed * 50e6 / 60:
                written += log.write(LINE.format(number="more"))
            log.flush()
            if passed > FLOOD / 2 and clicks < CLICKED:
                other.click()
                clicks += 1
            visit.page.wait_for_timeout(50)
        log.write("the end\n")
    visit.page.get_by_role("button", name="Pause").click()
    expect(visit.page.get_by_role("button", name="Resume")).to_be_visible()
    flooded = painted(clicks)
    after, seconds = figures(), time.monotonic() - began
    visit.page.get_by_role("button", name="Resume").click()

    expect(visit.page.locator("#log .line").last).to_contain_text("the end")
    expect(visit.page.locator("#log-foot")).to_contain_text(re.compile(r"[\d,]+ lines left out"))
    assert (after["LayoutCount"] - before["LayoutCount"]) / seconds < 10
    # Each half second brings lines, and the page's state comes each second.
    assert (after["TaskDuration"] - before["TaskDuration"]) / (2 * seconds) < 0.1
    assert visit.page.locator("#log .line").count() < 200
    assert flooded < max(
        AT_ONCE * crowding(), 3 * quiet
    )  # a machine that is busy with other tests is slow without a flood, too


def test_a_long_log_is_filtered_searched_and_read_back_to_its_rotated_files(visit: Visit) -> None:
    opened(visit)
    log, foot = visit.page.get_by_role("log"), visit.page.locator("#log-foot")
    expect(log).to_contain_text("number 4999")
    expect(foot).to_contain_text("500 of 500 lines")
    assert visit.page.locator("#log .line").count() < 150

    # All of it is saved, whatever is shown.
    with visit.page.expect_download() as whole:
        visit.page.get_by_role("button", name="Download").click()
    saved_lines = Path(whole.value.path()).read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in saved_lines] == [str(number) for number in range(5000)]
    assert re.fullmatch(r"web[\w-]*\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.log", whole.value.suggested_filename)
    expect(visit.page.get_by_role("button", name="Download")).to_be_visible()

    # Older lines come as one scrolls up, also from the rotated file, to the first one.
    scrolled(visit, to=0, until=foot.filter(has_text="5,000 of 5,000 lines"))
    scrolled(visit, to=0, until=visit.page.locator("#log .line").first.filter(has_text=re.compile(r"number 0\b")))

    visit.page.get_by_label("Only lines with").fill(r"number 10\d\d$")
    expect(foot).to_contain_text("100 of 5,000 lines")
    visit.page.get_by_label("Slot").last.select_option("1")
    expect(foot).to_contain_text("50 of 5,000 lines")
    expect(visit.page.locator("#log .line .line-slot").first).to_have_text("#1")
    with visit.page.expect_download() as saved:
        visit.page.get_by_role("button", name="Download").click()
    assert Path(saved.value.path()).read_text().count("\n") == 50
    assert ".slot-1.filtered." in saved.value.suggested_filename
    assert visit.page.evaluate("location.hash").endswith("/1/number%2010%5Cd%5Cd%24")

    # The address alone brings all of it back.
    visit.page.reload()
    expect(visit.page.get_by_label("Only lines with")).to_have_value(r"number 10\d\d$")
    expect(visit.page.locator("#logs-slot")).to_have_value("1")

    # What somebody else made is plain text until it is typed: an expression could hold the page for ever.
    expect(foot).to_contain_text(re.compile(r"(^|\D)0 of [1-9]"))
    expect(visit.page.locator("#log .line")).to_have_count(0)
    visit.page.get_by_label("Only lines with").fill(r"number \d+$")
    expect(visit.page.locator("#log .line").first).to_be_visible()
    visit.page.reload()
    expect(visit.page.get_by_label("Only lines with")).to_have_value(r"number \d+$")
    expect(foot).to_contain_text(re.compile(r"(^|\D)0 of [1-9]"))
    expect(visit.page.locator("#log .line")).to_have_count(0)
    visit.page.get_by_label("Only lines with").fill("number (")
    expect(visit.page.get_by_label("Only lines with")).to_have_attribute("aria-invalid", "true")


def test_a_line_has_an_address_its_colours_and_its_level(visit: Visit) -> None:
    with (visit.running.folder / "logs" / "web.log").open("a") as file:
        file.write(
            line(5001, "\x1b[1;31mERROR\x1b[0m: it broke") + line(5001, "  File x.py") + line(5001, "the rest", 72)
        )
    opened(visit)
    visit.page.get_by_label("Level").select_option("error and above")
    expect(visit.page.locator("#log .line")).to_have_count(2)
    expect(visit.page.locator("#log .ansi-red.ansi-bold")).to_have_text("ERROR")
    visit.picture("logs-colours")

    visit.page.locator("#log .line", has_text="File x.py").click()
    expect(visit.page.locator("#log .line[data-marked]")).to_contain_text("File x.py")
    visit.page.reload()
    expect(visit.page.locator("#log .line[data-marked]")).to_contain_text("File x.py")
    expect(visit.page.locator("#log .line[data-marked]")).to_be_in_viewport()

    visit.page.get_by_label("Level").select_option("All levels")
    visit.page.get_by_role("button", name="To the newest line").click()
    expect(visit.page.locator("#log")).to_have_attribute("data-following", "yes")
    wrap = visit.page.get_by_role("button", name="Wrap")
    wrap.click()
    expect(wrap).to_have_attribute("aria-pressed", "false")
    visit.page.get_by_label("File").select_option("web: all files")
    expect(visit.page.get_by_role("log")).to_contain_text("printed")


def test_a_death_leads_to_the_log_of_its_second(visit: Visit) -> None:
    """Given the end of a worker an hour ago, in a rotated file, when its link is followed, then that second is shown,
    and from there one can read on to the newest line."""
    store = LedgerStore(ledger_of(load(visit.running.folder / "circus.ini")))
    store.append(
        [record_of("web", "restart", {"time": BEGUN + 1000.7, "pid": 71, "cause": "crash", "slot": 1}, now=BEGUN)]
    )
    store.close()
    visit.page.goto(f"{visit.url}/#timeline/local/web")
    visit.page.locator("#timeline-kind").select_option("restart")
    visit.page.get_by_role("link", name="Log of that second").click()

    marked = visit.page.locator("#log .line[data-marked]")
    expect(marked).to_contain_text("number 1000")
    expect(marked).to_be_in_viewport()
    expect(visit.page.locator("#log-foot")).to_contain_text("around")
    visit.picture("logs-death")
    scrolled(visit, to=1e9, until=visit.page.get_by_role("log").filter(has_text="number 4999"))
    visit.page.get_by_label("Go to").fill(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(BEGUN + 3000)))
    expect(marked).to_contain_text("number 3000")
    with visit.page.expect_download() as saved:
        visit.page.get_by_role("button", name="Download").click()
    assert Path(saved.value.path()).read_text().count("\n") == 2000
    assert (
        f".from-{time.strftime('%Y-%m-%dT%H-%M-%S', time.localtime(BEGUN + 3000))}." in saved.value.suggested_filename
    )
