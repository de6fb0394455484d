"""The part that alerts, with a circusd that says what the test wants and commands that write down what they get."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from plugin_fakes import FakeCircusd, FakeClock
from state_views import watcher_view, worker_view

from xboard_circus import config
from xboard_circus.core.headlines import Answering
from xboard_circus.host import procs
from xboard_circus.options.fields import IncidentOptions
from xboard_circus.plugins import alerts
from xboard_circus.plugins._base import BusEvent
from xboard_circus.plugins.alerts import FILE_EVERY, Alerter
from xboard_circus.survivors import Served

HEAD = """[circus]
endpoint = tcp://127.0.0.1:15555
pubsub_endpoint = tcp://127.0.0.1:15556
[watcher:web]
cmd = sleep 60
"""
SCRIPT = """#!/bin/sh
cat >> "$1.new" && echo >> "$1.new" && mv "$1.new" "$1.$$"
"""
PORT = {"host": "h", "port": 80, "state": "bound", "reason": ""}
WELL = watcher_view(worker_view(1), port=PORT, cooldown_until=None, last_reason="")


class Bench:
    """An ini, a circusd and an alerter in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ini = folder / "circus.ini"
        (folder / "notify").write_text(SCRIPT)
        (folder / "notify").chmod(0o700)
        self.state_dir = folder
        self.clock = FakeClock()
        self.circusd = FakeCircusd()
        self.shows(WELL)
        self.write(self.section("ops"))

    def section(self, name: str, **more: str) -> str:
        lines = {"type": "command", "command": f"./notify {name}", **more}
        return f"[alert:{name}]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())

    def write(self, *sections: str) -> None:
        self.ini.write_text("\n".join([HEAD, *sections]))

    def shows(self, *watchers: dict[str, Any], lost: dict[str, Any] | None = None) -> None:
        circusd = {"config_file": str(self.ini), "state_dir": str(self.state_dir), "lost": lost}
        self.circusd.state = {"circusd": circusd, "watchers": list(watchers)}

    def alerter(self, *, is_guest: bool = False) -> Alerter:
        options = IncidentOptions(down_after=10, recover_after=5)
        return Alerter(
            self.circusd, options=options, plugin="plugin:x", is_guest=is_guest, clock=self.clock, wall_clock=self.clock
        )

    def told(self, name: str = "ops") -> list[str]:
        """What the command of section *name* got, in no order."""
        return sorted(
            last if "(" in (last := title.rpartition(": ")[2]) else last.removesuffix(")")
            for title in self.titles(name)
        )

    def titles(self, name: str = "ops") -> list[str]:
        return [title for title, _ in self.sent(name)]

    def sent(self, name: str = "ops") -> list[tuple[str, str]]:
        """The title and the text of each alert."""
        found = [json.loads(path.read_text()) for path in self.folder.glob(f"{name}.[0-9]*")]
        return [(each["title"], each["text"]) for each in found]

    async def ticks(self, alerter: Alerter, seconds: float) -> None:
        """Let so many seconds pass as the host does."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.sleep(max(0.1, await alerter.tick()))

    async def begun(self, alerter: Alerter) -> Alerter:
        await self.ticks(alerter, 1)
        return alerter

    async def hears(self, alerter: Alerter, event: BusEvent) -> None:
        """Give it an event, and the tick for which it asks."""
        if alerter.handle_event(event) is not None:
            await alerter.tick()

    async def until_told(self, *titles: str, name: str = "ops") -> None:
        deadline = time.monotonic() + 60
        while self.told(name) != sorted(titles):
            assert time.monotonic() < deadline, self.told(name)
            await asyncio.sleep(0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


UNHEALTHY = BusEvent("web", "unhealthy", {"reason": "no answer"})


def test_an_event_is_told_at_once_and_its_end_when_the_state_is_well(bench: Bench) -> None:
    async def story() -> None:
        alerter = await bench.begun(bench.alerter())
        await bench.hears(alerter, UNHEALTHY)
        await bench.hears(alerter, UNHEALTHY)
        await bench.until_told("unhealthy")
        await bench.ticks(alerter, 7)
        await bench.until_told("recovered (unhealthy)", "unhealthy")
        await alerter.close()

    run(story())


def test_an_event_between_the_first_section_and_the_next_state_is_told(bench: Bench) -> None:
    async def story() -> None:
        alerter = bench.alerter()
        await alerter.tick()
        bench.circusd.is_gone = True
        await alerter.tick()
        await bench.hears(alerter, UNHEALTHY)
        await bench.until_told("unhealthy")
        await alerter.close()

    run(story())


def test_a_silent_circusd_is_told(bench: Bench) -> None:
    async def story() -> None:
        alerter = await bench.begun(bench.alerter())
        bench.circusd.is_gone = True
        await bench.ticks(alerter, 12)
        await bench.until_told("does not answer")
        bench.circusd.is_gone = False
        await bench.ticks(alerter, 1)
        await bench.until_told("does not answer", "recovered (does not answer)")
        await alerter.close()

    run(story())


LOST = {"pid": 7, "started": 70, "at": 990.0, "was_told": False, "reason": "circusd (pid 7) was killed", "successor": 9}


def test_a_lost_circusd_is_told_by_the_last_and_its_end_by_the_next_alerter(bench: Bench) -> None:
    async def story() -> None:
        first = await bench.begun(bench.alerter())
        await bench.hears(first, BusEvent("circusd", "circusd_lost", {"reason": "circusd (pid 7) was killed"}))
        await bench.until_told("killed or crashed")
        assert bench.titles()[0].startswith("[CRITICAL] circusd is down for ")
        await first.close()

        bench.shows(WELL, lost={**LOST, "was_told": True})
        second = await bench.begun(bench.alerter())
        await bench.ticks(second, 7)
        await bench.until_told("killed or crashed", "recovered (killed or crashed)")
        await second.close()

    run(story())


@pytest.mark.parametrize(
    ("loses", "answers", "said"),
    [
        (True, [Answering(8000, 2)], "Its workers still answer on :8000 (2 alive)\nCure: run `xboard-circus start`"),
        (True, [], "None of its ports answers\nCure: run `xboard-circus start`"),
        (True, None, "\nCure: run `xboard-circus start`"),
        (False, [Answering(8000, 2)], "Its workers still answer on :8000 (2 alive)\nCure: run `xboard-circus restart`"),
    ],
    ids=["killed", "killed with all workers", "a port that answers too late", "frozen"],
)
def test_an_alert_on_circusd_has_which_ports_answer_without_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, loses: bool, answers: list[Answering] | None, said: str
) -> None:
    late, asked = threading.Event(), list[Served]()

    def serving_on(served: list[Served]) -> list[Answering]:
        asked.extend(served)
        return answers if answers is not None or late.wait(60) else []  # type: ignore[return-value]

    async def story() -> None:
        alerter = await bench.begun(bench.alerter())
        if loses:
            await bench.hears(alerter, BusEvent("circusd", "circusd_lost", {"reason": "circusd (pid 7) was killed"}))
            await alerter.close()
        else:
            bench.circusd.is_gone = True
            await bench.ticks(alerter, 12)
        await bench.until_told("killed or crashed" if loses else "does not answer")
        late.set()

    monkeypatch.setattr(alerts, "serving_on", serving_on)
    monkeypatch.setattr(alerts, "PORTS_WITHIN", 0.2)
    run(story())

    ((title, text),) = bench.sent()
    assert said in text
    assert title.count("has not answered for") == (0 if loses else 1)
    assert ("still answer" in text, "None of its" in text) == ("still answer" in said, "None of its" in said)
    assert asked[0] == Served("h", 80, "/live", [procs.Identity(1, 10)])


def test_one_that_nobody_told_of_is_told_once_as_over(bench: Bench) -> None:
    async def story() -> None:
        bench.shows(WELL, lost=LOST)
        first = await bench.begun(bench.alerter())
        # What it publishes of the one before it is what its state tells.
        await bench.hears(first, BusEvent("circusd", "circusd_lost", LOST))
        await bench.ticks(first, 3)
        await bench.until_told("recovered (killed or crashed)")
        await first.close()

        second = await bench.begun(bench.alerter())
        await bench.ticks(second, 3)
        await bench.hears(second, UNHEALTHY)
        await bench.until_told("recovered (killed or crashed)", "unhealthy")
        await second.close()

    run(story())


def test_who_is_added_later_is_not_told_of_what_was_over_by_then(bench: Bench) -> None:
    async def story() -> None:
        bench.write()
        bench.shows(WELL, lost=LOST)
        alerter = await bench.begun(bench.alerter())
        await bench.ticks(alerter, 10)
        bench.write(bench.section("ops"))
        await bench.ticks(alerter, FILE_EVERY + 1)
        await bench.hears(alerter, UNHEALTHY)
        await bench.until_told("unhealthy")
        await alerter.close()
        assert bench.told() == ["unhealthy"]

    run(story())


@pytest.mark.parametrize("whom", ["web", "circusd"], ids=["it", "all"])
def test_an_operators_stop_ends_the_loop_of_a_watcher_without_a_guard(bench: Bench, whom: str) -> None:
    async def story() -> None:
        alerter = await bench.begun(bench.alerter())
        await bench.hears(alerter, BusEvent("web", "cooldown", {"reason": "5 failures"}))
        bench.shows(watcher_view(armed=False, status="stopped", numprocesses=1))
        await bench.until_told("crash loop")
        assert re.search(r"\] unknown for 0 s, since [\d:]+: web, 1 of 1 up \(", bench.titles()[0])
        await bench.ticks(alerter, 3)
        await bench.hears(alerter, BusEvent(whom, "command", {"command": "stop", "by": "circusctl", "outcome": ""}))
        await bench.ticks(alerter, 2)
        await bench.until_told("crash loop", "stopped while crash loop")
        await alerter.close()

    run(story())


def test_without_a_section_circusd_is_left_alone(bench: Bench) -> None:
    async def story() -> None:
        bench.write()
        alerter = await bench.begun(bench.alerter())
        asked = list[str]()
        bench.circusd.on_call = lambda command, _: asked.append(command)
        await bench.ticks(alerter, 60)
        await bench.hears(alerter, UNHEALTHY)
        assert asked == []

    run(story())


def test_where_a_plugin_of_its_own_alerts_the_guest_in_the_bundle_does_not(bench: Bench) -> None:
    async def story() -> None:
        bench.write(bench.section("ops"), "[plugin:alerts]\nuse = xboard_circus.plugins.alerts.Alerts\n")
        guest, own = await bench.begun(bench.alerter(is_guest=True)), await bench.begun(bench.alerter())
        for alerter in (guest, own):
            await bench.hears(alerter, UNHEALTHY)
        await bench.until_told("unhealthy")
        await guest.close()
        await own.close()
        assert bench.told() == ["unhealthy"]

    run(story())


def test_a_section_that_comes_later_is_told_what_is_open_and_one_that_goes_is_told_nothing(bench: Bench) -> None:
    async def story() -> None:
        alerter = await bench.begun(bench.alerter())
        bench.shows(watcher_view("hung", port=PORT, cooldown_until=None, last_reason=""))
        await bench.hears(alerter, UNHEALTHY)
        await bench.until_told("unhealthy")
        assert bench.titles()[0].startswith("[WARNING] DOWN for "), "it has the state after the event"
        bench.write(bench.section("late"))
        await bench.ticks(alerter, FILE_EVERY + 1)
        await bench.until_told("unhealthy", name="late")
        bench.shows(WELL)
        await bench.ticks(alerter, 8)
        await bench.until_told("recovered (unhealthy)", "unhealthy", name="late")
        assert bench.told() == ["unhealthy"]
        await alerter.close()

    run(story())


@pytest.mark.parametrize("broken", ["no section", "[alert:ops]\ntype = smoke signals\n"], ids=["file", "section"])
def test_an_ini_that_is_wrong_changes_nothing(bench: Bench, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        alerter = await bench.begun(bench.alerter())
        bench.ini.write_text(broken + HEAD if broken.startswith("no") else HEAD + broken)
        await bench.ticks(alerter, FILE_EVERY + 1)
        await bench.hears(alerter, UNHEALTHY)
        await bench.until_told("unhealthy")
        await alerter.close()

    run(story())
    assert any(words in caplog.text for words in ("stay as they were", "stays as it was until it is put right"))


def test_a_section_written_while_the_ini_is_read_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a section that is added right after the ini was read, when time goes by, then it gets alerts."""
    load = config.load

    def load_and_be_overtaken(path: Path) -> config.Config:
        found = load(path)
        if "[alert:late]" not in bench.ini.read_text():
            bench.write(bench.section("ops"), bench.section("late"))
        return found

    monkeypatch.setattr(config, "load", load_and_be_overtaken)

    async def story() -> None:
        alerter = await bench.begun(bench.alerter())
        await bench.ticks(alerter, 2 * FILE_EVERY + 1)
        await bench.hears(alerter, UNHEALTHY)
        await bench.until_told("unhealthy", name="late")
        await alerter.close()

    run(story())


@pytest.mark.parametrize("moved", [False, True])
def test_after_a_restart_nothing_is_told_twice_and_what_ended_meanwhile_is_told(bench: Bench, moved: bool) -> None:
    """Also where circusd has moved to another runtime folder meanwhile, as when that was deleted."""

    async def story() -> None:
        first = await bench.begun(bench.alerter())
        bench.shows({**WELL, "port": {**PORT, "state": "refused", "reason": "nginx has it"}})
        await bench.ticks(first, 4)
        await bench.until_told("port held by another")
        if moved:
            place = bench.folder / "moved"
            place.mkdir()
            bench.state_dir = place
            bench.shows(*(bench.circusd.state or {})["watchers"])
            await bench.ticks(first, 1)
            assert '"watcher": "web"' in (place / "alerts-x.json").read_text()
        await first.close()

        second = await bench.begun(bench.alerter())
        await bench.ticks(second, 3)
        bench.shows(WELL)
        await bench.ticks(second, 8)
        await bench.until_told("port held by another", "recovered (port held by another)")
        await second.close()

    run(story())


def test_what_could_not_be_sent_is_sent_after_the_next_start(bench: Bench) -> None:
    async def story() -> None:
        (bench.folder / "notify").rename(bench.folder / "away")
        first = await bench.begun(bench.alerter())
        await bench.hears(first, UNHEALTHY)
        await asyncio.wait_for(first.close(), 60)
        (bench.folder / "away").rename(bench.folder / "notify")

        second = await bench.begun(bench.alerter())
        await bench.until_told("unhealthy")
        await second.close()

    run(story())


def test_a_hanging_sink_holds_up_no_tick(bench: Bench) -> None:
    async def story() -> None:
        (bench.folder / "hang").write_text("#!/bin/sh\nuntil [ -e go ]; do sleep 0.05; done\n")
        (bench.folder / "hang").chmod(0o700)
        bench.write(bench.section("ops"), "[alert:hangs]\ntype = command\ncommand = ./hang\ntimeout = 60\n")
        alerter = await bench.begun(bench.alerter())
        await bench.hears(alerter, UNHEALTHY)
        began = time.monotonic()
        await bench.ticks(alerter, 4)
        assert time.monotonic() - began < 30
        await bench.until_told("unhealthy")
        (bench.folder / "go").touch()
        await alerter.close()

    run(story())
