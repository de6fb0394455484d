"""A fault at each step of arming: the watcher runs plainly and says why, and nobody else notices anything.

circusd is a real arbiter in this process; the watcher `odd` meets the fault, `web` is its sibling.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from circus_in_process import eventually, is_alive, process_of, running, watcher_of

from xboard_circus.core.state_names import Role
from xboard_circus.errors import XboardError
from xboard_circus.host import runtime, worker_files
from xboard_circus.supervisor import arming
from xboard_circus.supervisor import supervisor as supervisor_module
from xboard_circus.supervisor.bus import commands
from xboard_circus.supervisor.life import command_line
from xboard_circus.supervisor.listener_check import is_listening
from xboard_circus.supervisor.patches import boot, patch
from xboard_circus.supervisor.patches import circus_arbiter as of_arbiter
from xboard_circus.supervisor.patches import circus_controller as controller
from xboard_circus.supervisor.patches import circus_process as of_process
from xboard_circus.supervisor.patches import circus_watcher as of_watcher
from xboard_circus.supervisor.patches.patch import Patch, PatchFailed, PatchKind
from xboard_circus.supervisor.port import PortGuard
from xboard_circus.supervisor.replace import swap
from xboard_circus.supervisor.supervisor import Supervisor
from xboard_circus.supervisor.watcher import ArmedWatcher

OF_WATCHER = of_watcher.OF_WATCHER
OF_ALL: list[PatchKind[Any]] = [
    of_arbiter.stop,
    of_arbiter.start_watcher,
    of_arbiter.reload_from_config,
    of_arbiter.manage_quietly,
    of_arbiter.reap_for_a_while,
    of_process.fork_where_imported,
    of_process.bound_command_lines,
    controller.watch_command,
    controller.dispatch,
    controller.answer_empty_messages,
    of_arbiter.child_ended,
    of_arbiter.log_user_signals,
]
Spoil = Callable[[pytest.MonkeyPatch], None]


def fault(*_: object, **__: object) -> Any:
    raise RuntimeError("a fault that nobody foresaw")


def fails_for_odd(original: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
    """Return *original* with the fault where it is about the watcher `odd`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if name_of(*args, **kwargs) == "odd":
            fault()
        return original(*args, **kwargs)

    return call


def spoil(place: object, name: str, name_of: Callable[..., str]) -> Spoil:
    return lambda patch: patch.setattr(place, name, fails_for_odd(getattr(place, name), name_of))


def of_armed(self: Any, *_: object, **__: object) -> str:
    return str(self.name)


def of_guard(self: Any, *_: object) -> str:
    return str(self.armed.name)


def of_patch(original: Any, watcher: Any, ours: Any) -> str:
    return str(watcher.name)


def of_set_opt(self: Any) -> str:
    return str(self._target.name) if self.kind is of_watcher.set_opt else ""


def after_it(place: type, name: str, name_of: Callable[..., str]) -> Spoil:
    """Return a spoiler that lets the step be taken and then fails."""

    def make(patch: pytest.MonkeyPatch) -> None:
        original = getattr(place, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = original(*args, **kwargs)
            if name_of(*args, **kwargs) == "odd":
                fault()
            return answer

        patch.setattr(place, name, call)

    return make


def no_folder(patch: pytest.MonkeyPatch) -> None:
    original = runtime.watcher_dir

    def watcher_dir(instance: str, name: str, *user: Any) -> Any:
        if name == "odd":
            raise XboardError("a fault that nobody foresaw")
        return original(instance, name, *user)

    patch.setattr(runtime, "watcher_dir", watcher_dir)


STEPS: dict[str, Spoil] = {
    "its options cannot be read": spoil(ArmedWatcher, "read_options", of_armed),
    "its limits make no budget": spoil(ArmedWatcher, "limits", of_armed),
    "its port guard cannot be made": spoil(PortGuard, "__init__", lambda self, armed: armed.name),
    "its patches cannot be made": spoil(of_watcher, "patches_of", lambda watcher, _: watcher.name),
    "its folder cannot be had": no_folder,
    "its environment cannot be made": spoil(ArmedWatcher, "give_environment", of_armed),
    **{f"{each.name} cannot be replaced": spoil(each, "_make", of_patch) for each in OF_WATCHER},
    "the last patch fails when it is in": after_it(Patch, "install", of_set_opt),
    "its output cannot be looked at": spoil(ArmedWatcher, "before_start", of_armed),
    "its port cannot be looked at": spoil(PortGuard, "prepare", of_guard),
    "all is done, and then it fails": after_it(ArmedWatcher, "before_start", of_armed),
}


WITH_A_CURE = ("its folder cannot be had", "the last patch fails when it is in")
"""Steps whose errors have a cure of their own."""


def lacking(kind: PatchKind[Any]) -> Spoil:
    """Return a spoiler by which `odd`, or circusd, lacks what a patch replaces."""

    def found(given: Any) -> Any:
        return given if kind in OF_WATCHER and given.name != "odd" else SimpleNamespace()

    return lambda patch: patch.setattr(kind, "_at", found)


def state_of(arbiter: Any) -> dict[str, Any]:
    """Return what `xboard_state` answers, watcher by watcher."""
    answer = arbiter.ctrl.commands["xboard_state"].execute(arbiter, {})
    return {watcher["name"]: watcher for watcher in answer["watchers"]}


def watchers_with_a_port() -> tuple[Any, Any]:
    return (
        watcher_of("odd", args="$(circus.sockets.odd)"),
        watcher_of("web", args="$(circus.sockets.web)"),
    )


async def check_plain(arbiter: Any, watcher: Any, *, untouched: set[str]) -> None:
    """Claim that *watcher* is one of stock Circus's, with its environment and its port."""
    ours = {name for name in set(vars(watcher)) - untouched if not name.startswith("xboard_")}
    assert (watcher.status(), ours, type(watcher.processes)) == ("active", set(), dict)
    process = process_of(watcher)
    assert is_alive(process)
    await eventually(lambda: "XBOARD_WATCHER" in process.environ())  # until its exec it shows that of this process
    assert "launch.py" not in " ".join(process.cmdline())
    env = process.environ()
    assert (env["XBOARD_WATCHER"], env["XBOARD_INSTANCE"]) == (watcher.name, arbiter.xboard.instance)
    assert env["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
    assert "XBOARD_WORKER_DIR" not in env
    shared = arbiter.sockets[watcher.name]
    assert (is_listening(shared), shared.so_reuseport) == (True, False)


async def check_armed(arbiter: Any, watcher: Any) -> None:
    """Claim that *watcher* is armed, and that a worker of it that dies is replaced."""
    armed = arbiter.xboard.armed[watcher.name]
    await eventually(lambda: armed.port.is_ready and any(worker.is_up for worker in armed.fleet))
    first = process_of(watcher)
    first.kill()
    await eventually(lambda: watcher.processes and process_of(watcher) != first)
    assert armed.fleet.failures == 1


@pytest.mark.parametrize("step", [*STEPS, *(f"it lacks {each.name}" for each in OF_WATCHER)])
def test_a_fault_in_arming_one_watcher(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {f"it lacks {each.name}": each for each in OF_WATCHER}
    told = "a fault that nobody foresaw"
    if step in kinds:
        told = f"this Circus lacks {kinds[step]}; install circus 0.19"
    elif step not in (*(f"{each.name} cannot be replaced" for each in OF_WATCHER), *WITH_A_CURE):
        told += "; the traceback is in circusd's log"

    async def run() -> None:
        odd, web = watchers_with_a_port()
        untouched = set(vars(odd))
        (lacking(kinds[step]) if step in kinds else STEPS[step])(monkeypatch)
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            await check_plain(arbiter, odd, untouched=untouched)
            state = state_of(arbiter)
            assert [state[name]["armed"] for name in ("odd", "web")] == [False, True]
            assert state["odd"]["last_reason"].startswith("runs without health checks and restart limits: ")
            assert told in state["odd"]["last_reason"]
            await check_armed(arbiter, web)

    asyncio.run(run())


@asynccontextmanager
async def one_that_cannot_be_armed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, Any]]:
    """Run an arbiter with a sound watcher and "odd", whose port could not be looked at when it started."""
    odd, web = watchers_with_a_port()
    async with AsyncExitStack() as stack:
        with monkeypatch.context() as patch:
            STEPS["its port cannot be looked at"](patch)
            arbiter = await stack.enter_async_context(
                running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web"))
            )
        yield arbiter, odd


def test_what_could_not_be_armed_is_armed_at_its_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with one_that_cannot_be_armed(monkeypatch) as (arbiter, odd):
            assert "odd" not in arbiter.xboard.armed
            await odd.stop()
            await odd.start()
            assert (state_of(arbiter)["odd"]["armed"], dict(arbiter.xboard.plain)) == (True, {})
            await check_armed(arbiter, odd)

    asyncio.run(run())


def test_the_reason_of_a_watcher_that_circus_does_not_list_yet_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a watcher that a changed file adds, when circusd's clock ticks before it is listed, its reason stays."""

    async def run() -> None:
        async with one_that_cannot_be_armed(monkeypatch) as (arbiter, odd):
            arbiter.watchers.remove(odd)
            arbiter.xboard._drop_removed()
            arbiter.watchers.append(odd)
            assert state_of(arbiter)["odd"]["last_reason"].startswith("runs without health checks")

    asyncio.run(run())


def test_an_armed_watcher_that_cannot_be_prepared_for_its_next_start_runs_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        odd, web = watchers_with_a_port()
        untouched = set(vars(odd))
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            assert set(arbiter.xboard.armed) == {"odd", "web"}
            await odd.stop()
            no_folder(monkeypatch)
            await odd.start()

            await check_plain(arbiter, odd, untouched=untouched)
            await check_armed(arbiter, web)

    asyncio.run(run())


def test_no_patch_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a sound circusd, then all that it installs, but for the commands, is tried here."""
    installed: set[PatchKind[Any]] = set()
    install = patch.install

    def note(patches: Sequence[Patch]) -> None:
        installed.update(each.kind for each in patches)
        install(patches)

    async def run() -> None:
        monkeypatch.setattr(patch, "install", note)
        odd, web = watchers_with_a_port()
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            assert set(arbiter.xboard.armed) == {"odd", "web"}

    asyncio.run(run())
    of_boot = {kind for kind, _ in boot.KINDS_AND_TARGETS}
    assert installed - of_boot - {controller.add_commands} == {*OF_ALL, *OF_WATCHER}


@pytest.mark.parametrize("how", ["it fails", "it lacks"])
@pytest.mark.parametrize("kind", OF_ALL, ids=str)
def test_a_fault_in_what_is_for_all_watchers(kind: PatchKind[Any], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is armed then, the state says what is missing, and each watcher runs."""

    async def run() -> None:
        odd, web = watchers_with_a_port()
        untouched = set(vars(odd))
        if how == "it fails":
            monkeypatch.setattr(kind, "_make", fault)
        else:
            lacking(kind)(monkeypatch)
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            state = state_of(arbiter)
            for watcher in (odd, web):
                await check_plain(arbiter, watcher, untouched=untouched)
                reason = state[watcher.name]["last_reason"]
                assert reason.startswith("runs without health checks and restart limits: this Circus lacks ")
                assert f"{kind}: a fault" in reason if how == "it fails" else f"lacks {kind}" in reason
                assert "install circus 0.19" in reason
            assert arbiter.xboard.armed == {}
            assert "stop" not in vars(arbiter)

    asyncio.run(run())


def test_where_what_is_replaced_at_boot_is_missing_nothing_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        odd, web = watchers_with_a_port()
        untouched = set(vars(odd))
        monkeypatch.setattr(boot, "missing", ["Pidfile.validate"])
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            for watcher in (odd, web):
                await check_plain(arbiter, watcher, untouched=untouched)
                assert "this Circus lacks Pidfile.validate" in state_of(arbiter)[watcher.name]["last_reason"]
            assert arbiter.xboard.armed == {}

    asyncio.run(run())


@pytest.mark.parametrize("step", ["its commands", "its requests", "its lifetime"])
def test_a_supervisor_that_cannot_be_made_leaves_each_watcher_to_circus(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "its commands": (commands, "patch"),
        "its requests": (supervisor_module, "Requests"),
        "its lifetime": (supervisor_module, "Lifetime"),
    }

    async def run() -> None:
        odd, web = watchers_with_a_port()
        monkeypatch.setattr(*places[step], fault)
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            for watcher in (odd, web):
                assert (watcher.status(), is_alive(process_of(watcher))) == ("active", True)
                assert is_listening(arbiter.sockets[watcher.name])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("place", "name"),
    [(Supervisor, "_note_pause"), (ArmedWatcher, "pass_time"), (ArmedWatcher, "is_unsettled")],
    ids=["before all", "of one watcher", "at its end"],
)
def test_no_fault_stops_the_clock_of_circusd(place: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        odd, web = watchers_with_a_port()
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            faults: list[None] = []

            def failing(*_: object) -> None:
                faults.append(None)
                fault()

            with monkeypatch.context() as patch:
                patch.setattr(place, name, failing)
                await eventually(lambda: len(faults) > 2)
            await check_armed(arbiter, odd)
            await check_armed(arbiter, web)

    asyncio.run(run())


def test_a_fault_in_a_replacement_leaves_the_old_worker_its_place_and_the_next_one_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        odd, web = watchers_with_a_port()
        monkeypatch.setattr(swap, "SETTLE", 0.1)
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            armed = arbiter.xboard.armed["web"]
            await eventually(lambda: any(worker.is_up for worker in armed.fleet))
            (old,) = armed.fleet
            faults: list[None] = []

            def failing(*_: object) -> None:
                faults.append(None)
                fault()

            def replace() -> None:
                asked = {
                    "name": "web",
                    "pid": old.pid,
                    "started": old.started,
                    "kind": "sick",
                    "reason": "for the test",
                }
                props = {**asked, "probed_at": arbiter.xboard.clock()}
                answer = arbiter.ctrl.commands["xboard_replace"].execute(arbiter, props)
                assert answer.get("status") != "error", answer

            with monkeypatch.context() as patch:
                patch.setattr(ArmedWatcher, "spawn_for", failing)
                replace()
                await eventually(lambda: faults and not armed.swaps)
            assert (old.life.role, old.is_up, list(armed.fleet)) == (Role.SERVING, True, [old])

            replace()
            await eventually(lambda: list(armed.fleet) and old not in armed.fleet)

    asyncio.run(run())


def test_a_failure_to_undo_is_no_failure_of_circusd(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        odd, web = watchers_with_a_port()
        STEPS["its port cannot be looked at"](monkeypatch)
        monkeypatch.setattr(ArmedWatcher, "disarm", fault)
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            assert set(arbiter.xboard.armed) == {"web"}
            assert state_of(arbiter)["odd"]["armed"] is False

    asyncio.run(run())


def test_no_environment_keeps_no_watcher_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        odd, web = watchers_with_a_port()
        monkeypatch.setattr(
            command_line, "environment", fails_for_odd(command_line.environment, lambda watcher, *_: watcher.name)
        )
        async with running(odd, web, monkeypatch=monkeypatch, sockets=("odd", "web")) as arbiter:
            assert (odd.status(), is_alive(process_of(odd))) == ("active", True)
            assert is_listening(arbiter.sockets["odd"])
            await check_armed(arbiter, web)

    asyncio.run(run())


def test_what_is_raised_for_want_of_a_patch_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arming, "ArmedWatcher", lambda *_: (_ for _ in ()).throw(PatchFailed("Watcher.gone")))
    supervisor = SimpleNamespace(unfit="", armed={}, plain={}, give_environment=lambda *_: None)
    watcher: Any = watcher_of("odd", hooks={})
    watcher.sockets = None

    with caplog.at_level("ERROR", logger="circus"):
        arming.arm(cast(Supervisor, supervisor), watcher)

    assert [record.exc_info for record in caplog.records] == [None]
    assert "Watcher.gone" in caplog.text


def test_a_tick_that_fails_is_followed_by_one_that_looks_after_what_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step keeps failing, limits of starts would be noticed late: nobody says what is under way."""

    async def run() -> None:
        async with running(watcher_of("web"), monkeypatch=monkeypatch) as arbiter:
            supervisor, waits = arbiter.xboard, list[float]()
            with monkeypatch.context() as spoilt:
                spoilt.setattr(supervisor.lifetime, "tick", fault)
                spoilt.setattr(supervisor, "soon", waits.append)
                supervisor._tick()
            supervisor.soon(0)
            assert waits[-1] == supervisor_module.TICK_FAST

    asyncio.run(run())


def test_a_death_is_counted_whatever_its_worker_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        web = watcher_of("web")
        async with running(web, monkeypatch=monkeypatch) as arbiter:
            monkeypatch.setattr(worker_files, "cut_of", fault)
            fleet = arbiter.xboard.armed["web"].fleet
            worker = process_of(web)

            worker.kill()
            await eventually(lambda: worker.pid not in fleet.workers)

            assert (fleet.ends.total(), fleet.failures) == (1, 1)

    asyncio.run(run())
