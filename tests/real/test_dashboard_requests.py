"""The view of the page with what is in flight now."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from .browsing import PATIENCE, Visit, chromium, dashboard
from .harness import Watcher, eventually
from .test_which_request import DEADLY, TOKEN, in_flight, up

MS = PATIENCE * 1000


def test_the_page_lists_what_is_in_flight_by_age(tmp_path: Path) -> None:
    """Given a request that waits and one that holds the event loop, when a reader opens the view, then both are listed,
    the oldest first and the one that runs marked, and there is no token of a path."""
    options = {"health.failure_threshold": 1000, "health.period": 0.5}
    web = Watcher(app="deadly_app:app", numprocesses=1, arguments="--ws none", options=options)
    with dashboard(tmp_path, [web]) as c, chromium() as browser:
        up(c)
        visit = Visit(browser, c).sign_in("reader")
        visit.page.locator("[data-view=requests]").click()
        rows = visit.page.locator("#requests-rows tr")
        expect(visit.page.locator("#requests-notice")).to_have_text("No request is in flight.", timeout=MS)
        with in_flight(c, "/v1/wait/1"):
            eventually(lambda: c.get("/waiting") == "1")
            with in_flight(c, f"/v1/die/hang/{TOKEN}"):
                expect(rows).to_have_count(2, timeout=MS)
                expect(rows.first).to_contain_text("GET /v1/wait/{what}")
                expect(rows.last).to_contain_text(f"GET {DEADLY} (its event loop runs it)", timeout=MS)
                expect(visit.page.locator("#requests-notice")).to_be_hidden()
                assert TOKEN not in visit.page.content()
        assert visit.complaints == []
