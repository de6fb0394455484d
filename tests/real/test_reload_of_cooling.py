"""`xboard-circus reload` after a mend: it has proved that the code works, so nobody goes on cooling down."""

from pathlib import Path

import pytest

from .harness import BUNDLE, Circusd, circusd, eventually, kill
from .state_words import is_held

OPTIONS = {
    "graceful_timeout": 2,
    "restart.burst": 2,
    "restart.delay": 0.1,
    "restart.cooldown": 600,
    "restart.delay_max": 600,  # where none is up, no wait is longer
}


def held(c: Circusd) -> int:
    return sum(map(is_held, c.watcher()["workers"]))


def let_both_cool_down(c: Circusd) -> None:
    """Kill both workers of an app that cannot be imported any more."""
    c.wait_ready()
    c.set("boot", "die")
    for pid in c.workers():
        kill(pid)
    eventually(lambda: len(c.told("cooldown")) >= 1 and held(c) == 2, what="both cool down")


def reload(c: Circusd, *options: str) -> None:
    result = c.run_cli("reload", *options, timeout=180)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("options", [(), ("--no-preflight",)], ids=["with preflight", "without"])
def test_all_that_cool_down_serve_after_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Given an app that cannot be imported and both workers cooling for ten minutes, when it is mended and reloaded,
    then both serve."""
    with circusd(tmp_path, options=OPTIONS, plugins=BUNDLE) as c:
        let_both_cool_down(c)
        c.set("boot", "")

        reload(c, *options)

        c.wait_ready()  # long before the cooldown is over
        assert c.serves()


def test_one_that_cools_down_beside_healthy_ones_is_reloaded_too(tmp_path: Path) -> None:
    """Given two that serve old code and one that cools down, when it is mended and reloaded, then three new serve."""
    with circusd(tmp_path, numprocesses=3, options=OPTIONS, plugins=BUNDLE) as c:
        old = c.wait_ready()
        c.set("boot", "die")
        kill(old[0])
        eventually(lambda: held(c) == 1 and c.told("cooldown"), what="one cools down")
        c.set("boot", "")

        reload(c)

        assert not set(c.wait_ready()) & set(old)


def test_a_reload_of_code_that_is_still_broken_releases_nobody(tmp_path: Path) -> None:
    """Given both workers cooling, when the app is reloaded as broken as it was, then it fails, and they cool on."""
    with circusd(tmp_path, options=OPTIONS, plugins=BUNDLE) as c:
        let_both_cool_down(c)
        before = len(c.starts())

        result = c.run_cli("reload", "--no-preflight", timeout=180)

        assert result.returncode == 1, result.stdout + result.stderr
        assert held(c) == 2
        assert len(c.starts()) <= before + 1, "no more than one trial"


def test_a_retry_starts_a_cooling_slot_at_once(tmp_path: Path) -> None:
    """Given a slot that cools down for ten minutes beside a healthy worker, when its app is mended and it is retried
    on the command line, then it serves at once, by that operator's order, and the healthy worker is untouched."""
    with circusd(tmp_path, options=OPTIONS, plugins=BUNDLE) as c:
        old = c.wait_ready()
        c.set("boot", "die")
        kill(old[0])
        cooling = eventually(
            lambda: [each for each in c.watcher()["workers"] if is_held(each)] if c.told("cooldown") else None,
            what="one cools down",
        )
        c.set("boot", "")

        result = c.run_cli("retry", "web", f"#{cooling[0]['slot']}")

        assert result.returncode == 0, result.stdout + result.stderr
        assert old[1] in c.wait_ready()  # long before the cooldown is over
        assert ["user" in each.message["by"] for each in c.told("retry")] == [True]

        again = c.run_cli("retry", "web", str(cooling[0]["slot"]))

        assert again.returncode == 1
        assert f"has no held worker in slot {cooling[0]['slot']}; `xboard-circus status` shows" in again.stderr
