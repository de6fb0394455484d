"""What the monitor does with what it sees of circusd."""

import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from xboard_circus import monitor
from xboard_circus.config import load
from xboard_circus.core.restart_limits import RestartLimits
from xboard_circus.host.procs import Identity
from xboard_circus.monitor import CircusdSighting, Monitor

CIRCUSD = Identity(4242, 1760)
UP = CircusdSighting(running=CIRCUSD, answers=True)
SILENT = CircusdSighting(running=CIRCUSD)
ALIVE = CircusdSighting(running=CIRCUSD, quiet=5)
CROWDED = CircusdSighting(running=CIRCUSD, crowded="circusd works, but connections fill its queue")
GONE = CircusdSighting()
TAKEN = CircusdSighting(taken="127.0.0.1:5555 is held by nginx")
STOPPED = CircusdSighting(stopped=True)
LIMITS = RestartLimits(burst=3, window=600, delay=10, delay_max=10, cooldown=300, reset_after=60)


class FakeHost:
    """Shows what it is told to, and notes what is done and when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.shows = GONE
        self.done: list[tuple[float, str]] = []

    def look(self) -> CircusdSighting:
        return self.shows

    def start(self) -> None:
        self.done.append((self.now, "start"))

    def end(self, circusd: Identity) -> None:
        self.done.append((self.now, f"end {circusd}"))


@pytest.mark.parametrize(
    ("history", "done"),
    [
        pytest.param([(0, UP), (1000, UP)], [], id="what answers is left alone"),
        pytest.param([(0, GONE), (5, UP)], [(0, "start")], id="nothing runs yet: it is started"),
        pytest.param([(0, STOPPED), (1000, STOPPED)], [], id="stopped before the monitor came"),
        pytest.param([(0, UP), (5, STOPPED), (1000, STOPPED)], [], id="stopped while it watches"),
        pytest.param([(0, UP), (5, STOPPED), (9, UP), (10, GONE)], [(10, "start")], id="stopped, started, died"),
        pytest.param([(0, UP), (5, GONE), (10, UP)], [(5, "start")], id="died: started at once"),
        pytest.param(
            [(0, UP), (5, GONE), (6, GONE), (15, GONE), (16, GONE)],
            [(5, "start"), (16, "start")],
            id="died again at once: started after a delay",
        ),
        pytest.param(
            [(0, UP), (5, GONE), (6, GONE), (16, GONE), (17, GONE), (316, GONE), (317, GONE), (318, GONE)],
            [(5, "start"), (16, "start"), (317, "start")],
            id="dies again and again: once in a cooldown",
        ),
        pytest.param(
            [(0, UP), (1, GONE), (2, UP), (62, UP), (63, GONE), (64, UP), (124, UP), (125, GONE), (126, UP)],
            [(1, "start"), (63, "start"), (125, "start")],
            id="held for reset_after in between: at once every time",
        ),
        pytest.param(
            [(0, UP), (5, GONE), (6, GONE), (10, STOPPED), (16, STOPPED)],
            [(5, "start")],
            id="stopped while it waits for the next try",
        ),
        pytest.param(
            [(0, UP), (5, SILENT), (34, SILENT), (35, SILENT), (36, GONE)],
            [(35, "end 4242:1760"), (36, "start")],
            id="silent for as long as can be borne: ended and started",
        ),
        pytest.param([(0, UP), (5, SILENT), (30, UP), (31, SILENT), (60, SILENT)], [], id="silence is counted anew"),
        pytest.param(
            [(0, UP), (5, CROWDED), (1000, CROWDED), (1005, SILENT), (1034, SILENT), (1035, SILENT)],
            [(1035, "end 4242:1760")],
            id="one that works, and whose endpoint others keep full, is not killed",
        ),
        pytest.param(
            [(0, UP), (5, ALIVE), (304, ALIVE), (305, ALIVE)],
            [(305, "end 4242:1760")],
            id="one that gives signs of life is given ten times as long",
        ),
        pytest.param([(0, UP), (5, ALIVE), (40, SILENT)], [(40, "end 4242:1760")], id="until it gives none any more"),
        pytest.param([(0, SILENT), (25, SILENT), (29, UP)], [], id="one that still starts is given the time"),
        pytest.param(
            [(0, UP), (5, TAKEN), (6, TAKEN), (7, GONE), (8, UP)], [(7, "start")], id="started when the port is free"
        ),
        pytest.param(
            [(0, GONE), (1, TAKEN), (2, GONE), (3, TAKEN), (4, GONE), (5, TAKEN), (6, GONE), (7, TAKEN), (8, GONE)],
            [(0, "start"), (2, "start"), (4, "start"), (6, "start"), (8, "start")],
            id="a start that was refused is no failure",
        ),
        pytest.param(
            [(0, UP), (5, GONE), (6, GONE), (10, TAKEN), (11, GONE), (16, GONE)],
            [(5, "start"), (16, "start")],
            id="a port that was taken shortens no delay",
        ),
        pytest.param(
            [(0, UP), (5, TAKEN), (6, GONE), (7, UP), (8, GONE), (17, GONE), (18, GONE)],
            [(6, "start"), (18, "start")],
            id="a killed one counts whose port is not given back at first",
        ),
        pytest.param(
            [(0, CircusdSighting(answers=True)), (50, CircusdSighting(answers=True))], [], id="another circusd is there"
        ),
    ],
)
def test_what_is_done(history: list[tuple[float, CircusdSighting]], done: list[tuple[float, str]]) -> None:
    host = FakeHost()
    monitor = Monitor(host, patience=30, limits=LIMITS, clock=lambda: host.now, jitter=lambda: 0)
    for host.now, host.shows in history:
        monitor.round()

    assert host.done == done


def test_it_says_the_same_thing_once(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    monitor = Monitor(host, patience=30, clock=lambda: host.now)
    with caplog.at_level("INFO", logger="xboard_circus.monitor"):
        for host.now, host.shows in [(0, UP), (1, UP), (2, STOPPED), (3, STOPPED), (4, UP)]:
            monitor.round()

    assert caplog.messages == [
        "circusd answers",
        "stopped by an operator: left alone until `xboard-circus start`",
        "circusd answers",
    ]


def test_a_port_that_another_process_has_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    with socket.create_server(("127.0.0.1", 0)) as held, socket.create_server(("127.0.0.1", 0)) as other:
        ini = tmp_path / "circus.ini"
        ports = [f"127.0.0.1:{each.getsockname()[1]}" for each in (held, other)]
        ini.write_text(f"[circus]\nendpoint = tcp://{ports[0]}\npubsub_endpoint = tcp://{ports[1]}\n")
        host = monitor.ThisHost(load(ini), threading.Event())
        seen = host.look().taken
        held.close()

        assert (ports[0] in seen, ports[1] in host.look().taken) == (True, True)
    assert host.look() == GONE


def test_nothing_in_an_ini_commands_the_terminal_of_who_starts_the_monitor(tmp_path: Path) -> None:
    (tmp_path / "circus.ini").write_text("[circus]\n\x1b[2J\n")

    refused = CliRunner().invoke(monitor.main, ["-c", str(tmp_path / "circus.ini")])

    assert (refused.exit_code, "?[2J" in refused.stderr, "\x1b" in refused.stderr) == (1, True, False)
