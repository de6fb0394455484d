"""Reasons and answers on a Chinese page: made of their data by the page's own script, in a real Chromium."""

# ruff: noqa: RUF001 - Chinese has marks of its own

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from xboard_circus.core.causes import Cause, Death, cause_of
from xboard_circus.core.durations import seconds, span
from xboard_circus.core.ports import Holder, Policy, plan
from xboard_circus.core.reason import with_say
from xboard_circus.core.sentences import Say
from xboard_circus.dashboard.answers import Answer
from xboard_circus.dashboard.settings import Settings
from xboard_circus.dashboard.tokens import load_or_make
from xboard_circus.ledger.event_text import Told
from xboard_circus.translations import sentences, translated

from .browsing import chromium
from .free_ports import free_port
from .parts import needs
from .visitor import served

CHINESE = sentences("zh-CN")
Speak = Callable[[list[Mapping[str, Any]]], list[str]]


@pytest.fixture(scope="module")
def speak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speak]:
    """Give what the script of a Chinese page makes of messages. Nobody answers at the endpoint; none has to."""
    needs("chromium")
    folder = tmp_path_factory.mktemp("reasons")
    settings = Settings(label="here", folder=folder, endpoint=f"tcp://127.0.0.1:{free_port()}")
    with served(settings) as visitor, chromium(locale="zh-CN") as browser:
        page = browser.pages[0]
        page.goto(f"http://127.0.0.1:{visitor.port}/login#token={load_or_make(folder).admin}")
        page.wait_for_url(f"http://127.0.0.1:{visitor.port}/")

        def spoken(messages: list[Mapping[str, Any]]) -> list[str]:
            load = "const { reasonIn } = await import('./static/reason.js')"
            script = f"async (all) => {{ {load}; return all.map((each) => reasonIn(each)); }}"
            found: list[str] = page.evaluate(script, messages)
            return found

        yield spoken


def test_every_sentence_is_said_in_chinese_with_its_values(speak: Speak) -> None:
    """Given each sentence of each catalogue, when page and alerts show it, then both say the Chinese one."""
    kinds = (Say, Told, Answer)
    fields = {each.name: re.findall(r"\{(\w+)\}", each.value) for kind in kinds for each in kind}
    reasons = [each(**{name: f"={name}=" for name in fields[each.name]}) for kind in kinds for each in kind]
    expected = [re.sub(r"\{(\w+)\}", r"=\1=", CHINESE[reason.key]) for reason in reasons]

    assert speak([with_say(reason) for reason in reasons]) == expected
    assert [translated(reason, "zh") for reason in reasons] == [" ".join(each.split()) for each in expected]


STRANGER: dict[str, Any] = {"started": 7, "command": "python -m http.server, x", "user": "alice", "cwd": "/srv"}
ORPHAN = Holder(pid=9, started=7, age=65, instance="i", circusd=(8, 1))
SILENCE = Say.NO_ANSWER_WITHIN(timeout=seconds(2))


@pytest.mark.parametrize(
    ("reason", "chinese"),
    [
        pytest.param(
            Say.COUNTED(
                why=cause_of(Death(exit_code=3, was_up=False, log_tail="ValueError: no key; try a: b"))[1],
                then=Say.THEN_WAIT(failures=2, burst=5, window=seconds(600), wait=seconds(1.2)),
            ),
            "以退出码 3 退出：“ValueError: no key; try a: b”；重启额度：600 秒内已用 2/5，1.2 秒后重试",
            id="what a worker wrote is quoted, whatever stands in it",
        ),
        pytest.param(
            cause_of(Death(exit_code=-9, was_up=True))[1], "被外部用 SIGKILL 终止（可能是内存不足）", id="a kill"
        ),
        pytest.param(
            cause_of(Death(exit_code=-9, was_up=True, our_kill=Cause.UNHEALTHY, our_reason=Say.HUNG(why=SILENCE)))[1],
            "卡死：2 秒内没有响应",
            id="our own kill",
        ),
        pytest.param(
            plan(
                [Holder(pid=4242, age=11_000, **STRANGER), Holder(pid=1, age=5, **STRANGER)],
                policy=Policy.ORPHANS,
                instance="i",
                own=(),
            ).reason,
            "占用者是进程 4242 (“python -m http.server, x”)，用户 alice，已运行 3 小时，目录 /srv：与本实例无关，"
            "进程 1 (“python -m http.server, x”)，用户 alice，已运行 5 秒，目录 /srv：与本实例无关",
            id="who holds the port",
        ),
        pytest.param(
            plan([ORPHAN], policy=Policy.ORPHANS, instance="i", own=()).reason,
            "正在停止进程 9，已运行 65 秒：本实例的遗留进程，其 circusd 8 已不在",
            id="an orphan",
        ),
        pytest.param(
            cause_of(
                Death(
                    exit_code=-15,
                    was_up=True,
                    commanded_by=Say.OPERATOR_BY(by=Say.BY_PAGE(role=Say.ROLE_ADMIN(), address="127.0.0.1")),
                )
            )[1],
            "按命令结束：操作员：控制台（管理员，127.0.0.1）",
            id="who asked",
        ),
        pytest.param(
            cause_of(Death(exit_code=-15, was_up=True, commanded_by="reload"))[1],
            "按命令结束：重载",
            id="what asked",
        ),
        pytest.param(Say.FORGIVEN(held=span(3725)), "已运行 1 小时 2 分钟，重启额度恢复", id="two units"),
        pytest.param(
            Say.EXITED_SAYING(code=1, line="ok again; died by SIGHUP {code}"),
            "以退出码 1 退出：“ok again; died by SIGHUP {code}”",
            id="a worker that writes a sentence of ours",
        ),
        pytest.param("plain text of another program", "plain text of another program", id="no data"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_reasons_as_they_come(speak: Speak, reason: str, chinese: str) -> None:
    assert speak([with_say(reason)]) == [chinese]


@pytest.mark.parametrize(
    "say",
    [
        pytest.param({"key": "OF_A_LATER_VERSION", "fields": {}}, id="a key of a later version"),
        pytest.param({"key": "SICK", "fields": {"why": {"key": "OF_A_LATER_VERSION", "fields": {}}}}, id="within"),
        pytest.param({"key": "SICK", "fields": {"because": "x"}}, id="other fields"),
        pytest.param({"key": "toString"}, id="a name that every object has"),
        pytest.param({"fields": 7}, id="no key"),
        pytest.param([], id="a list"),
        pytest.param(7, id="a number"),
        pytest.param(None, id="null"),
    ],
)
def test_data_that_the_page_does_not_know_leaves_the_text(speak: Speak, say: object) -> None:
    assert speak([{"reason": "the text", "say": say}]) == ["the text"]
