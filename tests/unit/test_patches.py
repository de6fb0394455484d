"""Each patch of Circus fits, or says what is missing; taken off, it leaves Circus as it was."""

import asyncio
import errno
import itertools
import logging
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from logging.handlers import WatchedFileHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from circus import process
from circus.arbiter import Arbiter
from circus.controller import Controller
from circus.pidfile import Pidfile
from circus.process import Process
from circus.sighandler import SysHandler
from circus.sockets import CircusSocket
from circus.stream.file_stream import FileStream, TimedRotatingFileStream, _FileStreamBase
from circus.stream.redirector import Redirector
from circus.util import LOG_FMT, get_info
from circus.watcher import Watcher
from circus_in_process import ARMED, SLEEP, eventually, is_alive, process_of, running, watcher_of

from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.host.procs import Identity
from xboard_circus.rotating_log import RotatingLog
from xboard_circus.supervisor.life.output import Tail
from xboard_circus.supervisor.patches import boot, patch
from xboard_circus.supervisor.patches import circus_arbiter as of_arbiter
from xboard_circus.supervisor.patches import circus_controller as controller
from xboard_circus.supervisor.patches import circus_process as of_process
from xboard_circus.supervisor.patches import circus_stream as log
from xboard_circus.supervisor.patches import circus_stream as of_stream
from xboard_circus.supervisor.patches import circus_watcher as of_watcher
from xboard_circus.supervisor.patches.hooks import ArmedHooks
from xboard_circus.supervisor.patches.patch import Patch, PatchFailed, PatchKind
from xboard_circus.supervisor.supervisor import Supervisor


class Ours:
    """What stands in the place of an armed watcher where nothing is called."""

    def __init__(self, folder: str = "") -> None:
        self.hooks = ArmedHooks({}, {})
        self.supervisor = SimpleNamespace(folder=("/srv/current", folder))

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def every_patch(arbiter: Any, root: logging.Logger) -> list[Patch]:
    """Return one patch of each kind, on a real Circus."""
    watcher = arbiter.watchers[0]
    command = SimpleNamespace(name="xboard_test", execute=lambda *args: {})
    return [
        *of_watcher.patches_of(watcher, Ours(watcher.working_dir)),
        of_watcher.stop_last(watcher, lambda: asyncio.sleep(0)),
        of_watcher.try_helper_again(watcher),
        of_watcher.start_helper_without_process(watcher),
        of_arbiter.stop(arbiter, ordered=lambda: None, beside=lambda: None),
        of_arbiter.start_watcher(arbiter, lambda watcher: None),
        of_arbiter.reload_from_config(arbiter, ours=lambda file, original: original()),
        of_arbiter.manage_quietly(arbiter),
        of_arbiter.reap_for_a_while(arbiter),
        of_arbiter.child_ended(arbiter, lambda: None),
        of_arbiter.log_user_signals(arbiter),
        controller.add_commands(arbiter, [command]),
        controller.watch_command(arbiter.ctrl.commands["stop"], lambda original: original),
        controller.dispatch(arbiter, lambda is_signal: None, lambda stop: stop()),
        controller.answer_empty_messages(arbiter),
        of_process.inherit_what_is_its_own(Process),
        of_process.children_of_its_user(Process),
        of_process.fork_where_imported(arbiter, lambda process: None),
        of_process.bound_command_lines(arbiter),
        log.rotate_log(root),
        of_stream.open_no_link(_FileStreamBase),
        of_stream.rotate_in_place(FileStream),
        of_stream.rotate_in_place(TimedRotatingFileStream),
        of_stream.read_without_waiting(Redirector),
        of_stream.print_through_circusd(Watcher),
        boot.bind_unix_socket(CircusSocket),
        boot.close_without_lingering(CircusSocket),
        boot.pass_reused_pids(Pidfile),
        boot.boot(Arbiter),
        boot.guard_commands(Controller),
        boot.close_guards(Controller),
    ]


class FakeTimers:
    """The timers of a loop that never comes to them."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def call_later(self, _: float, callback: Callable[[], None]) -> object:
        self.waiting.append(callback)
        return callback


def insides(arbiter: Any, root: logging.Logger) -> list[dict[str, Any]]:
    """Return all that a patch may change, as it is now."""
    watcher, stop = arbiter.watchers[0], arbiter.ctrl.commands["stop"]
    classes = (
        Process,
        CircusSocket,
        Arbiter,
        Controller,
        Pidfile,
        FileStream,
        TimedRotatingFileStream,
        _FileStreamBase,
        Redirector,
        Watcher,
    )
    objects = (process, arbiter, watcher, arbiter.ctrl, arbiter.ctrl.caller, stop, *classes)
    return [
        *(dict(vars(each)) for each in objects),
        dict(arbiter.ctrl.commands),
        dict(watcher.processes),
        {"handlers": list(root.handlers)},
        {each.name: signal.getsignal(each) for each in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2)},
    ]


def differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> set[str]:
    return {
        name
        for old, new in zip(before, after, strict=True)
        for name in {*old, *new}
        if name not in old or name not in new or old[name] != new[name] or type(old[name]) is not type(new[name])
    }


def on_circus(monkeypatch: pytest.MonkeyPatch, work: Callable[[Any], Any]) -> None:
    """Run *work* with an arbiter of one watcher that nothing of ours has touched."""

    async def run() -> None:
        async with running(watcher_of("web", hooks={}), monkeypatch=monkeypatch) as arbiter:
            done = work(arbiter)
            if done is not None:
                await done

    asyncio.run(run())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A root logger as circusd has one; what writes to its log is closed, also where the patch was taken off."""
    made = list[RotatingLog]()

    def make(*args: Any, **options: Any) -> RotatingLog:
        made.append(RotatingLog(*args, **options))
        return made[-1]

    monkeypatch.setattr(log, "RotatingLog", make)
    logger = logging.Logger("circusd")
    handler = WatchedFileHandler(tmp_path / "circusd.log")
    handler.setFormatter(logging.Formatter(LOG_FMT))
    logger.addHandler(handler)
    yield logger
    for each in (*logger.handlers, *made):
        each.close()


@pytest.fixture
def own_log(root: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of circusd that everybody may read, which Circus has opened and ours writes to."""
    path = tmp_path / "circusd.log"
    path.chmod(0o644)
    log.rotate_log(root).install()
    monkeypatch.setattr(logging.getLogger("circus"), "handlers", root.handlers)
    return path


def test_umask_is_for_the_log_of_a_circusd_that_has_logged_nothing_yet(own_log: Path) -> None:
    boot.open_logs_again(SimpleNamespace(umask=0o077, watchers=[]))

    assert stat.S_IMODE(own_log.stat().st_mode) == 0o600


def test_a_log_of_another_user_is_left_as_it_is(own_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    logging.getLogger("circus").warning("a line")
    monkeypatch.setattr(os, "fchmod", refuse)

    boot.open_logs_again(SimpleNamespace(umask=0o077, watchers=[]))

    (line,) = own_log.read_text().splitlines()
    assert line.endswith("a line")


def test_every_kind_of_patch_is_tested_here(monkeypatch: pytest.MonkeyPatch, root: logging.Logger) -> None:
    def check(arbiter: Any) -> None:
        assert {each.kind for each in every_patch(arbiter, root)} == set(patch.every_kind())

    on_circus(monkeypatch, check)


@pytest.mark.parametrize("kind", patch.every_kind(), ids=str)
def test_a_patch_says_where_it_belongs_and_why(kind: PatchKind[Any]) -> None:
    assert all(text.endswith((".", "`")) for text in (kind.what, kind.without, kind.fact))


def test_a_patch_that_does_not_fit_names_what_this_circus_lacks(
    monkeypatch: pytest.MonkeyPatch, root: logging.Logger
) -> None:
    def check(arbiter: Any) -> None:
        patches = every_patch(arbiter, root)
        assert [each.missing() for each in patches] == [""] * len(patches)
        for each in patches:
            each._target = SimpleNamespace()
        assert [each.missing() for each in patches] == [str(each.kind) for each in patches]

    on_circus(monkeypatch, check)


def test_circus_without_a_periodic_look_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(arbiter: Any) -> None:
        arbiter.ctrl.caller.stop()
        arbiter.ctrl.caller = None  # as with check_delay = -1
        quiet = of_arbiter.manage_quietly(arbiter)
        assert quiet.missing() == ""
        quiet.install()
        quiet.undo()

    on_circus(monkeypatch, check)


def test_installed_and_taken_off_each_patch_leaves_circus_as_it_was(
    monkeypatch: pytest.MonkeyPatch, root: logging.Logger
) -> None:
    def check(arbiter: Any) -> None:
        for each in every_patch(arbiter, root):
            before = insides(arbiter, root)
            each.install()
            changed = differences(before, insides(arbiter, root))
            each.undo()
            each.undo()  # a second time does nothing
            assert differences(before, insides(arbiter, root)) == set(), each
            assert changed, f"{each} changes nothing"

    on_circus(monkeypatch, check)


def test_what_fails_half_way_is_taken_off_whichever_step_it_is(
    monkeypatch: pytest.MonkeyPatch, root: logging.Logger
) -> None:
    def check(arbiter: Any) -> None:
        before = insides(arbiter, root)
        for number, failing in enumerate(every_patch(arbiter, root)):
            patches = every_patch(arbiter, root)
            put_in = patches[number].install

            def fail(put_in: Callable[[], None] = put_in) -> None:
                put_in()
                raise OSError("no more")

            patches[number].install = fail  # type: ignore[method-assign]
            with pytest.raises(PatchFailed, match=f"^{failing.kind}: no more$"):
                patch.install(patches)
            assert differences(before, insides(arbiter, root)) == set(), failing

    on_circus(monkeypatch, check)


def test_where_one_does_not_fit_none_is_installed(monkeypatch: pytest.MonkeyPatch, root: logging.Logger) -> None:
    def check(arbiter: Any) -> None:
        before = insides(arbiter, root)
        patches = every_patch(arbiter, root)
        for each in (patches[2], patches[-3]):
            each._target = SimpleNamespace()
        with pytest.raises(PatchFailed, match=r"^Arbiter\.initialize, Watcher\.spawn_process$"):
            patch.install(patches)
        assert differences(before, insides(arbiter, root)) == set()

    on_circus(monkeypatch, check)


@pytest.mark.parametrize(("kind", "target"), boot.KINDS_AND_TARGETS, ids=str)
def test_a_circus_that_lacks_what_is_replaced_at_boot_starts_all_the_same(
    kind: PatchKind[Any],
    target: type,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is installed while Circus imports the hook; an exception there would end circusd."""
    monkeypatch.setattr(boot, "missing", [])
    monkeypatch.setattr(target, f"xboard_{kind.name}", False, raising=False)
    monkeypatch.setattr(kind, "_at", lambda given: SimpleNamespace())
    before = dict(vars(target))

    with caplog.at_level("ERROR", logger="circus"):
        boot.install()

    assert caplog.messages == [f"xboard: this Circus lacks {kind}; install circus 0.19"]
    assert boot.missing == [str(kind)]
    assert vars(target)[kind.name] is before[kind.name]


@pytest.mark.parametrize("when", ["it dies", "it starts"])
def test_a_plugin_is_tried_again_where_no_process_could_be_started(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Given a host without room for a process, as while a worker forks without end, when there is room, it is up."""

    def fail(_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def run() -> None:
        plugin = watcher_of("plugin:xboard", hooks={}, priority=1)
        async with running(watcher_of("web", priority=2), plugin, monkeypatch=monkeypatch):
            await (plugin._stop() if when == "it starts" else plugin.kill_processes())
            with monkeypatch.context() as full:
                full.setattr(Process, "spawn", fail)
                await (plugin._start() if when == "it starts" else plugin.reap_and_manage_processes())
            assert (plugin.status(), len(plugin.processes)) == ("active", 0)

            await plugin.reap_and_manage_processes()

            assert is_alive(process_of(plugin))

    asyncio.run(run())


def test_a_clock_that_is_set_makes_no_plugin_older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Circus notes by the wall clock when a process was started."""

    async def run() -> None:
        plugin = watcher_of("plugin:xboard", hooks={}, priority=1)
        async with running(watcher_of("web", priority=2), plugin, monkeypatch=monkeypatch) as arbiter:
            for process in plugin.processes.values():
                process.started -= 6 * 3600  # the clock is set forward by as much

            (shown,) = arbiter.xboard.view()["watchers"][-1]["workers"]
            assert 0 <= shown["age"] < 3600

    asyncio.run(run())


@pytest.fixture
def few_files() -> Iterator[int]:
    """A soft limit of 512 open files; the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_leaks_connections_to_an_ipc_endpoint_has_many_to_leak(
    few_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ aborts circusd when it has no descriptor left for a connection, and nothing bounds those to ipc://."""
    monkeypatch.setattr(boot, "refuse_beside_another", interrupt)
    arbiter: Any = SimpleNamespace(umask=None)
    patch = boot.boot(SimpleNamespace(initialize=lambda arbiter: None))
    patch.install()

    with pytest.raises(KeyboardInterrupt):
        patch._target.initialize(arbiter)

    wanted = 65536 if few_files == resource.RLIM_INFINITY else min(65536, few_files)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == wanted


@pytest.mark.parametrize(
    ("looks", "is_typed", "starts"),
    [
        pytest.param([True, True, False], False, True, id="it ends meanwhile"),
        pytest.param([True] * 4, False, False, id="it runs on"),
        pytest.param([True, False], True, False, id="at a terminal"),
        pytest.param([False], True, True, id="alone"),
    ],
)
def test_a_circusd_that_something_starts_waits_for_the_end_of_another(
    monkeypatch: pytest.MonkeyPatch, looks: list[bool], is_typed: bool, starts: bool
) -> None:
    """What starts circusd again whenever it ends would do so without a pause after a restart has replaced its own."""
    runs, now = iter(looks), iter(range(100))
    other = Identity(os.getppid(), 1)
    monkeypatch.setattr(runtime, "supervisor_of", lambda _: other if next(runs) else None)
    monkeypatch.setattr(boot, "time", SimpleNamespace(monotonic=lambda: next(now), sleep=lambda _: None))
    monkeypatch.setattr(boot, "OTHER_ENDS_WITHIN", 4)
    monkeypatch.setattr(os, "isatty", lambda _: is_typed)

    signals = SimpleNamespace()
    arbiter = SimpleNamespace(config_file="/x/circus.ini", ctrl=SimpleNamespace(sys_hdl=signals))
    with nullcontext() if starts else pytest.raises(XboardError, match=f"pid {other.pid} runs on"):
        boot.refuse_beside_another(arbiter)

    assert [*runs] == [False] * (is_typed and not starts)
    assert not starts or not vars(signals)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_end_ends_a_circusd_that_waits_for_another(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Circus queues a quit on its loop, which does not run yet: its workers would be started first."""
    runs = iter([Identity(os.getppid(), 1), None])
    monkeypatch.setattr(runtime, "supervisor_of", lambda _: next(runs))
    waits = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: signal.raise_signal(number))
    monkeypatch.setattr(boot, "time", waits)
    monkeypatch.setattr(os, "isatty", lambda _: False)
    loop = SimpleNamespace(add_callback_from_signal=lambda *_: None)
    signals = SysHandler(SimpleNamespace(loop=loop, dispatch=None))
    try:
        with pytest.raises(SystemExit) as end:
            boot.refuse_beside_another(SimpleNamespace(config_file="/x/a.ini", ctrl=SimpleNamespace(sys_hdl=signals)))
    finally:
        signals.stop()

    assert not end.value.code
    assert [*runs] == [None]


def test_a_pid_that_is_another_process_by_now_keeps_no_circusd_from_starting(tmp_path: Path) -> None:
    """After a kill of circusd any user's process may get its pid, which Circus takes for a circusd that runs."""
    file = tmp_path / "circusd.pid"
    with subprocess.Popen(["sleep", "60"]) as other:
        file.write_text(f"{other.pid}\n")
        passing = boot.pass_reused_pids(Pidfile)
        passing.install()
        try:
            Pidfile(str(file)).create(os.getpid())
        finally:
            passing.undo()
            other.kill()

    assert file.read_text() == f"{os.getpid()}\n"


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_a_command_of_ours_that_circus_knows_already_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Circus collects each command class as soon as it is imported."""

    def check(arbiter: Any) -> None:
        known = arbiter.ctrl.commands["stop"]
        added = controller.add_commands(arbiter, [SimpleNamespace(name="stop")])
        added.install()
        added.undo()
        assert arbiter.ctrl.commands["stop"] is known

    on_circus(monkeypatch, check)


def test_a_watcher_that_is_disarmed_has_its_own_streams_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours would hold a last line back for ever: nobody tells it any more that a worker has ended."""
    watcher = watcher_of("web", hooks={}, autostart=False, stdout_stream={"class": "StdoutStream"})
    stream = watcher.stdout_stream

    async def run() -> None:
        async with running(watcher, monkeypatch=monkeypatch) as arbiter:
            supervisor = Supervisor.of(arbiter)
            supervisor.arm(watcher)
            assert isinstance(watcher.stdout_stream, Tail)
            supervisor.armed.pop("web").disarm()
            assert (watcher.stdout_stream, watcher.stderr_stream) == (stream, None)

    asyncio.run(run())


def test_a_watcher_that_was_armed_and_is_so_no_more_is_one_of_stock_circus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a worker that was spawned while the watcher was armed, when it is disarmed, then Circus loses none."""

    async def run() -> None:
        watcher = watcher_of("web", hooks=ARMED)
        untouched = set(vars(watcher))
        async with running(watcher, monkeypatch=monkeypatch) as arbiter:
            armed = arbiter.xboard.armed.pop("web")
            first = process_of(watcher)
            assert "spawn_process" in vars(watcher)
            await eventually(lambda: "sleep" in " ".join(first.cmdline()))

            armed.disarm()

            assert {name for name in set(vars(watcher)) - untouched if not name.startswith("xboard_")} == set()
            assert type(watcher.processes) is dict
            assert process_of(watcher) == first
            assert not isinstance(watcher.hooks, ArmedHooks)
            first.kill()
            await eventually(lambda: not is_alive(first))
            await watcher.manage_processes()  # Circus's own: reaps the dead one, spawns another
            second = process_of(watcher)
            assert second != first
            assert "launch.py" not in " ".join(second.cmdline())
            assert watcher.cmd == SLEEP
            watcher.graceful_timeout = 2
            await watcher.stop()
            assert (watcher.status(), watcher.processes) == ("stopped", {})
            await eventually(lambda: not is_alive(second))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        pytest.param(["/usr/bin/python3", "-m", "app"], "python3", id="a program"),
        pytest.param(["x" * 5000], "x" * 200, id="a long one"),
        pytest.param(['"'], '"', id="what is no word of a shell"),
        pytest.param([], "N/A", id="what may not be read, or is longer than a MiB"),
    ],
)
def test_circus_shows_the_name_of_a_program_and_reads_no_more(
    monkeypatch: pytest.MonkeyPatch, words: list[str], shown: str
) -> None:
    monkeypatch.setattr(procs, "command_line", lambda _: words)

    def check(arbiter: Any) -> None:
        installed = of_process.bound_command_lines(arbiter)
        patch.install([installed])
        try:
            assert get_info(os.getpid())["cmdline"] == shown
        finally:
            patch.undo([installed])

    on_circus(monkeypatch, check)


def test_children_without_number_are_reaped_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a worker that makes children of circusd's faster than they are reaped, then circusd does other things."""
    times, reaped = itertools.count(step=0.01), itertools.count(10_000)

    async def check(arbiter: Any) -> None:
        once = of_arbiter.reap_for_a_while(arbiter, clock=lambda: next(times), wait=lambda *_: (next(reaped), 0))
        patch.install([once])
        arbiter.reap_processes()
        first = next(reaped)
        await eventually(lambda: next(reaped) > first + 5)
        patch.undo([once])
        assert first < 10_010

    on_circus(monkeypatch, check)


def test_one_timer_at_most_waits_to_reap_on_however_often_circus_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given children without number, when Circus asks at each `check_delay`, then one piece follows each pause."""
    times, reaped, timers = itertools.count(step=0.01), itertools.count(10_000), FakeTimers()
    monkeypatch.setattr(of_arbiter, "event_loop", lambda _: timers)
    arbiter = SimpleNamespace(watchers=[], reap_processes=None)
    once = of_arbiter.reap_for_a_while(arbiter, clock=lambda: next(times), wait=lambda *_: (next(reaped), 0))
    patch.install([once])

    for _ in range(5):
        arbiter.reap_processes()
        arbiter.reap_processes()
        assert len(timers.waiting) == 1
        timers.waiting.pop()()


def test_a_flood_of_signals_is_no_warning_in_circusd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more signals than the loop's buffer holds, then the handler in C drops them without a word and a lock."""

    async def check(arbiter: Any) -> None:
        warned: list[object] = []
        monkeypatch.setattr(sys, "unraisablehook", warned.append)
        installed = of_arbiter.child_ended(arbiter, lambda: None)
        patch.install([installed])
        for _ in range(20_000):
            signal.raise_signal(signal.SIGCHLD)
        patch.undo([installed])
        assert warned == []

    on_circus(monkeypatch, check)


def test_what_circusd_has_not_come_to_in_its_start_is_starting_and_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a start in which a plugin comes last, when somebody asks meanwhile, then nothing has to be started."""
    shown: list[dict[str, str]] = []

    def ask(*, arbiter: Any, **_: Any) -> bool:
        shown.append({each["name"]: each["verdict"]["word"] for each in Supervisor.of(arbiter).view()["watchers"]})
        return True

    first = watcher_of("first", hooks={"before_start": (ask, False)}, priority=2)
    last, off = watcher_of("last", hooks={}), watcher_of("off", hooks={}, autostart=False)

    async def run() -> None:
        async with running(first, last, off, monkeypatch=monkeypatch) as arbiter:
            ask(arbiter=arbiter)

    asyncio.run(run())
    assert [(each["last"], each["off"]) for each in shown] == [("deploying", "stopped"), ("ok", "stopped")]


def test_what_was_open_when_root_started_circusd_goes_to_no_worker_of_another_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given a file and a shared listener that processes would inherit, then the file is withheld, and the keyring left,
    where a watcher has a user of its own and circusd is root's."""
    left: list[bool] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("xboard_circus.launch.leave_session_keyring", lambda: left.append(True))
    with socket.socket() as listener, (tmp_path / "secret").open("w") as file:
        watcher = SimpleNamespace(uid=None, gid=None, sockets={"web": listener})
        for descriptor in (listener.fileno(), file.fileno()):
            os.set_inheritable(descriptor, True)

        of_process.withhold_files(watcher)
        assert os.get_inheritable(file.fileno())
        assert not left

        watcher.uid = 33
        of_process.withhold_files(watcher)
        assert left
        assert not os.get_inheritable(file.fileno())
        assert os.get_inheritable(listener.fileno())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a socket as another user")
def test_an_endpoint_that_a_worker_stored_is_not_taken_for_circusds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given listeners at both endpoints that systemd has kept, one made by root and one by another user, then circusd
    takes root's for its orders, and not the other's."""
    with socket.socket() as roots:
        roots.bind(("127.0.0.1", 0))
        roots.listen()
        os.seteuid(65534)
        try:
            theirs = socket.create_server(("127.0.0.1", 0))
        finally:
            os.seteuid(0)
        ports = [each.getsockname()[1] for each in (roots, theirs)]
        endpoint, pubsub = (f"tcp://127.0.0.1:{port}" for port in ports)
        arbiter = SimpleNamespace(endpoint=endpoint, pubsub_endpoint=pubsub, sockets={}, config_file="/srv/circus.ini")
        monkeypatch.setattr(f"{boot.__name__}.inbox.receive", lambda _: [roots])
        monkeypatch.setattr(f"{boot.__name__}.service_manager.take", lambda: [theirs])

        assert boot.passed_listeners(arbiter) == {"endpoint": roots}
        assert theirs.fileno() == -1, "the port is free for ours"


BECOMES = """
import os
child = os.fork()
if child == 0:
    os.setsid()
else:
    os.setresuid(65534, 65534, 65534)
    print(child, flush=True)
os.read(0, 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of two users")
def test_circus_signals_no_child_that_has_become_roots() -> None:
    """Given a worker of another user's with a child of root's, such as sudo, when Circus asks for the children that it
    will signal, then it gets none, while it sees the child otherwise."""
    with subprocess.Popen([sys.executable, "-c", BECOMES], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            child = int(worker.stdout.readline())
            process: Any = Process.__new__(Process)
            process._worker, process.watcher = psutil.Process(worker.pid), SimpleNamespace(uid=65534, gid=None)
            assert [each.pid for each in process._worker.children()] == [child]
            patch.install([installed := of_process.children_of_its_user(Process)])
            try:
                assert process.children(recursive=True) == []
                assert process.children() == []
                process.watcher.uid = None
                assert process.children() == [child], "what has no user of its own is circusd's"
            finally:
                patch.undo([installed])
        finally:
            worker.communicate(b"xx", timeout=30)
