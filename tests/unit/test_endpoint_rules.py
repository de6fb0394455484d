"""What `check` says of endpoints that others can reach."""

from pathlib import Path

import pytest

from xboard_circus.checks.endpoint_rules import findings, is_closed, people
from xboard_circus.config import ARM, load

ARMED = f"hooks.before_start = {ARM}\n"


def told(folder: Path, endpoint: str, others: list[str], more: str = "", watcher: str = "") -> list[str]:
    file = folder / "circus.ini"
    circus = f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = tcp://127.0.0.1:2\n{more}"
    file.write_text(f"{circus}[watcher:a]\ncmd = b\n{watcher}")
    return [f"{each.level.value} {each.option}: {each.what}; {each.hint}" for each in findings(load(file), others)]


@pytest.mark.parametrize(
    ("others", "named"),
    [
        pytest.param(["bob"], "(bob)", id="one other"),
        pytest.param(["eve", "dan", "bob", "cid"], "(bob, cid, dan and others)", id="many"),
    ],
)
def test_without_an_armed_watcher_a_loopback_port_is_open_to_every_user_of_the_host(
    tmp_path: Path, others: list[str], named: str
) -> None:
    message = (
        f"warning endpoint: every user of this host {named} can make circusd run any command;"
        " write ipc://FOLDER/endpoint.sock, with a FOLDER of mode 0700"
    )

    assert told(tmp_path, "tcp://127.0.0.1:1", others) == [message]


def test_an_armed_watcher_guards_the_endpoints_on_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_user = f"{ARMED}uid = nobody\n"

    assert told(tmp_path, "tcp://127.0.0.1:1", ["bob"], watcher=of_a_user) == []
    # In a sandbox circusd may not be able to find out whose a connection is.
    monkeypatch.setattr("xboard_circus.host.sockdiag.knows_users", lambda: False)
    assert "(bob, nobody)" in told(tmp_path, "tcp://127.0.0.1:1", ["bob"], watcher=of_a_user)[0]


def test_statistics_are_open_to_every_user_of_the_host(tmp_path: Path) -> None:
    statistics = "statsd = True\nstats_endpoint = tcp://127.0.0.1:3\n"

    message = (
        "warning stats_endpoint: every user of this host (bob) can read the names, pids and load of all processes;"
        " write ipc://FOLDER/stats_endpoint.sock, with a FOLDER of mode 0700"
    )

    assert told(tmp_path, "tcp://127.0.0.1:1", ["bob"], statistics, ARMED) == [message]


def test_on_a_host_of_one_user_nothing_is_said(tmp_path: Path) -> None:
    assert told(tmp_path, "tcp://127.0.0.1:1", []) == []


def test_a_folder_is_closed_where_it_or_one_on_the_way_keeps_others_out(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(0o700)

    assert is_closed(folder)
    assert is_closed(folder / "..") == is_closed(tmp_path)
    assert not is_closed(Path("/tmp"))
    assert told(tmp_path, f"ipc://{folder}/c.sock", ["bob"]) == []


def test_an_endpoint_in_tmp_is_told(tmp_path: Path) -> None:
    message = (
        "warning endpoint: other users can enter /tmp, and who gets at the socket can run any command;"
        " use a folder of its own, and chmod 0700 it"
    )

    assert told(tmp_path, "ipc:///tmp/c.sock", []) == [message]


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    assert told(tmp_path, f"ipc://{tmp_path}/no/c.sock", []) == [
        f"error endpoint: there is no folder {tmp_path}/no; mkdir -p -m 0700 {tmp_path}/no"
    ]


def test_people_are_those_who_log_in() -> None:
    assert not {"root", "nobody", "www-data", "daemon"} & set(people())
