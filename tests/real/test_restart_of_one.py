"""A restart of one watcher, whoever asks for it, never leaves less serving than before; nor does the printed cure."""

from pathlib import Path

from .harness import BUNDLE, circusd, eventually, holds, kill
from .processes import process
from .state_words import is_held
from .test_cli import begun, done

OPTIONS = {"graceful_timeout": 20, "restart.burst": 2, "restart.delay": 0.1, "restart.cooldown": 600}
SERVE_ON = "2 workers of an earlier circusd serve on"


def test_workers_of_an_earlier_circusd_serve_on_until_new_ones_do(tmp_path: Path) -> None:
    """Given code that does not start went live by force, when the watcher is restarted, then its old workers serve on.

    The cure that is printed takes their place, and no word says that no worker serves, or how to end those that do.
    """
    with circusd(tmp_path, options=OPTIONS, plugins=BUNDLE) as c:
        old = c.wait_ready()
        c.set("boot", "die")
        c.run_cli("restart", "--no-preflight", "--timeout", "5")
        eventually(lambda: c.watcher()["verdict"]["word"] == "degraded" and all(map(is_held, c.watcher()["workers"])))

        shown = c.run_cli("status").stdout
        examined = c.run_cli("doctor").stdout
        refused = [
            c.run_cli(*words)
            for words in (
                ("restart", "web"),
                ("restart", "web", "--no-preflight"),
                ("restart",),
                ("reload", "web"),
                ("reload", "web", "--no-preflight"),
            )
        ]
        by_circusctl = c.call("restart", name="web", waiting=True, timeout=90)
        by_page = c.call("restart", name="web", match="simple", by="page", timeout=60)

        assert "then `xboard-circus reload web`" in shown
        assert f"warning: circusd: still running of an earlier circusd: pid {min(old)}, {max(old)}" in examined
        assert "`xboard-circus clean`" not in examined
        assert "end that process by its pid" not in examined
        for each in refused:
            assert (each.returncode, SERVE_ON in each.stderr) == (1, True), each.stderr
            assert "no worker serves" not in each.stdout + each.stderr
        assert by_circusctl["status"] == "error", by_circusctl
        assert by_page["status"] == "ok", by_page
        holds(lambda: {int(c.get("/pid")) for _ in range(5)} <= set(old), seconds=1)
        left = [process(pid) for pid in old]
        assert all(each.alive for each in left)
        eventually(lambda: c.watcher()["reload"]["state"] == "failed")

        c.set("boot", "")
        assert done(c, "restart", "web").endswith("web: 2 of 2 up\nready\n")
        eventually(lambda: not any(each.alive for each in left))
        assert c.serves()


def test_the_healthy_one_of_two_serves_until_its_successor_does(tmp_path: Path) -> None:
    """Given one of two workers cools down, when the watcher is restarted, then the other serves as long as before."""
    with circusd(tmp_path, options=OPTIONS, plugins=BUNDLE) as c:
        old = c.wait_ready()
        c.set("boot", "die")
        kill(old[0])
        eventually(lambda: [each["slot"] for each in c.watcher()["workers"] if is_held(each)] and c.told("cooldown"))
        (slot,) = [each["slot"] for each in c.watcher()["workers"] if is_held(each)]

        shown = c.run_cli("status").stdout
        failed = c.run_cli("restart", "web", "--no-preflight")

        assert f"`xboard-circus retry web {slot}`" in shown
        assert (failed.returncode, "1 of 2 workers serve on" in failed.stderr) == (1, True), failed.stderr
        assert c.ready() == old[1:]

        c.set("boot", "")
        held = c.hold_each(old[1:])
        with begun(c, "restart", "web") as restart:
            eventually(lambda: [pid for pid in c.ready() if pid not in old])
            assert process(old[1]).alive, "it was ended before its successor was ready"
            c.finish(held)
            assert restart.wait(90) == 0
        assert not set(old) & set(c.wait_ready())
