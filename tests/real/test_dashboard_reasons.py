"""What circusd says in English, on a Chinese page: taken apart by the page's own script, in a real Chromium."""

# ruff: noqa: RUF001 - Chinese has marks of its own

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from xboard_circus.core.causes import Cause, Death, cause_of
from xboard_circus.core.ports import Holder, Policy, plan
from xboard_circus.core.sentences import FAMILIES, NUMBERS, SPANS, Say
from xboard_circus.dashboard.settings import Settings
from xboard_circus.dashboard.tokens import load_or_make
from xboard_circus.dashboard.translations import sentences

from .browsing import chromium
from .parts import needs
from .ports import free_port
from .visitor import served

ROWS = sentences("zh-CN")["sentences"]
CHINESE = {name: chinese for kind, name, _, chinese in ROWS if kind == "Say"}
Speak = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module")
def speak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speak]:
    """Give what the script of a Chinese page makes of sentences. Nobody answers at the endpoint; none has to."""
    needs("chromium")
    folder = tmp_path_factory.mktemp("reasons")
    settings = Settings(label="here", folder=folder, endpoint=f"tcp://127.0.0.1:{free_port()}")
    with served(settings) as visitor, chromium(folder, locale="zh-CN") as browser:
        page = browser.pages[0]
        page.goto(f"http://127.0.0.1:{visitor.port}/login#{load_or_make(folder).admin}")
        page.wait_for_url(f"http://127.0.0.1:{visitor.port}/")

        def spoken(words: list[str]) -> list[str]:
            script = "async (all) => { const { say } = await import('./static/reasons.js'); return all.map(say); }"
            found: list[str] = page.evaluate(script, words)
            return found

        yield spoken


def sample(name: str) -> tuple[str, str]:
    """Return something that may stand in a field, and how it is said in Chinese."""
    if name in NUMBERS:
        return "7", "7"
    if name in SPANS:
        return "1 min 15 s", "1 分钟 15 秒"
    if name in FAMILIES:
        members = [row for row in ROWS if row[1].startswith(f"{name.upper()}_") and "{" not in row[2]]
        _, _, english, chinese = members[0] if members else next(row for row in ROWS if row[1] == "TIMES_ONCE")
        return english, chinese
    return {"cause": ("crash", "崩溃"), "kind": ("restart", "重启")}.get(name, (f"<{name}>", f"<{name}>"))


def filled(template: str, language: int) -> str:
    return re.sub(r"\{(\w+)\}", lambda field: value_of(field[1])[language], template)


def value_of(name: str) -> tuple[str, str]:
    if name in ("then", "found", "who", "what", "whose"):
        row = next(row for row in ROWS if row[1].startswith(f"{name.upper()}_"))
        return filled(row[2], 0), filled(row[3], 1)
    return sample(name)


def test_every_sentence_is_understood_and_keeps_its_values(speak: Speak) -> None:
    rows = [row for row in ROWS if not row[1].startswith("FACT_")]  # pieces of others
    said = speak([filled(english, 0) for _, _, english, _ in rows])

    wrong = {
        f"{kind}.{name}": (said_so, filled(chinese, 1))
        for (kind, name, _, chinese), said_so in zip(rows, said, strict=True)
        if said_so != filled(chinese, 1)
    }
    assert wrong == {}


STRANGER: dict[str, Any] = {"started": 7, "command": "python -m http.server, x", "user": "alice", "cwd": "/srv"}
ORPHAN = Holder(pid=9, started=7, age=65, instance="i", circusd=(8, 1))
WEDGED = "no answer within 2 s"


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        pytest.param(
            Say.COUNTED(
                why=cause_of(Death(exit_code=3, was_ready=False, log_tail="ValueError: no key; try a: b"))[1],
                then=Say.THEN_WAIT(failures=2, burst=5, window="600 s", wait="1.2 s"),
            ),
            "退出，退出码 3：ValueError: no key; try a: b；600 秒内第 2 次失败（上限 5 次），1.2 秒后重试",
            id="what a worker wrote is quoted, whatever stands in it",
        ),
        pytest.param(
            cause_of(Death(exit_code=-9, was_ready=True))[1],
            "被外部用 SIGKILL 终止（可能是内存不足）",
            id="a kill",
        ),
        pytest.param(
            cause_of(Death(exit_code=-9, was_ready=True, our_kill=Cause.UNHEALTHY, our_reason=f"wedged: {WEDGED}"))[1],
            "卡死：2 秒内没有响应",
            id="our own kill",
        ),
        pytest.param(
            "sick: live path failed 3 times in a row: status 503, no answer within 0.4 s",
            "异常：存活检查连续 3 次失败：状态码 503，0.4 秒内没有响应",
            id="four sentences in each other",
        ),
        pytest.param(
            plan(
                [Holder(pid=4242, age=11_000, **STRANGER), Holder(pid=1, age=5, **STRANGER)],
                policy=Policy.ORPHANS,
                instance="i",
                own=(),
            ).reason,
            "占用者是进程 4242 (python -m http.server, x), 用户 alice, 已运行 3 小时, 目录 /srv：与本实例无关, "
            "进程 1 (python -m http.server, x), 用户 alice, 已运行 5 秒, 目录 /srv：与本实例无关",
            id="who holds the port",
        ),
        pytest.param(
            plan([ORPHAN], policy=Policy.ORPHANS, instance="i", own=()).reason,
            "正在停止进程 9, 已运行 65 秒：本实例的遗留进程，其 circusd 8 已不在",
            id="an orphan",
        ),
        pytest.param(
            "commanded: operator: dashboard: admin from 127.0.0.1",
            "按命令结束：操作员：控制台（管理员，127.0.0.1）",
            id="who asked",
        ),
        pytest.param("commanded: reload", "按命令结束：滚动重载", id="what asked"),
        pytest.param("none of ours: at all", "none of ours: at all", id="what nobody here says"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_reasons_as_they_come(speak: Speak, english: str, chinese: str) -> None:
    assert speak([english]) == [chinese]


def test_what_a_process_wrote_is_never_translated(speak: Speak) -> None:
    """Given a worker that writes sentences of ours, when they are quoted, then they stand as it wrote them."""
    assert speak([Say.EXITED_SAYING(code=1, line="well again; died by SIGHUP")]) == [
        CHINESE["EXITED_SAYING"].format(code=1, line="well again; died by SIGHUP")
    ]


def test_a_reason_made_to_be_hard_to_take_apart_is(speak: Speak) -> None:
    """Given sentences in sentences without end, when they are said, then in no time, or this test never ends."""
    hard = ["pid " * 250, "x; kept, since " * 70, "x, asked for by " * 60, "wedged: sick: recycled: " * 40]

    assert [len(each) > 100 for each in speak(hard)] == [True] * len(hard)
