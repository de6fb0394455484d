"""The verdict and the table of `status` and `top`, at each width of a terminal."""

from typing import Any

import pytest
from rich.cells import cell_len
from state_views import watcher_view, worker_view

from xboard_circus.cli.summary import COLUMNS, FEW, Summary, folded, headline, rows, table
from xboard_circus.core.history import FIGURES
from xboard_circus.core.reason import data_of, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.core.state_schema import parse_state
from xboard_circus.local_time import local_time
from xboard_circus.snapshot import from_state

WIDTHS = (40, 60, 80, 120)
MIB = 2**20
NOW = 1_000_000.0


def figures(**known: float) -> tuple[float | None, ...]:
    return tuple(known.get(name) for name in FIGURES)


RATES = figures(**{"2xx": 40.0, "5xx": 1.3, "p95": 0.0123})


def summary(*watchers: Any, quiet_for: float | None = None) -> Summary:
    circusd = {"pid": 4711, "started": 1, "endpoint": "tcp://h:1"}
    found = from_state(parse_state({"circusd": circusd, "watchers": list(watchers)}))
    pids = [worker["pid"] for watcher in found.watchers for worker in watcher["workers"]]
    traffic = {
        watcher["name"]: {0: RATES, 1: RATES} for watcher in found.watchers if watcher["name"] != "plugin:xboard"
    }
    return Summary(found, dict.fromkeys(pids, (56 * MIB, 3.0)), traffic, quiet_for, NOW)


def workers(count: int, *, first: int = 100) -> list[Any]:
    return [worker_view(first + n, "up", slot=n + 1, reason="") for n in range(count)]


def looping(**more: Any) -> Any:
    held = worker_view(0, "cooling", slot=1, next_try=108.0, reason="cooling down, next try in 108 s")
    port = {"host": "127.0.0.1", "port": 8000, "state": "bound", "reason": "", "say": None}
    failure = "exited with code 1 before it was up: KeyError: 'DATABASE_URL'"
    known = {"name": "api", "last_reason": failure, "last_reason_age": 12.0, "port": port}
    known |= {"incident": {"age": 192.0, "worst": "looping"}, "budget": {"used": 5, "limit": 5}}
    entry = watcher_view(held, **{**known, **more})
    return {**entry, "verdict": {**entry["verdict"], "since": 192.0}}


def lines(given: Summary, width: int, *, whole: bool = False) -> list[str]:
    return [line.plain for _, line in table(rows(given, whole=whole), width, wraps=True)]


def test_the_first_line_is_what_since_when_why_what_next_and_the_cure() -> None:
    text = headline(summary(watcher_view(*workers(2)), looping())).plain

    assert text.startswith(
        f"DOWN for 3 min 12 s, since {local_time(NOW - 192, NOW)}: api, 0 of 1 up. "
        "Every start fails: exited with code 1 before it was up: "
        "KeyError: 'DATABASE_URL'. Next: #1 is started again in 1 min 48 s. Cure: correct what `xboard-circus why api`"
    )
    assert "fine" not in text


def test_all_fine_counts_backends_workers_requests_and_the_quiet_time() -> None:
    plugin = watcher_view(*workers(1, first=300), name="plugin:xboard", armed=False)
    found = summary(
        watcher_view(*workers(2)), watcher_view(*workers(1, first=200), name="api"), plugin, quiet_for=260_000
    )

    assert headline(found).plain == "All fine: 2 backends, 3 workers, 83 requests/s, p95 12 ms, last trouble 3 d ago."


def test_further_trouble_and_what_is_stopped_is_named_after_the_worst() -> None:
    stopped = watcher_view(name="job", status="stopped", numprocesses=1)
    text = headline(summary(looping(), looping(name="web"), stopped)).plain

    assert text.startswith("DOWN for 3 min 12 s, since ")
    assert text.endswith(" Also: web is looping, job is stopped.")
    assert headline(summary(watcher_view(*workers(1)), stopped)).plain.endswith(" Also: job is stopped.")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_word_is_cut_at_any_width(width: int) -> None:
    """Each word of the picture is one of the widest picture's: a column that does not fit is left out as a whole."""
    given = summary(looping(), looping(name="my-other-backend"), watcher_view(*workers(3), last_reason="killed"))
    words = {word for line in [*lines(given, 500), headline(given).plain] for word in line.split()}

    shown = [*lines(given, width), *(line.plain for line in folded(headline(given), width))]

    assert [line for line in shown if cell_len(line) > width] == []
    assert {word for line in shown for word in line.split()} - words == set()
    assert {word for line in folded(headline(given), width) for word in line.plain.split()} == {
        *headline(given).plain.split()
    }
    assert all(line.startswith(("  ", "NAME", "api", "my-", "web")) for line in shown[: len(lines(given, width))])


def test_a_narrow_table_keeps_the_first_columns_and_a_wide_one_has_all() -> None:
    given = summary(looping())

    assert lines(given, 40)[0].split() == ["NAME", "STATE", "UP", "PID", "AGE", "CPU"]
    wanted = " ".join(title for title in COLUMNS if title not in ("REQ/S", "P95", "IN FLIGHT"))  # none is up
    assert " ".join(lines(given, 160)[0].split()) == wanted


def test_trouble_is_first_and_many_healthy_workers_are_folded() -> None:
    many = watcher_view(*workers(FEW), name="web")
    found = summary(many, looping())

    names = [(row.watcher, row.slot) for row in rows(found, whole=False)]
    assert names == [("api", 0), ("api", 1), ("web", 0)]
    assert len([*rows(found, whole=True)]) == 3 + FEW
    assert len([*rows(summary(watcher_view(*workers(FEW))), whole=False)]) == 1 + FEW


def test_of_many_workers_those_in_trouble_are_listed_and_the_others_counted() -> None:
    """Given one of 40 that hangs, then the first line is not scrolled out of a terminal by 39 healthy rows."""
    hung = worker_view(99, "hung", slot=40)
    given = summary(watcher_view(*workers(39), hung, name="web"))

    assert [row.slot for row in rows(given, whole=False)] == [0, 40]
    assert "39 healthy workers: `xboard-circus status --all` lists them" in "\n".join(lines(given, 120))
    assert len([*rows(given, whole=True)]) == 41
    assert "healthy" not in "\n".join(lines(given, 120, whole=True))


def test_only_a_worker_that_is_up_has_requests() -> None:
    """Given one that is held and one that is starting in the slot of one that is up, then they have no rates."""
    held = worker_view(0, "cooling", slot=2, next_try=9.0)
    given = [worker_view(100, "up", slot=1), worker_view(101, "starting", slot=1), held]
    found = {
        row.cells["STATE"].plain: row.cells["REQ/S"].plain for row in rows(summary(watcher_view(*given)), whole=True)
    }

    assert found == {"degraded": "41", "up": "41", "starting": "", "held": ""}
    down = next(rows(summary(watcher_view(held)), whole=True))
    assert (down.cells["REQ/S"].plain, down.cells["P95"].plain) == ("", "")


def test_the_last_reason_is_not_said_of_a_watcher_with_held_workers() -> None:
    """The first line has it, with times that go on: "next try in 59.9 s (15 s ago)" is no help."""
    last = {"last_reason": "killed; next try in 59.9 s", "last_reason_age": 15.0}

    assert "last: killed" in "\n".join(lines(summary(watcher_view(*workers(2), **last)), 120))
    assert "last: " not in "\n".join(lines(summary(looping(**last)), 120))


def test_whoever_holds_the_port_is_named_once_and_not_by_each_worker() -> None:
    waiting = [worker_view(0, "held", slot=n, held_by="port", reason="waiting for the port: nginx") for n in (1, 2)]

    assert "nginx" not in "\n".join(lines(summary(watcher_view(*waiting)), 120))


def test_what_was_to_come_next_is_not_shown_of_what_is_over() -> None:
    """Given a crash of a minute ago, when the watcher is well, or stopped, then no "next try in 299.8 s" is shown."""
    reason = Say.COUNTED(why=Say.KILLED(), then=Say.THEN_AT_ONCE(failures=1, burst=5, window="600 s"))
    last: dict[str, Any] = {"last_reason": reason, "last_reason_say": data_of(reason), "last_reason_age": 60.0}

    shown = "\n".join(lines(summary(watcher_view(*workers(2), **last)), 120))

    assert "last: killed from outside by SIGKILL (1 min ago)" in shown


def test_a_stopped_watcher_waits_for_no_port() -> None:
    port = {"host": "127.0.0.1", "port": 8000, "state": "waiting", "reason": "", "say": None}
    given = (watcher_view(name="web", status="stopped", port=port), looping(port=port))

    found = [next(rows(summary(each), whole=True)) for each in given]

    assert [row.cells["PORT"].plain for row in found] == ["127.0.0.1:8000", "127.0.0.1:8000 waiting"]


def test_workers_in_trouble_are_above_those_that_are_up() -> None:
    up, hung = worker_view(100, "up", slot=1), worker_view(102, "hung", slot=3)
    held = worker_view(0, "cooling", slot=2, next_try=9.0)
    found = rows(summary(watcher_view(up, held, hung, worker_view(103, "up", slot=4))), whole=True)

    assert [row.slot for row in found] == [0, 3, 2, 1, 4]


def test_only_the_trouble_that_is_not_in_the_first_line_has_its_cause_below() -> None:
    found = summary(looping(), looping(name="web"))

    causes = [row.watcher for row in rows(found, whole=False) for note in row.notes if "Every start" in note.plain]
    assert causes == ["web"]


def test_why_a_reload_failed_is_said_once() -> None:
    why = Say.NEW_FAILED(slot=1, why=Say.EXITED_STARTING(code=3))
    reload = {
        "state": "failed",
        "done": 0,
        "total": 2,
        "age": 5.0,
        "replaced": [],
        "old": 2,
        "log": "",
        **with_say(why),
    }
    last = with_say(Say.RELOAD_BROKEN_OFF(state="failed", why=why), "last_reason")
    failed: Any = {**watcher_view(*workers(2)), "reload": reload, **last}

    for found in (summary(failed), summary(looping(), failed)):
        assert f"{headline(found).plain} {lines(found, 200)}".count(why) == 1
    assert headline(summary(looping(), failed)).plain.endswith(" Also: a reload of web failed.")


def test_what_a_process_calls_itself_cannot_move_the_cursor() -> None:
    given = summary(looping(name="evil\x1b[2Jname"))

    assert "\x1b" not in "".join([*lines(given, 80), headline(given).plain])
