"""Apps that answer, and refuse the probe: they serve, so their workers stay, and what is wrong is shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, holds

STARTUP = 12  # three apps that import FastAPI on a crowded machine
OPTIONS = {
    "health.live_path": "/health/live",
    "health.ready_path": "/health/live",
    "health.period": 0.3,
    "health.failure_threshold": 2,
    "health.startup_timeout": STARTUP,
    "graceful_timeout": 3,
    **FAST_RESTARTS,
}


def up(c: Circusd, name: str = "web") -> dict[int, Any]:
    """The workers that are up, by pid."""
    return {worker["pid"]: worker for worker in c.watcher(name)["workers"] if worker["ready_for"] is not None}


def refusing(name: str, startup: float = 60, /, **options: object) -> Watcher:
    """The app imports FastAPI, which takes seconds on a crowded machine."""
    return Watcher(app=f"refusing_app:{name}", options={**OPTIONS, "health.startup_timeout": startup, **options})


def test_an_app_that_refuses_the_probe_is_up_and_not_ready_with_a_hint(tmp_path: Path) -> None:
    """Given apps that answer 4xx, when startup_timeout is long over, then their workers live on; the hint is shown."""
    hints = {
        "trusted_host": "set health.host",
        "login": "set health.headers",
        "no_such_path": "does not have this path",
    }
    watchers = [replace(refusing(app, STARTUP), name=app, numprocesses=1) for app in hints]
    with circusd(tmp_path, watchers=watchers, plugins=BUNDLE) as c:

        def all_up() -> dict[int, str]:
            return {pid: worker["reason"] for app in hints for pid, worker in up(c, app).items()}

        pids = eventually(lambda: list(found) if len(found := all_up()) == len(hints) else None)
        before = c.last_told()

        for app, hint in hints.items():
            eventually(lambda: [hint in worker["reason"] for worker in up(c, app).values()] == [True], what=app)  # noqa: B023
        holds(lambda: list(all_up()) == pids, seconds=STARTUP + 3)

        for app in hints:
            assert [worker["ready"] for worker in up(c, app).values()] == [False]
            assert c.failures(app, after=before) == []
            assert c.told("unhealthy", app) == []


WANTED: dict[str, tuple[str, dict[str, str]]] = {
    "redirect-to-https": ("https_only", {}),
    "redirect-to-slash": ("mounted", {}),
    "scheme": ("https_only", {"health.scheme": "https"}),
    "host": ("trusted_host", {"health.host": "shop.example.org"}),
    "headers": ("login", {"health.headers": "Accept: */*, X-Probe: let me in, please"}),
}


def test_what_the_probe_sends_can_be_what_the_app_wants(tmp_path: Path) -> None:
    """Given the options that the hint names, then the workers are ready, in a trial too, and can be reloaded; a
    redirect to https, or to the path with a slash, is an answer."""
    watchers = [replace(refusing(app, **more), name=name, numprocesses=1) for name, (app, more) in WANTED.items()]
    with circusd(tmp_path, watchers=watchers, plugins=BUNDLE) as c:

        def ready() -> list[int]:
            return [pid for name in WANTED for pid, worker in up(c, name).items() if worker["ready"]]

        old = eventually(lambda: found if len(found := ready()) == len(WANTED) else None)

        result = c.run_cli("reload", timeout=180)

        assert result.returncode == 0, result.stdout + result.stderr
        assert set(old).isdisjoint(pid for name in WANTED for pid in up(c, name))


def test_an_app_that_refuses_the_probe_is_not_reloaded_and_serves_on(tmp_path: Path) -> None:
    """Given workers that are not ready, when reloaded, then it fails with the hint and nobody was replaced."""
    with circusd(tmp_path, watchers=[refusing("trusted_host", 2 * STARTUP)], plugins=BUNDLE) as c:
        pids = sorted(eventually(lambda: up(c) if len(up(c)) == 2 else None))

        result = c.run_cli("reload")

        assert result.returncode == 1
        assert "set health.host to a name that it allows" in result.stderr
        assert sorted(up(c)) == pids


def test_a_changed_host_is_used_by_the_next_workers(tmp_path: Path) -> None:
    """Given an app that refuses the probe, when the file names its host and is read again, then a reload succeeds."""
    with circusd(tmp_path, watchers=[refusing("trusted_host")], plugins=BUNDLE) as c:
        pids = sorted(eventually(lambda: up(c) if len(up(c)) == 2 else None))

        c.write_ini(watcher__web={"health.host": "shop.example.org"})
        c.do("reloadconfig")
        assert sorted(up(c)) == pids
        result = c.run_cli("reload")

        assert result.returncode == 0, result.stdout + result.stderr
        eventually(lambda: [worker["ready"] for worker in up(c).values()] == [True, True])


def test_a_worker_whose_live_path_fails_from_the_first_probe_on_is_a_failed_start(tmp_path: Path) -> None:
    """Given two workers, of which one answers 500 from its start on, then it is never up, and ended and counted."""
    watcher = Watcher(options={**OPTIONS, "health.ready_path": None}, told={"live.wid-2": "500"})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        first = eventually(c.failures)[0]

        assert first.message["cause"] == "failed start"
        assert "health.startup_timeout" in first.reason
        assert first.message["wid"] == 2
        c.set("live.wid-2", "")
        c.wait_ready()


def test_a_live_path_that_begins_to_refuse_is_shown_and_no_worker_dies(tmp_path: Path) -> None:
    """Given two workers, when the live path of one is redirected to another one, then it is shown, and both live on."""
    watcher = Watcher(options={**OPTIONS, "health.ready_path": None})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        pids = c.wait_ready()

        c.set(f"live.pid-{pids[0]}", "redirect")
        eventually(lambda: 'a redirect to "/pid": it answers' in c.worker(pids[0])["reason"])
        holds(lambda: c.workers() == pids, seconds=2)

        assert c.failures() == []
