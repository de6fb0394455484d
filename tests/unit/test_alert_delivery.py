"""The thread of a sink: in order, once, again after failures, with a bounded queue; and the words of an alert."""

# ruff: noqa: RUF001 - Chinese has marks of its own

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.alerts import delivery as module
from xboard_circus.alerts.delivery import Delivery
from xboard_circus.alerts.memory import AlertMemory, Remembered
from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError
from xboard_circus.alerts.text import Origin, rendered
from xboard_circus.core.alert_gate import HOUR, About, Gate, GateRules, Notice
from xboard_circus.core.alert_sentences import AlertSay
from xboard_circus.core.alerting import Incident, Severity, Trouble
from xboard_circus.core.durations import seconds
from xboard_circus.core.headlines import lines_of
from xboard_circus.core.names import CIRCUSD
from xboard_circus.core.reason import data_of
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import watcher_entry
from xboard_circus.core.verdict import Word, verdict_entry
from xboard_circus.local_time import worded_since

ORIGIN = Origin("host1", "/srv/circus.ini")


class FakeSink:
    """Delivers, fails as often as it is told to, or hangs until it is let go."""

    place = "nowhere"

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.delivered: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_tried = threading.Event()

    def deliver(self, message: Message) -> None:
        self.is_tried.set()
        assert self.gate.wait(60)
        if self.failures:
            raise self.failures.pop(0)
        self.delivered.append(message.id)


def message(name: str, fold: str = "") -> Message:
    return Message(name, name, name, {"id": name}, fold)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "backoff", lambda failures: 0.01)


def story(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let *test* run on a loop of its own, for a minute at most."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**fixtures), 60))

    return run


def begin(sink: FakeSink, **options: object) -> Delivery:
    delivery = Delivery("ops", sink, **options)  # type: ignore[arg-type]
    delivery.start()
    return delivery


async def tried(sink: FakeSink) -> None:
    assert await asyncio.to_thread(sink.is_tried.wait, 10)


@story
async def test_everything_arrives_once_and_in_order_though_the_sink_fails() -> None:
    sink, changes = FakeSink(*[AlertError("answered 500")] * 5), list[int]()
    delivery = begin(sink, waiting=[message("0")], on_change=lambda: changes.append(1))
    for number in range(1, 20):
        delivery.put(message(str(number)))

    assert await delivery.drain(10)
    assert sink.delivered == [str(number) for number in range(20)]
    assert delivery.waiting() == []
    assert changes


class Command(FakeSink):
    """Fails as often as it is told to, and then takes until it is let go."""

    most_cuts = 2

    def deliver(self, message: Message) -> None:
        if self.failures:
            raise self.failures.pop(0)
        super().deliver(message)


@story
async def test_a_command_in_which_the_plugin_ends_is_run_again_once(caplog: pytest.LogCaptureFixture) -> None:
    """Given a command that runs when the plugin ends, as one that restarts circusd, then the next plugin runs it once
    more, however often it fails before, and the one after that says why it does not."""
    saved = [message("0")]
    for failures in (3, 2):
        sink = Command(*[AlertError("ended with 1")] * failures)
        sink.gate.clear()
        delivery = Delivery("ops", sink, waiting=saved, on_change=lambda: saved.__setitem__(0, delivery.waiting()[0]))  # noqa: B023
        delivery.start()
        await tried(sink)
        delivery.end()
        sink.gate.set()
    last = Command()

    assert await begin(last, waiting=[*saved, message("1")]).drain(10)
    assert last.delivered == ["1"]
    assert "given up: this plugin has ended 2 times while nowhere ran, as when that restarts circusd" in caplog.text


@pytest.mark.parametrize("fault", [AlertError("answered 554: spam", refused=True), UnicodeError("surrogates")])
@story
async def test_a_message_that_is_refused_for_what_it_says_lets_the_others_pass(fault: Exception) -> None:
    """Given a receiver that refuses the first message at each try, or one that we cannot write, then the later ones
    arrive, and it is kept."""

    class Choosy(FakeSink):
        def deliver(self, message: Message) -> None:
            if message.id == "poison":
                raise fault
            super().deliver(message)

    sink = Choosy()
    delivery = begin(sink, waiting=[message("poison"), message("1")])
    delivery.put(message("2"))

    while sink.delivered != ["1", "2"]:
        await asyncio.sleep(0.01)

    assert [each.id for each in delivery.waiting()] == ["poison"]
    delivery.put(message("3"))
    while sink.delivered != ["1", "2", "3"]:
        await asyncio.sleep(0.01)
    delivery.use(FakeSink())
    assert await delivery.drain(10)


@story
async def test_a_new_message_waits_for_no_try_of_those_that_were_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given messages that are refused again and again, with a minute between two tries, then a new one is tried at
    once; where the server demands a pause, it waits."""

    class Choosy(FakeSink):
        pause = 0.0

        def deliver(self, message: Message) -> None:
            if message.id.startswith("poison"):
                self.is_tried.set()
                raise AlertError("answered 403", refused=True, retry_after=self.pause)
            super().deliver(message)

    monkeypatch.setattr(module, "backoff", lambda failures: 600.0)
    sink = Choosy()
    delivery = begin(sink, waiting=[message(f"poison {number}") for number in range(5)])
    await tried(sink)
    for number in range(1, 4):
        delivery.put(message(str(number)))
        while len(sink.delivered) < number:
            await asyncio.sleep(0.01)
    assert len(delivery.waiting()) == 5

    sink.pause = 600.0
    sink.is_tried.clear()
    delivery.put(message("poison too"))
    await tried(sink)
    delivery.put(message("late"))
    assert not await delivery.drain(0.2)
    assert sink.delivered == ["1", "2", "3"]


@story
async def test_of_a_full_queue_those_that_were_refused_are_lost_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "backoff", lambda failures: 600.0)
    sink = FakeSink(AlertError("answered 403", refused=True))
    delivery = begin(sink, limit=3, waiting=[message("refused")])
    while not delivery.trouble:
        await asyncio.sleep(0.01)
    sink.gate.clear()
    for number in range(3):
        delivery.put(message(str(number)))

    assert [each.id for each in delivery.waiting()] == ["0", "1", "2"]
    sink.gate.set()
    assert await delivery.drain(10)


@story
async def test_a_sink_that_hangs_holds_up_nobody() -> None:
    sink = FakeSink()
    sink.gate.clear()
    delivery = begin(sink)
    began = time.monotonic()
    for number in range(100):
        delivery.put(message(str(number)))
    assert time.monotonic() - began < 10
    await tried(sink)
    assert not await delivery.drain(0.01)
    assert len(delivery.waiting()) == 100
    sink.gate.set()
    assert await delivery.drain(10)


@story
async def test_a_full_queue_loses_the_oldest_that_is_not_under_way(caplog: pytest.LogCaptureFixture) -> None:
    sink = FakeSink()
    sink.gate.clear()
    delivery = begin(sink, limit=3)
    delivery.put(message("0"))
    await tried(sink)
    for number in range(1, 6):
        delivery.put(message(str(number)))
    assert [each.id for each in delivery.waiting()] == ["0", "4", "5"]
    assert caplog.text.count("an alert is lost") == 3
    sink.gate.set()
    assert await delivery.drain(10)
    assert sink.delivered == ["0", "4", "5"]


def test_a_later_reminder_takes_the_place_of_one_that_waits() -> None:
    delivery = Delivery("ops", FakeSink())
    for each in (message("a", "x"), message("b", "x"), message("c"), message("d", "y"), message("e", "x")):
        delivery.put(each)

    # The first may be under way.
    assert [each.id for each in delivery.waiting()] == ["a", "c", "d", "e"]


@story
async def test_a_failure_is_said_once_and_not_at_every_try(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    delivery = begin(FakeSink(*[AlertError("answered 500")] * 6))
    delivery.put(message("a"))

    assert await delivery.drain(10)
    assert caplog.text.count("not delivered: answered 500") == 1
    assert "delivered, at try 7: a" in caplog.text


@story
async def test_the_words_of_a_bug_stay_unsaid(caplog: pytest.LogCaptureFixture) -> None:
    delivery = begin(FakeSink(ValueError("https://example.org/s3cr3t")))
    delivery.put(message("a"))

    assert await delivery.drain(10)
    assert "a bug in xboard-circus: ValueError" in caplog.text
    assert "in deliver" in caplog.text, "where it is, is told"
    assert "s3cr3t" not in caplog.text


@story
async def test_a_server_that_asks_for_a_pause_gets_it_unless_another_takes_its_place() -> None:
    first, second = FakeSink(AlertError("answered 429", retry_after=600)), FakeSink()
    delivery = begin(first)
    delivery.put(message("a"))
    await tried(first)
    assert not await delivery.drain(0.2)
    delivery.use(second)

    assert await delivery.drain(10)
    assert (first.delivered, second.delivered) == ([], ["a"])


@story
async def test_the_pauses_get_longer_with_each_failure_and_begin_anew_after_a_delivery_or_with_another_sink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[int] = []

    def counted(count: int) -> float:
        failures.append(count)
        return 0.01

    monkeypatch.setattr(module, "backoff", counted)
    delivery = begin(FakeSink(*[AlertError("answered 500")] * 4))
    delivery.put(message("a"))
    assert await delivery.drain(10)
    other = FakeSink(AlertError("answered 500"))
    delivery.use(other)
    delivery.put(message("b"))
    assert await delivery.drain(10)

    assert failures == [1, 2, 3, 4, 1]

    closed = FakeSink(*[AlertError("answered 500")] * 1000)
    delivery.use(closed)
    delivery.put(message("c"))
    await tried(closed)
    while failures[-1] < 3:
        await asyncio.sleep(0.01)
    delivery.use(FakeSink(AlertError("answered 500")))
    assert await delivery.drain(10)
    assert 1 in failures[-2:]  # an attempt that was under way may fail first


def test_what_is_remembered_comes_back_on_another_clock(tmp_path: Path) -> None:
    memory = AlertMemory(tmp_path / "alerts.json")
    gate = Gate(GateRules())
    incident = Incident("web", Trouble.DOWN, 100.0, "no worker ready", count=3)
    gate.review([incident], [], 110)
    memory.save(Remembered([incident], {"ops": gate.memory}, {"ops": [message("a", "x")]}), shift=1000)

    found = AlertMemory(tmp_path / "alerts.json").load(shift=1050, now=100)

    assert (tmp_path / "alerts.json").stat().st_mode & 0o777 == 0o600
    assert found.incidents == [Incident("web", Trouble.DOWN, 50.0, "no worker ready", count=3)]
    assert found.waiting == {"ops": [message("a", "x")]}
    again = Gate(GateRules(), found.gates["ops"])
    assert again.review(found.incidents, [], 70) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"incidents": [{}], "gates": {}, "waiting": {}}'])
def test_a_strange_file_is_no_memory(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "alerts.json").write_text(text)

    assert AlertMemory(tmp_path / "alerts.json").load(shift=0, now=100).incidents == []
    assert "cannot be read" in caplog.text


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = AlertMemory(tmp_path / "no" / "alerts.json")
    for _ in range(3):
        memory.save(Remembered(), shift=0)

    assert caplog.text.count("cannot be written") == 1


# --- the words ---


def notice(about: About, **changes: object) -> Notice:
    values = {"about": about, "watcher": "web", "trouble": Trouble.DOWN, "severity": Severity.CRITICAL}
    values |= {"reason": "no worker up for 30 s", "since": 0.0, "at": 95.0, **changes}
    return Notice(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "lang", "title"),
    [
        (notice(About.PROBLEM), "en", "[CRITICAL] web on host1: down"),
        (notice(About.REMINDER), "en", "[CRITICAL] web on host1: still down, for 1 min 35 s"),
        (notice(About.RECOVERED), "en", "[OK] web on host1: recovered (down)"),
        (
            notice(About.PROBLEM, trouble=Trouble.CRASH_LOOP, severity=Severity.WARNING),
            "en",
            "[WARNING] web on host1: crash loop",
        ),
        (
            notice(About.HELD_BACK, trouble=None, severity=Severity.INFO, count=7),
            "en",
            "[INFO] host1: 7 alerts held back",
        ),
        (notice(About.PROBLEM), "zh", "[CRITICAL] host1 上的 web：服务中断"),
        (notice(About.RECOVERED), "zh", "[OK] host1 上的 web：已恢复（服务中断）"),
    ],
)
def test_the_title_says_what_where_and_how_bad(told: Notice, lang: str, title: str) -> None:
    assert rendered(told, ORIGIN, lang=lang).title == title


@pytest.mark.parametrize(
    ("about", "lang", "title", "more"),
    [
        (
            About.PROBLEM,
            "en",
            "[CRITICAL] DOWN for 31 s, since 22:13:20: web, 0 of 2 up (host1: down)",
            [
                "Why: it has no worker",
                "Next: #1 is started again in 9 s",
                "Cure: correct what `xboard-circus why web` shows, then `xboard-circus retry web`",
                "Reason: no worker up for 30 s",
            ],
        ),
        (
            About.REMINDER,
            "zh",
            "[CRITICAL] 中断已持续 31 秒（自 22:13:20 起）：web，0/2 运行中（host1：服务中断）",
            ["原因：没有工作进程"],
        ),
        (About.RECOVERED, "en", "[OK] web on host1: recovered (down)", []),
    ],
)
def test_an_alert_begins_with_the_words_of_the_page(
    about: About, lang: str, title: str, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    cause = Say.NONE_UP_SAYING(total=2, why=Say.NO_WORKER())
    verdict = verdict_entry(
        Word.DOWN, cause, next=Say.NEXT_TRY(slot=1), next_in=9.0, cure=Say.CURE_RETRY(watcher="web")
    )
    down = watcher_entry(
        name="web", armed=True, numprocesses=2, workers=[], verdict={**verdict, "since": 31.0}, incident=None
    )

    lines = lines_of(down, aged=worded_since(1_700_000_031)) if notice(about).is_open else []
    sent = rendered(notice(about), ORIGIN, lang=lang, lines=lines)

    assert sent.title == title
    assert sent.text.splitlines()[: 1 + len(more)] == [title, *more]


@pytest.mark.parametrize("done", [AlertSay.DONE_RESTART, AlertSay.DONE_CRASH_LOOP])
def test_what_is_done_about_an_outage_says_of_no_worker_that_it_serves(done: AlertSay) -> None:
    """Given both workers down, then "its siblings serve on" under "0 of 2 up" is wrong."""
    assert "serve" not in done()


def test_a_text_says_why_since_when_what_was_done_and_what_to_do_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    sent = rendered(notice(About.PROBLEM, count=3, note="a limit"), ORIGIN, shift=1_700_000_000, new_id=lambda: "id1")

    assert sent.text.splitlines() == [
        "[CRITICAL] web on host1: down",
        "Reason: no worker up for 30 s",
        "Since: 2023-11-14T22:13:20+00:00",
        "Reported: 3 times",
        "Done: workers are started again within the limits of the ini file",
        "Next: xboard-circus -c /srv/circus.ini why web",
        "Note: a limit",
    ]
    assert sent.document == {
        "id": "id1",
        "event": "problem",
        "kind": "down",
        "severity": "critical",
        "watcher": "web",
        "host": "host1",
        "config_file": "/srv/circus.ini",
        "reason": "no worker up for 30 s",
        "say": None,
        "since": "2023-11-14T22:13:20+00:00",
        "time": "2023-11-14T22:14:55+00:00",
        "seconds": 95.0,
        "count": 3,
        "done": "workers are started again within the limits of the ini file",
        "next": "xboard-circus -c /srv/circus.ini why web",
        "note": "a limit",
        "title": sent.title,
        "text": sent.text,
    }


def test_an_alert_in_chinese_gives_its_reason_in_chinese_and_as_data() -> None:
    reason = Say.NONE_UP_FOR_SAYING(held=seconds(30), why=Say.EXITED_SAYING(code=3, line="ValueError: no key"))

    sent = rendered(notice(About.RECOVERED, reason=reason), ORIGIN, lang="zh")

    assert sent.document["reason"] == "已有 30 秒没有运行中的工作进程：以退出码 3 退出：“ValueError: no key”"
    assert sent.document["say"] == reason.as_data()
    assert f"现状：{sent.document['reason']}" in sent.text
    assert "持续：1 分钟 35 秒" in sent.text


def test_a_summary_in_chinese_names_the_kinds_in_chinese_after_a_restart_too(tmp_path: Path) -> None:
    gate = Gate(GateRules(max_per_hour=1, remind_every=0))
    loops = [Incident(f"w{number}", Trouble.CRASH_LOOP, number, "5 failures") for number in range(3)]
    gate.review(loops, [], 10)
    memory = AlertMemory(tmp_path / "alerts.json")
    memory.save(Remembered(loops, {"ops": gate.memory}), shift=0)
    again = Gate(gate.rules, memory.load(shift=0, now=100).gates["ops"])

    (summary,) = again.review(loops, [], HOUR + 10)

    text = rendered(summary, ORIGIN, lang="zh").text
    assert "因 max_per_hour 未发出的告警有 2 条：w1 反复崩溃（告警），w2 反复崩溃（告警）" in text
    assert "w1 crash loop (problem), w2 crash loop (problem)" in rendered(summary, ORIGIN).text


def test_a_restart_of_the_plugin_keeps_the_data_of_a_reason(tmp_path: Path) -> None:
    memory = AlertMemory(tmp_path / "alerts.json")
    incident = Incident("web", Trouble.DOWN, 1.0, Say.NONE_UP_FOR(held=seconds(30)))

    memory.save(Remembered([incident]), shift=0)

    assert data_of(memory.load(shift=0, now=100).incidents[0].reason) == data_of(incident.reason)


def test_an_end_says_how_long_it_lasted_and_a_silent_circusd_has_no_why() -> None:
    over = rendered(notice(About.RECOVERED, reason="2 of 2 workers up"), ORIGIN).text
    silent = rendered(notice(About.PROBLEM, watcher=CIRCUSD, trouble=Trouble.SILENT), ORIGIN).text

    assert "Now: 2 of 2 workers up" in over
    assert "Lasted: 1 min 35 s" in over
    assert "Next: xboard-circus -c /srv/circus.ini status" in silent


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("about", [About.PROBLEM, About.REMINDER, About.RECOVERED])
def test_there_are_words_for_everything(lang: str, trouble: Trouble, about: About) -> None:
    sent = rendered(notice(about, trouble=trouble), ORIGIN, lang=lang)

    assert "\n" not in sent.title
    assert "{" not in sent.text
