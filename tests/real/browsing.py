"""A dashboard under a real circusd, and a real Chromium that looks at it.

with dashboard(tmp_path) as c, chromium() as browser:
    page = Page(browser.new_page(), c)
    page.sign_in()
    page.worker(pid).wait_for()
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from xboard_circus.dashboard.settings import APP, WATCHER

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually

CHROMIUM = Path(__file__).with_name("chromium_without_netlink.py")
# Without the network's habits of a browser at home: a test's browser talks to the test alone.
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--force-color-profile=srgb",
]
FINDINGS = """async () => (await axe.run({ resultTypes: ["violations"] })).violations
  .flatMap(({ id, nodes }) => nodes.map((each) => `${id}: ${each.html.slice(0, 200)} ${each.failureSummary}`))"""
PHONE, DESKTOP = {"width": 375, "height": 812}, {"width": 1280, "height": 900}
PATIENCE = 90.0  # seconds: the machine may be busy with other tests
expect.set_options(timeout=PATIENCE * 1000)  # where a test says nothing else: 5 s is what playwright has
QUICK: dict[str, object] = {
    "health.live_path": "/health/live",
    "health.ready_path": "/health/ready",
    "health.period": 0.3,
    "health.timeout": 2,
    **FAST_RESTARTS,
}


def page_watcher(options: Mapping[str, object]) -> Watcher:
    """The watcher that runs the page."""
    return Watcher(WATCHER, numprocesses=1, app=APP, options=options)


@contextlib.contextmanager
def dashboard(
    folder: Path,
    watchers: Sequence[Watcher] = (),
    *,
    options: Mapping[str, object] | None = None,
    prepare: Callable[[Circusd], None] = lambda prepared: None,
) -> Iterator[Circusd]:
    """Run circusd with *watchers*, or one of two workers that is probed often, the plugins, and the page.

    Before, *prepare* is called: its ini is there by then.
    """
    chosen = list(watchers) or [Watcher(options=QUICK)]
    with circusd(folder, watchers=[*chosen, page_watcher(options or {})], plugins=BUNDLE, start=False) as running:
        prepare(running)
        running.start_again()
        eventually(lambda: "ok" in running.get("/healthz", name=WATCHER), timeout=PATIENCE, what="the page is served")
        yield running


@contextlib.contextmanager
def chromium(*, opens: bool = True, **context: Any) -> Iterator[BrowserContext]:
    """A window of Debian's Chromium that remembers nothing of another; *context* are options of playwright's.

    With *opens* the cards of healthy watchers are open, too, as somebody chose them to be.
    """
    opened = _chromium().new_context(**{"viewport": DESKTOP, "locale": "en-GB", **context})
    opened.set_default_timeout(PATIENCE * 1000)
    if opens:
        opened.add_init_script("try { localStorage.setItem('xboard_open', 'all') } catch {}")
    try:
        opened.new_page()
        yield opened
    finally:
        opened.close()


_running = contextlib.ExitStack()


@functools.cache
def _chromium() -> Browser:
    """Start Chromium once for the tests of a file: each start takes more than a second of CPU."""
    playwright = _running.enter_context(sync_playwright())
    started = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
    _running.callback(started.close)
    return started


def end_chromium() -> None:
    """End it where it runs: no test may use asyncio in the thread of playwright."""
    _chromium.cache_clear()
    _running.close()


def token(running: Circusd, role: str = "admin") -> str:
    """The secret that opens the page of *running*."""
    text = eventually((running.folder / "dashboard.token").read_text, timeout=PATIENCE)
    found = re.search(rf"^{role} = (\S+)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


class Visit:
    """One open page of a dashboard, and all that its console said.

    Attributes:
        complaints: Errors and warnings of the console, uncaught exceptions and requests that failed.
    """

    def __init__(self, context: BrowserContext, running: Circusd, *, url: str | None = None) -> None:
        self.page: Page = context.pages[0] if context.pages[0].url == "about:blank" else context.new_page()
        self.running = running
        self.url = (url or running.url_of(WATCHER)).rstrip("/")
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def sign_in(self, role: str = "admin") -> "Visit":
        """Follow the link that the command line prints."""
        self.page.goto(f"{self.url}/login#token={token(self.running, role)}")
        self.page.wait_for_url(f"{self.url}/")
        self.live()
        return self

    def live(self) -> None:
        """Wait until the page shows a state that is fresh."""
        try:
            expect(self.page.locator("#link-state[data-link=live]")).to_be_visible(timeout=PATIENCE * 1000)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthe page complained: {self.complaints}") from error
        self.page.locator(".watcher").first.wait_for()

    def watcher(self, name: str = "web") -> Locator:
        return self.page.locator(f'.watcher[data-watcher="{name}"]')

    def row(self, pid: int) -> Locator:
        return self.page.locator(f'.workers tr[data-pid="{pid}"]')

    def sees(self, pid: int, state: str) -> None:
        """Wait until the row of a worker shows a state."""
        expect(self.row(pid).locator(f'.badge[data-state="{state}"]').first).to_be_visible(timeout=PATIENCE * 1000)

    def picture(self, name: str, *, whole: bool = True) -> None:
        """Keep a screenshot of the whole page, or of what the window shows; see `keep_picture`."""
        keep_picture(self.page, name, whole=whole)


def press(place: Locator, name: str | re.Pattern[str]) -> None:
    """Press a button in *place*, which may stand behind a "…"."""
    button = place.get_by_role("button", name=name, exact=isinstance(name, str), include_hidden=True).first
    menu = button.locator("xpath=ancestor::details[@class='menu']")
    if menu.count() and not button.is_visible():
        menu.locator("summary").click()
    button.click()


def open_incidents(page: Page) -> None:
    """Show the events of all incidents of the timeline."""
    page.locator(".event-incident > button[aria-expanded=false]").evaluate_all(
        "all => all.forEach((each) => each.click())"
    )


def check_sound(page: Page, name: str) -> None:
    """Check that nothing sticks out to the side and that axe finds nothing by any of its rules."""
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider == 0, f"{name} scrolls sideways by {wider} px"
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(FINDINGS)
    assert found == [], "\n".join([name, *found])


def keep_picture(page: Page, name: str, *, whole: bool = True) -> None:
    """Keep a screenshot of the page where XBOARD_SCREENSHOTS says; where it says nothing, none is taken."""
    if folder := os.environ.get("XBOARD_SCREENSHOTS"):
        file = Path(folder) / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=file, full_page=whole, animations="disabled")
