"""Circus's own `reload` replaces workers one by one, the new one ready first; with broken code nobody is ended."""

from pathlib import Path

import pytest

from .free_ports import free_port
from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually, holds
from .test_reload import reload_of

UVICORN = "{python} -m uvicorn {app} --port {port}"


def serve_on(c: Circusd, pids: list[int]) -> bool:
    return c.workers() == pids and c.ready() == pids and c.serves()


@pytest.mark.parametrize("how", [[], ["--sequential"]], ids=["plain", "sequential"])
def test_broken_code_ends_nobody_and_the_reason_is_on_show(tmp_path: Path, how: list[str]) -> None:
    """Given two workers, when circusctl reloads code that does not import, then both serve on and `status` says why."""
    with circusd(tmp_path, options=FAST_RESTARTS) as c:
        old = c.wait_ready()
        c.set("boot", "die")

        assert c.run_circusctl("reload", "web", *how).returncode == 0
        holds(lambda: set(old) <= set(c.ready()) and c.serves(), seconds=1.0)
        eventually(lambda: reload_of(c)["state"] == "failed")

        eventually(lambda: serve_on(c, old))
        assert "told to die at import" in reload_of(c)["log"]
        assert c.watcher()["last_reason"]


@pytest.mark.parametrize("name", [{"name": "web"}, {}], ids=["one watcher", "all"])
def test_with_waiting_the_answer_is_how_it_ended(tmp_path: Path, name: dict[str, str]) -> None:
    """Given two workers, when a reload is waited for, then the answer is an error for broken code, else who came."""
    with circusd(tmp_path, options=FAST_RESTARTS) as c:
        old = c.wait_ready()
        c.set("boot", "die")

        failed = c.call("reload", timeout=90, waiting=True, **name)

        assert failed["status"] == "error", failed
        assert reload_of(c)["reason"] in failed["reason"]
        assert serve_on(c, old)

        c.set("boot", "")
        done = c.call("reload", timeout=90, waiting=True, **name)

        assert done["status"] == "ok", done
        assert not set(old) & set(c.wait_ready())


def test_circusd_takes_other_commands_while_it_reloads(tmp_path: Path) -> None:
    """Given a reload whose new worker is slow, when a stop comes, then it is taken at once and ends the reload."""
    with circusd(tmp_path, options=FAST_RESTARTS) as c:
        c.wait_ready()
        c.set("boot", "held")

        assert c.call("reload", name="web")["status"] == "ok"
        eventually(lambda: reload_of(c)["state"] == "running")
        for command in ("reload", "restart"):
            second = c.call(command, name="web")
            assert (second["status"], "reload" in second.get("reason", "")) == ("error", True), second
        assert c.call("stop", name="web", waiting=True)["status"] == "ok"

        eventually(lambda: reload_of(c)["state"] == "stopped")


def test_a_command_that_is_set_is_taken_up_by_new_workers_one_by_one(tmp_path: Path) -> None:
    """Given two workers, when `circusctl set` gives them a command that does not run, then both serve on."""
    with circusd(tmp_path, options=FAST_RESTARTS) as c:
        old = c.wait_ready()

        c.do("set", name="web", options={"cmd": "no-such-program"})
        eventually(lambda: reload_of(c)["state"] == "failed")

        eventually(lambda: serve_on(c, old))


def test_a_stopped_watcher_is_started_and_one_that_binds_its_port_is_restarted(tmp_path: Path) -> None:
    """Given a stopped watcher, when circusctl reloads it, then it starts, as Circus has it.

    Given a server that binds its port, which nothing but its command says, when it is restarted, it stops and starts.
    """
    own = Watcher("own", numprocesses=1, command=UVICORN, listens=False, options=FAST_RESTARTS)
    with circusd(tmp_path, watchers=[Watcher(options=FAST_RESTARTS), own]) as c:
        c.wait_ready()
        [old] = c.wait_ready(name="own")

        c.do("restart", name="own", waiting=True)
        eventually(lambda: old not in c.wait_ready(name="own"), what="another one is ready")
        eventually(lambda: c.serves("own"), what="it has bound its port")  # which uvicorn does after the app's startup

        c.do("stop", name="web", waiting=True)

        c.do("reload", name="web", waiting=True)

        c.wait_ready()


@pytest.mark.parametrize(
    "watcher",
    [
        pytest.param(Watcher(numprocesses=1, options={"singleton": True}), id="a singleton"),
        pytest.param(
            Watcher(
                numprocesses=1, command=UVICORN, listens=False, port=(port := free_port()), options={"port.port": port}
            ),
            id="a server that binds by itself",
        ),
    ],
)
def test_where_no_second_worker_may_start_the_answer_says_what_to_do(tmp_path: Path, watcher: Watcher) -> None:
    """Given one worker beside which no other can run, when it is to be reloaded, then that is refused, and it lives."""
    with circusd(tmp_path, watchers=[watcher]) as c:
        old = c.wait_ready()

        refusals = [c.call(command, name="web") for command in ("reload", "xboard_reload")]

        assert [each["status"] for each in refusals] == ["error", "error"], refusals
        assert all("`xboard-circus restart web`" in each["reason"] for each in refusals)
        assert c.workers() == old
