"""The port guard where it fails itself: a worker never starts on a socket that does not listen."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circus.sockets import CircusSocket

from xboard_circus.core.ports import Holder, Policy
from xboard_circus.core.state_names import PortState
from xboard_circus.supervisor import port
from xboard_circus.supervisor.listener_check import is_listening
from xboard_circus.supervisor.patches.circus_process import sockets_named
from xboard_circus.supervisor.port import PortGuard

RETRY = 7.0


class FakeArmed:
    """What the guard asks of its watcher; timers are kept in *later* and not run."""

    def __init__(self, shared: CircusSocket) -> None:
        self.now = 100.0
        self.filled_up = 0
        self.has_private_socket = True
        self.told: list[str] = []
        self.later: list[tuple[float, Callable[[int], None], int]] = []
        self.options = SimpleNamespace(port=SimpleNamespace(retry=RETRY, port=None, host=""))
        self.watcher = SimpleNamespace(
            cmd="serve $(circus.sockets.web)", args="", sockets={"web": shared}, is_stopped=lambda: False
        )
        self.supervisor = SimpleNamespace(
            loop=SimpleNamespace(call_later=lambda delay, work, run: self.later.append((delay, work, run)))
        )

    def clock(self) -> float:
        return self.now

    def is_current(self) -> bool:
        return True

    def keep_up(self) -> None:
        self.filled_up += 1

    def note_reason(self, reason: str) -> None:
        self.told.append(reason)

    def publish(self, event: str, **_: object) -> None:
        self.told.append(event)


@pytest.mark.parametrize(
    ("cmd", "args", "names"),
    [
        pytest.param("serve --fd $(circus.sockets.Web)", "", ["web"], id="one"),
        pytest.param("serve $(circus.sockets.a-b) $(circus.sockets.c_d)", "", ["a-b", "c_d"], id="two"),
        pytest.param("serve --fd $(circus.sockets.api.v2) .", "", ["api.v2"], id="with a dot"),
        pytest.param("serve", ["--fd", "$(circus.sockets.web)"], ["web"], id="in a list of arguments"),
        pytest.param("serve --port 8000", None, [], id="none"),
    ],
)
def test_the_sockets_that_a_command_names(cmd: str, args: object, names: list[str]) -> None:
    assert sockets_named(SimpleNamespace(cmd=cmd, args=args)) == names


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_guard_that_failed_waits_for_a_taken_port_and_binds_it_once_it_is_free(taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    with CircusSocket("web", host="127.0.0.1", port=port) as shared:
        armed: Any = FakeArmed(shared)
        guard = PortGuard(armed)

        guard._give_up(0)

        assert (guard.state, armed.filled_up) == (PortState.REFUSED, 0)
        assert guard.reason == f"127.0.0.1:{port}: Address already in use"
        assert guard.retry_in() == RETRY
        ((delay, again, run),) = armed.later
        assert delay == RETRY
        taken.close()

        again(run)

        assert (guard.state, guard.reason, armed.filled_up) == (PortState.BOUND, "", 1)
        assert is_listening(shared)


def test_a_socket_for_one_interface_is_not_bound_on_all() -> None:
    """Circus reads `interface` by a module that Python has no more, so the guard would serve every network."""
    with CircusSocket("web", host="0.0.0.0", port=0, interface="lo") as shared:
        armed: Any = FakeArmed(shared)
        guard = PortGuard(armed)

        guard._give_up(0)

        assert (guard.state, is_listening(shared)) == (PortState.REFUSED, False)
        assert "interface = lo" in guard.reason


def test_a_guard_that_failed_leaves_a_later_start_alone() -> None:
    with CircusSocket("web", host="127.0.0.1", port=0) as shared:
        armed: Any = FakeArmed(shared)
        guard = PortGuard(armed)

        guard._give_up(-1)

        assert (guard.state, armed.filled_up, armed.later) == (PortState.NONE, 0, [])
        assert not is_listening(shared)


def test_a_port_that_nobody_holds_any_more_is_tried_again_at_once(taken: socket.socket) -> None:
    """Its holder has ended and the kernel has not let go of it yet, or two looks fell on both sides of that."""
    looks: list[tuple[str, int]] = []

    def holders(*address: Any) -> list[Holder]:
        looks.append(address)
        if len(looks) == 3:
            taken.close()
        return []

    with CircusSocket("web", host="127.0.0.1", port=taken.getsockname()[1]) as shared:
        armed: Any = FakeArmed(shared)
        armed.name, armed.policy, armed.folder, armed.options.port.grace = "web", Policy.ORPHANS, None, 1
        armed.watcher.singleton = False
        ended = [Holder(812, 1, "python -m shop")]
        sweeps: list[Any] = []
        armed.supervisor.sweep = lambda *_: sweeps[0]
        armed.supervisor.holders, armed.supervisor.family, armed.supervisor.instance = holders, set, "i"
        armed.supervisor.arbiter = SimpleNamespace()
        guard = PortGuard(armed)

        async def start_twice() -> None:
            sweeps.append(asyncio.ensure_future(asyncio.sleep(0, ended)))
            await asyncio.wait_for(guard._guard(0), 20)
            await asyncio.wait_for(guard._guard(0), 20)

        asyncio.run(start_twice())

        assert (guard.state, len(looks)) == (PortState.BOUND, 3)
        assert armed.told == ["port_freed"]  # by the first start alone, and not what `status` shows as the last reason


def test_sockets_that_answer_nothing_hold_up_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given silent sockets that look like those of workers, as their user can make, then all together get a limit."""
    monkeypatch.setattr(port, "HANDOVER_WITHIN", 1.0)
    with ExitStack() as bound:
        for number in range(12):
            silent = bound.enter_context(socket.socket(socket.AF_UNIX))
            silent.bind(str(tmp_path / f"{number}.sock"))
            silent.listen()
            (tmp_path / f"{number}.up").touch()
        began_at = time.monotonic()

        found, serving = port.take_listener(tmp_path, "instance", ("127.0.0.1", 1))

    assert (found, len(serving)) == (None, 12)
    assert time.monotonic() - began_at < 10
