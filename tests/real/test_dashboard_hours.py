"""The overview of many workers, open for an hour: what it loads, and that it grows by nothing."""

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from fake_circusd import FakeCircusd, always

from xboard_circus.config import load
from xboard_circus.dashboard.settings import of_config
from xboard_circus.ledger import LedgerStore
from xboard_circus.ledger.location import ledger_of
from xboard_circus.ledger.record import record_of

from .browsing import Visit, chromium
from .harness import Circusd, eventually
from .made_history import give_history
from .parts import needs
from .visitor import served, state, watcher, worker

INI = """\
[circus]
endpoint = {endpoint}
multicast_endpoint =

[watcher:web]
cmd = sleep 1000

[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
"""
WEEK = 7 * 86_400
HOUR, EVERY = 3600, 60  # seconds, and those between two states
FED = """() => {
const asked = window.fetch;
const beats = {}; // the past of a week is read once: reading it 60 times takes longer than all that is tested
window.fetch = async (path, options) => {
  if (path.startsWith("api/beats")) return new Response((beats[path] ??= await (await asked(path, options)).text()));
  if (path !== "api/stream") return asked(path, options);
  const known = await (await asked("api/state", options)).json();
  const encoder = new TextEncoder();
  let at = 0;
  return new Response(new ReadableStream({ start: (stream) => {
    window.feed = () => {
      at += 1;
      known.now += EVERY;
      for (const { workers } of known.servers[0].watchers) {
        for (const each of workers) {
          const figures = { cpu: at % 7, rss: 5e7 + 1e6 * (at % 11), latency: 0.001 * (at % 5) };
          Object.assign(each, figures, { age: each.age + EVERY });
        }
      }
      stream.enqueue(encoder.encode(`event: state\\ndata: ${JSON.stringify(known)}\\n\\n`));
    };
    window.feed();
  } }));
};
}""".replace("EVERY", str(EVERY))


def test_the_overview_weighs_little_and_does_not_grow_in_an_hour(tmp_path: Path) -> None:
    """Given 40 workers, and a ledger and a history of a week, when the overview is open for an hour by a moved clock,
    with a state every minute, then neither heap nor nodes grow; and page, scripts and styles weigh less than 300 kB."""
    needs("chromium")
    workers = [worker(4_000_000 + slot, slot=slot) for slot in range(1, 41)]
    answers = {"xboard_state": always(state(watcher("web", *workers))), "listsockets": always({"sockets": []})}
    with FakeCircusd({**answers, "stats": always({"infos": {}})}) as fake:
        (tmp_path / "circus.ini").write_text(INI.format(endpoint=fake.endpoint))
        config, now = load(tmp_path / "circus.ini"), time.time()
        store = LedgerStore(ledger_of(config))
        worst = {"cause": "crash", "reason": "it broke"}
        events = itertools.product(range(1000), (("restart", worst), ("ready", {})))
        store.append(
            [
                record_of("web", kind, {**data, "time": now - WEEK + 600 * at, "pid": at + 1, "slot": at % 40}, now=now)
                for at, (kind, data) in events
            ]
        )
        store.close()
        give_history(config, now)
        with served(of_config(config)) as visitor, chromium() as browser:
            browser.add_init_script(f"({FED})()")
            browser.pages[0].clock.install()
            asked: set[str] = set()
            browser.pages[0].on("request", lambda request: asked.add(urlsplit(request.url).path))
            page = cast(Circusd, SimpleNamespace(folder=tmp_path))
            visit = Visit(browser, page, url=f"http://127.0.0.1:{visitor.port}").sign_in()
            assert "/static/main.js" in asked
            assert sum(len(visitor.get(path).body) for path in asked if not path.startswith("/api")) < 300_000

            cdp = browser.new_cdp_session(visit.page)
            cdp.send("Performance.enable")

            def size() -> tuple[float, float]:
                cdp.send("HeapProfiler.collectGarbage")
                found = {each["name"]: each["value"] for each in cdp.send("Performance.getMetrics")["metrics"]}
                return found["JSHeapUsedSize"], found["Nodes"]

            def at_rest() -> tuple[float, float] | None:
                """Return the size once no node comes or goes: what is being drawn counts beside what it replaces."""
                first, second = size(), size()
                return second if first[1] == second[1] else None

            def let_pass(seconds: int) -> None:
                for _ in range(seconds // EVERY):
                    visit.page.evaluate("window.feed()")
                    visit.page.clock.fast_forward(EVERY * 1000)

            let_pass(HOUR // 6)  # the curves are full
            heap, nodes = eventually(at_rest)
            let_pass(HOUR - HOUR // 6)

            def are_as_before() -> bool:
                """Whether neither has grown; what one collection leaves, since it is being used, the next one takes."""
                grown = at_rest()
                return grown is not None and grown[0] < 1.15 * heap and grown[1] < 1.05 * nodes

            eventually(are_as_before, what=f"heap and nodes as before: {heap:.0f}, {nodes:.0f}")
            assert visit.complaints == []
