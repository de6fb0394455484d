import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xboard_circus.circus_client import CircusdGone
from xboard_circus.core.lost import Loss
from xboard_circus.host import procs
from xboard_circus.plugins._base import BusEvent, Parent, Part, PartLoop, ThreadedCommands, decoded
from xboard_circus.plugins._log import PluginLogHandler, Sparingly
from xboard_circus.plugins.bundle import Bundle
from xboard_circus.plugins.http_health import HttpHealth
from xboard_circus.plugins.ledger import Ledger
from xboard_circus.plugins.restart_limiter import RestartLimiter


class CountingPart(Part):
    """Counts what it is asked to do; raises in *fails*, a set of "tick", "event" and "close"."""

    period = 0.01

    def __init__(self, name: str, *fails: str) -> None:
        self.name = name
        self.fails = fails
        self.ticks = 0
        self.events: list[str] = []
        self.is_closed = False

    async def tick(self) -> float:
        self.ticks += 1
        self._fail("tick")
        return 0.01

    def handle_event(self, event: BusEvent) -> float | None:
        self._fail("event")
        self.events.append(event.kind)
        return None

    async def close(self) -> bool | None:
        self._fail("close")
        self.is_closed = True
        return None

    def _fail(self, what: str) -> None:
        if what in self.fails:
            raise RuntimeError(f"{self.name} fails in {what}")


class HangingPart(CountingPart):
    async def tick(self) -> float:
        await asyncio.Event().wait()
        return 0.0


def run_host(
    *parts: CountingPart,
    until: Callable[[], bool],
    parent: Parent | None = None,
    event: BusEvent | None = None,
    obituary: Callable[[], Loss | None] = lambda: None,
    reported: Callable[[Loss], object] = lambda _: None,
) -> None:
    """Run a host until *until* holds, then end it and wait until it has left."""

    async def scenario() -> None:
        left = asyncio.Event()
        host = PartLoop(parts, parent=parent or Parent(), leave=left.set, obituary=obituary, reported=reported)
        host.start(asyncio.get_running_loop())
        if event is not None:
            host.dispatch(event)
        while not until():
            await asyncio.sleep(0.01)
        if parent is None:
            host.end("the test is over")
        await left.wait()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_part_that_fails_or_hangs_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    failing, hanging, well = CountingPart("a", "tick"), HangingPart("b"), CountingPart("c")

    run_host(failing, hanging, well, until=lambda: failing.ticks >= 5 and well.ticks >= 5)

    assert (failing.is_closed, well.is_closed) == (True, True)
    assert caplog.text.count("a: RuntimeError: a fails in tick") == 1
    assert "in _fail" in caplog.text, "a traceback goes with it"


def test_an_event_that_one_part_cannot_take_reaches_the_others() -> None:
    failing, well = CountingPart("a", "event"), CountingPart("b")

    run_host(failing, well, until=lambda: well.ticks >= 1, event=BusEvent("web", "reap"))

    assert (failing.events, well.events) == ([], ["reap"])


def test_a_part_that_cannot_be_closed_does_not_keep_the_others_open(caplog: pytest.LogCaptureFixture) -> None:
    failing, well = CountingPart("a", "close"), CountingPart("b")

    run_host(failing, well, until=lambda: well.ticks >= 1)

    assert well.is_closed
    assert "RuntimeError: a fails in close" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("was_told_to_end", [True, False])
def test_the_parts_are_told_of_a_lost_circusd_before_they_are_closed(
    was_told_to_end: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Part(CountingPart):
        def handle_event(self, event: BusEvent) -> float | None:
            assert not self.is_closed
            assert (event.watcher, event.data["reason"]) == ("circusd", "killed")
            return super().handle_event(event)

    part, ppid = Part("a"), iter([4711, 4711])
    loss = Loss("circusd_lost", 4711, 1, 5.0, "killed")
    parent = Parent(getppid=lambda: next(ppid, 1))

    run_host(part, until=lambda: part.is_closed, parent=parent, obituary=lambda: None if was_told_to_end else loss)

    assert part.events == ([] if was_told_to_end else ["circusd_lost"])
    assert ("killed" in caplog.text) is not was_told_to_end


def test_of_what_comes_after_the_end_of_circusd_nothing_is_taken_but_its_own_last_words() -> None:
    """Given a circusd that is gone, whose port is free, then what somebody else publishes there reaches no part."""
    part, gone, numbered = CountingPart("a"), list[bool](), {"seq": "18a3f-12"}
    parent = Parent(getppid=lambda: 1 if gone else 4711)
    host = PartLoop([part], parent=parent, leave=lambda: None)

    async def scenario() -> None:
        host.start(asyncio.get_running_loop())
        host.hear(BusEvent("web", "reap"))
        host.hear(BusEvent("web", "ready", numbered))
        gone.append(True)
        host.hear(BusEvent("web", "restart", {"seq": "18a3f-13"}))
        for forged in ({}, {"seq": "18a40-14"}, {"seq": "x"}, {"seq": None}):
            host.hear(BusEvent("web", "cooldown", forged))

    asyncio.run(scenario())

    assert part.events == ["reap", "ready", "restart"]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_lost_circusd_that_no_part_could_record_is_left_for_the_next_one_to_report(is_kept: bool) -> None:
    class Part(CountingPart):
        async def close(self) -> bool:
            self.is_closed = True
            return is_kept

    loss, seen, ppid = Loss("circusd_lost", 4711, 1, 5.0, "killed"), list[Loss](), iter([4711, 4711])
    parts, parent = (Part("a"), CountingPart("b", "close")), Parent(getppid=lambda: next(ppid, 1))

    run_host(*parts, until=lambda: parts[0].is_closed, parent=parent, obituary=lambda: loss, reported=seen.append)

    assert seen == ([loss] if is_kept else [])


def test_the_host_ends_itself_even_where_asking_what_became_of_circusd_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> Loss | None:
        raise RuntimeError("an odd file")

    part, ppid = CountingPart("a"), iter([4711, 4711])

    run_host(part, parent=Parent(getppid=lambda: next(ppid, 1)), until=lambda: part.is_closed, obituary=fail)

    assert "an odd file" in caplog.text


def test_the_host_ends_itself_when_circusd_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    part = CountingPart("a")
    ppid = iter([4711, 4711])
    parent = Parent(getppid=lambda: next(ppid, 1))

    run_host(part, parent=parent, until=lambda: True)

    assert part.is_closed
    assert "circusd (4711) is gone" in caplog.text


class Told(Parent):
    """A circusd that is no parent of ours, and whose end a descriptor tells."""

    def __init__(self, circusd: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self._circusd = circusd
        self._told = procs.open_pidfd(circusd.pid)
        self.looks = 0

    def is_gone(self) -> bool:
        self.looks += 1
        return self._circusd.poll() is not None

    def descriptor(self) -> int | None:
        return self._told


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd here")
def test_the_end_of_circusd_is_told_and_not_looked_for() -> None:
    circusd = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    part, parent = CountingPart("a"), Told(circusd)

    def end_it() -> bool:
        if part.ticks >= 5 and circusd.poll() is None:
            circusd.kill()
        return part.ticks >= 5

    run_host(part, parent=parent, until=end_it)
    circusd.communicate()

    assert part.is_closed
    assert parent.looks == 1


def test_an_event_may_call_for_a_tick() -> None:
    class Sleepy(CountingPart):
        async def tick(self) -> float:
            await super().tick()
            return 3600.0

    class Called(Sleepy):
        def handle_event(self, event: BusEvent) -> float | None:
            return 0.0

    called, sleepy = Called("a"), Sleepy("b")

    run_host(called, sleepy, until=lambda: called.ticks == 2, event=BusEvent("web", "reap"))

    assert sleepy.ticks == 1


OLDER = os.getppid()


@pytest.mark.parametrize(
    ("mark", "ppids", "expected"),
    [
        pytest.param(None, [50, 50], False, id="no mark, same parent"),
        pytest.param(None, [50, 1], True, id="no mark, given to init"),
        pytest.param("1073741824:1", [50, 50], False, id="the mark of a circusd further up that has ended"),
        pytest.param("1073741824:1", [1, 1], True, id="circusd had ended before we got here"),
        pytest.param("1073741824:1000000000000", [OLDER, OLDER], True, id="it had, and a subreaper is above us"),
        pytest.param("1:1", [1, 1], False, id="circusd is the init of a container"),
        pytest.param("nonsense", [50, 50], False, id="a mark that says nothing"),
    ],
)
def test_when_circusd_counts_as_gone(mark: str | None, ppids: list[int], expected: bool) -> None:
    left = list(ppids)

    parent = Parent(mark, getppid=lambda: left.pop(0))

    assert parent.is_gone() is expected


def test_the_circusd_that_started_us_is_not_gone() -> None:
    assert Parent(str(procs.Identity.of(os.getppid()))).is_gone() is False


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param([b"watcher.web.reap", b'{"a": 1}'], BusEvent("web", "reap", {"a": 1}), id="an event"),
        pytest.param([b"watcher.plugin:xboard.spawn", b"{}"], BusEvent("plugin:xboard", "spawn", {}), id="of a plugin"),
        pytest.param([b"watcher.api.v2.reap", b"{}"], BusEvent("api.v2", "reap", {}), id="a name with a dot"),
        pytest.param([b"watcher.web.reap"], None, id="half a message"),
        pytest.param([b"watcher.web.reap", b"{"], None, id="no JSON"),
        pytest.param([b"watcher.web.reap", b"[1]"], None, id="another JSON"),
        pytest.param([b"watcher.web.reap", b"[" * 100_000], None, id="deep nesting"),
        pytest.param([b"watcher.reap", b"{}"], None, id="no watcher"),
        pytest.param([b"stat.web.1", b"{}"], None, id="another topic"),
        pytest.param([b"\xff\xfe", b"\xff"], None, id="noise"),
    ],
)
def test_decoded(message: list[bytes], expected: BusEvent | None) -> None:
    assert decoded(message) == expected


def test_a_plugin_that_cannot_make_its_parts_logs_why_before_it_ends(tmp_path: Path) -> None:
    code = (
        "from types import SimpleNamespace\n"
        "from xboard_circus.plugins._base import XboardPlugin\n"
        "class Broken(XboardPlugin):\n"
        "    def parts(self): raise RuntimeError('no such part')\n"
        f"plugin = Broken('ipc:///x/c', 'ipc:///x/p', 5.0, None, **{CONFIG!r})\n"
        "plugin.loop = SimpleNamespace(asyncio_loop=None)\n"
        "plugin.handle_init()\n"
    )

    home = os.environ | {"XBOARD_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=home)

    assert done.returncode == 1
    log = (tmp_path / "logs" / "plugin-xboard.log").read_text()
    assert "Traceback" in log
    assert "RuntimeError: no such part" in log


def test_a_silent_circusd_does_not_hold_up_the_loop() -> None:
    commands = ThreadedCommands("ipc:///nonexistent/xboard")
    ticks = 0

    async def count() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    async def scenario() -> None:
        counting = asyncio.ensure_future(count())
        with pytest.raises(CircusdGone):
            await commands.call("dstats", deadline=0.5)
        counting.cancel()

    asyncio.run(scenario())
    commands.close()

    assert ticks >= 1


# The log


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("xboard_circus.test_plugin_host")
    found.propagate = False
    yield found
    for handler in list(found.handlers):
        found.removeHandler(handler)
        handler.close()
    found.propagate = True


def test_a_log_that_cannot_be_written_is_done_without_and_taken_up_later(
    tmp_path: Path, logger: logging.Logger
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    logger.addHandler(PluginLogHandler(tmp_path / "logs" / "plugin-x.log"))
    logger.warning("lost")
    (tmp_path / "logs").unlink()

    logger.warning("kept")

    assert [line.split(" ", 3)[2:] for line in (tmp_path / "logs" / "plugin-x.log").read_text().splitlines()] == [
        ["WARNING", "kept"]
    ]


FULL_DISK = """
import logging, os, resource, sys
from pathlib import Path
from xboard_circus.plugins._log import PluginLogHandler

path = Path(sys.argv[1])
log = logging.getLogger("x")
log.addHandler(PluginLogHandler(path))
log.warning("first")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
for number in range(1000):
    log.warning("lost %d", number)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
log.warning("last")
"""


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "plugin-x.log"

    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["first", "last"]


def test_the_log_stays_small(tmp_path: Path, logger: logging.Logger) -> None:
    logger.addHandler(PluginLogHandler(tmp_path / "plugin-x.log"))

    for _ in range(60):
        logger.warning("x" * 100_000)

    sizes = [found.stat().st_size for found in tmp_path.iterdir()]
    assert len(sizes) == 4
    assert max(sizes) <= 1 << 20


def test_what_was_said_may_be_said_again_once_it_is_over() -> None:
    said = Sparingly(clock=lambda: 0.0)

    assert [said.may_say("x"), said.may_say("x"), said.forget("x"), said.forget("x"), said.may_say("x")] == [
        True,
        False,
        True,
        False,
        True,
    ]


# The plugins themselves

CONFIG = {"name": "plugin:xboard", "priority": "1", "__name__": "plugin:xboard", "working_dir": "/"}


@pytest.mark.parametrize(
    ("plugin", "parts"),
    [
        (Bundle, ["http_health", "traffic_recorder", "restart_limiter", "ledger", "alerts", "log_pruner"]),
        (HttpHealth, ["http_health", "traffic_recorder"]),
        (RestartLimiter, ["restart_limiter"]),
        (Ledger, ["ledger"]),
    ],
)
def test_each_plugin_hosts_its_parts_in_the_folder_of_circus_ini(
    plugin: type, parts: list[str], tmp_path: Path
) -> None:
    code = (
        "import sys, importlib\n"
        f"from {plugin.__module__} import {plugin.__name__} as Plugin\n"
        f"plugin = Plugin('ipc:///x/c', 'ipc:///x/p', 5.0, None, **{CONFIG!r})\n"
        "print([part.name for part in plugin.parts()], plugin.problems, plugin.path('logs'))\n"
        "print('requests' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"XBOARD_HOME": str(tmp_path)},
    )

    assert done.stdout == f"{parts} [] {tmp_path / 'logs'}\nFalse\n"
