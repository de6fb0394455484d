"""The command that prints the dashboard's link."""

import os
import socket
import stat
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from xboard_circus.checks import authorship
from xboard_circus.cli import main, page
from xboard_circus.dashboard.tokens import load_or_make
from xboard_circus.host import runtime, servers, written_files

DASHBOARD = """\
[watcher:dashboard]
cmd = python -m xboard_circus.worker xboard_circus.dashboard.served:app --fd $(circus.sockets.dashboard)
use_sockets = True
{options}
[socket:dashboard]
host = {host}
port = {port}
"""


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which something answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, port)
    load_or_make(tmp_path)
    return tmp_path


def write(folder: Path, port: int, *, host: str = "127.0.0.1", options: str = "") -> None:
    (folder / "circus.ini").write_text(DASHBOARD.format(host=host, port=port, options=options))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["dashboard", *arguments])


def test_the_link_carries_the_token_behind_the_hash(folder: Path, port: int) -> None:
    result = run()

    assert (result.exit_code, result.output) == (
        0,
        f"http://127.0.0.1:{port}/login#token={load_or_make(folder).admin}\n",
    )


def test_the_reader_s_link_carries_the_reader_s(folder: Path, port: int) -> None:
    assert run("--read-only").output == f"http://127.0.0.1:{port}/login#token={load_or_make(folder).reader}\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost"])
def test_the_link_leads_to_this_host(folder: Path, port: int, host: str) -> None:
    write(folder, port, host=host)

    assert run().output.startswith(f"http://127.0.0.1:{port}/login#token=")


def test_the_link_has_the_prefix(folder: Path, port: int) -> None:
    write(folder, port, options="dashboard.root_path = /ops")

    assert f":{port}/ops/login#token=" in run().output


def test_the_token_is_where_the_options_say(folder: Path, port: int) -> None:
    (folder / "data").mkdir()
    write(folder, port, options="dashboard.folder = data")

    made = load_or_make(folder / "data")

    assert run().output.endswith(f"/login#token={made.admin}\n")


def test_circus_s_own_switch_does_as_well(folder: Path, port: int) -> None:
    (folder / "circus.ini").write_text(f"[circus]\nhttpd = True\nhttpd_port = {port}\n[watcher:web]\ncmd = true\n")

    assert run().output.startswith(f"http://127.0.0.1:{port}/login#token=")


def test_another_users_process_at_the_pages_port_gets_no_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = servers.EndpointServer(frozenset({65534}), frozenset({1}))
    monkeypatch.setattr(servers, "server_of", lambda _: found)
    result = run()

    assert (result.exit_code, result.stdout) == (1, "")
    assert "a process of user nobody listens at 127.0.0.1" in result.stderr


def test_another_users_ini_sends_no_token_of_ours_anywhere(
    folder: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an ini of another user that names the folder of our token, then nobody but we or root gets that."""
    nobody = 65534
    if os.geteuid() == 0:
        os.chown(folder / "circus.ini", nobody, -1)
        assert "nobody may write" in (refused := run()).stderr
        assert (refused.exit_code, refused.stdout) == (1, "")
    monkeypatch.setattr(authorship, "other_author", lambda _: None)
    monkeypatch.setattr(written_files, "settle", lambda path: written_files.Settled(str(path), nobody, set()))
    # Who is not root has never started it: its name of an address, which the browser looks up anew, may lead to us
    # first and elsewhere then, and what root serves at that port may show a page of nobody's.
    with monkeypatch.context() as context:
        context.setattr(servers, "server_of", lambda _: servers.EndpointServer(frozenset({0}), frozenset({1})))
        context.setattr("xboard_circus.cli.page.os.geteuid", lambda: 4242)
        refused = run()
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "is nobody's, who would say who gets your token" in refused.stderr
    monkeypatch.setattr(runtime, "was_started", lambda _: True)
    monkeypatch.setattr(servers, "server_of", lambda _: servers.EndpointServer(frozenset({nobody}), frozenset({1})))
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "a process of user nobody listens at 127.0.0.1" in result.stderr
    monkeypatch.setattr(servers, "server_of", lambda _: None)
    monkeypatch.setattr(page, "is_loopback", lambda _: False)  # an address of another host
    with socket.create_server(("127.0.0.2", 0)) as other:
        free = other.getsockname()[1]
        write(folder, free, host="127.0.0.2")
        result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no address of this host" in result.stderr
    write(folder, free)  # closed by now: he may begin to listen there
    assert (result := run()).stdout == "", result.stderr


def test_where_nothing_answers_it_says_so(folder: Path) -> None:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        write(folder, trial.getsockname()[1])
        result = run()

    assert result.exit_code == 1
    assert "/login#token=" in result.stdout
    assert "nothing answers at 127.0.0.1" in result.stderr


def test_before_the_first_start_there_is_no_token(folder: Path) -> None:
    (folder / "dashboard.token").unlink()
    result = run()

    assert (result.exit_code, result.stdout) == (1, "")
    assert "the dashboard makes it at its first start" in result.stderr


def test_an_ini_without_a_dashboard_is_told(folder: Path) -> None:
    (folder / "circus.ini").write_text("[watcher:web]\ncmd = true\n")
    result = run()

    assert (result.exit_code, "there is no dashboard in it" in result.stderr) == (1, True)


def test_a_browser_is_led_there_without_a_token_on_its_command_line(
    folder: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(page, "has_browser", lambda: True)
    run("--no-open")
    assert opened == []

    run()

    (address,) = opened
    token = load_or_make(folder).admin
    assert token not in address
    lead = Path(address.removeprefix("file://"))
    assert f"http://127.0.0.1:{port}/login#token={token}" in lead.read_text()
    assert stat.S_IMODE(lead.stat().st_mode) == 0o600


def test_without_a_screen_no_browser_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    run()

    assert opened == []
