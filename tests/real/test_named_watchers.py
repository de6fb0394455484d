"""``scale``, ``stop NAME``, ``start NAME``, ``signal`` and ``describe`` against a real circusd."""

from pathlib import Path

from .harness import Circusd, Watcher, circusd, eventually


def said(c: Circusd, *arguments: str) -> str:
    result = c.run_cli(*arguments)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}{c.report()}"
    return result.stdout


def test_one_watcher_is_stopped_started_scaled_and_signalled_and_the_other_serves(tmp_path: Path) -> None:
    """Given two backends, when one is operated by its name, then it does so, and the other keeps its workers."""
    with circusd(tmp_path, watchers=[Watcher(), Watcher("api")]) as c:
        c.wait_ready()
        others = c.wait_ready(name="api")

        assert said(c, "stop", "WEB") == "stopped web; `xboard-circus start web` starts it\n"
        assert c.verdict() == "stopped"
        assert "Also: web is stopped." in said(c, "status").splitlines()[0]
        assert said(c, "start", "web").endswith("web: 2 of 2 up\nready\n")
        assert "web: 2 -> 3 workers until circusd restarts" in (scaled := said(c, "scale", "web", "3"))
        assert scaled.endswith("web: 3 of 3 up\nready\n")
        assert f"  numprocesses = 3  (in force; {c.ini.name}:" in said(c, "describe", "web")

        by_slot = c.by_wid()
        refused = c.run_cli("signal", "web", "HUP")  # uvicorn does not handle it
        assert (refused.returncode, "SIGHUP would end web #1" in refused.stderr, c.by_wid()) == (1, True, by_slot)
        assert said(c, "signal", "web:2", "TERM") == f"sent SIGTERM to web #2 (pid {by_slot[2]})\n"
        eventually(lambda: by_slot[2] not in c.workers() and len(c.wait_ready(3)) == 3, what="another one is there")
        assert {by_slot[1], by_slot[3]} <= {*c.workers()}
        said(c, "scale", "web", "1")
        eventually(lambda: len(c.workers()) == 1)
        assert c.wait_ready(name="api") == others
