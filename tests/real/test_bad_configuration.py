"""`circusctl reloadconfig` refuses what `xboard-circus check` refuses, and does what the file says now."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .harness import FAST_RESTARTS, Circusd, circusd, eventually, holds


@pytest.fixture
def c(tmp_path: Path) -> Iterator[Circusd]:
    with circusd(tmp_path, options=FAST_RESTARTS) as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("numprocesses", -3, "numprocesses"),
        ("use_sockets", False, "socket"),
        ("cmd", "", "cmd"),
        ("hooks.before_spawn", "no_such_module.hook", "no_such_module"),
    ],
)
def test_reloadconfig_refuses_what_check_refuses(c: Circusd, option: str, value: object, named: str) -> None:
    """Given a mistake in the ini, when it is read again, the reply names it, and the same workers serve on."""
    pids = c.workers()
    c.write_ini(watcher__web={option: value})
    assert c.run_cli("check").returncode != 0

    reply = c.call("reloadconfig", waiting=True)

    assert reply["status"] == "error", reply
    assert named in reply["reason"]
    holds(lambda: c.workers() == pids and c.watcher()["numprocesses"] == 2, seconds=1)
    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(lambda _: c.serves(), range(10)))
    c.write_ini()
    c.do("reloadconfig", waiting=True)
    assert c.wait_ready() == pids


@pytest.mark.parametrize(
    ("command", "given", "says"),
    [
        ("set", {"options": {"numprocesses": -3}}, "numprocesses = -3: too small; write 0 or more"),
        ("incr", {"nb": -3}, "numprocesses = -3: too small; write 0 or more"),
        ("set", {"options": {"shell": True}}, "shell = True: a signal reaches only the shell in front of the worker"),
        ("set", {"options": {"send_hup": True}}, "send_hup = True: `circusctl reload` would send SIGHUP"),
    ],
)
def test_a_command_that_would_end_the_workers_is_refused_before_anything_is_touched(
    c: Circusd, command: str, given: dict[str, Any], says: str
) -> None:
    """Given two workers, when a command brings an option that ends them all or that they cannot have, then it is
    refused with the reason, under any spelling of the name, and the same workers serve on."""
    pids = c.workers()
    before = c.call("options", name="web")["options"]

    reply = c.call(command, name="WEB", waiting=True, **given)

    assert (reply["status"], reply["reason"][: len(says)]) == ("error", says)
    assert c.call("options", name="web")["options"] == before
    holds(lambda: c.workers() == pids and c.watcher()["numprocesses"] == 2, seconds=1)
    assert c.serves()


def test_a_number_that_is_put_back_in_the_ini_is_put_back(c: Circusd) -> None:
    """Given two workers, when the ini says 3 and then 2 again, then three serve and then two, one of them an old."""
    for number in (3, 2):
        c.write_ini(watcher__web={"numprocesses": number})
        c.do("reloadconfig", waiting=True)

        eventually(lambda wanted=number: len(c.workers()) == wanted, what=f"{number} workers")  # type: ignore[misc]
        c.wait_ready(number)

    assert c.watcher()["numprocesses"] == 2


def test_a_number_that_an_operator_changed_is_what_the_ini_says_after_reloadconfig(c: Circusd) -> None:
    """Given two workers in the ini and three by `incr`, when another number is in the ini, then that counts."""
    c.do("incr", name="web", waiting=True)
    c.wait_ready(3)

    c.write_ini(watcher__web={"numprocesses": 1})
    c.do("reloadconfig", waiting=True)

    c.wait_ready(1)
    eventually(lambda: len(c.workers()) == 1)
