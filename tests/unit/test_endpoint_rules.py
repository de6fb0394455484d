"""What `check` says of endpoints that others can reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from xboard_circus.checks.endpoint_rules import findings, is_closed, people
from xboard_circus.config import load


def told(folder: Path, endpoint: str, others: list[str], more: str = "") -> list[str]:
    file = folder / "circus.ini"
    file.write_text(
        f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = tcp://127.0.0.1:2\n{more}[watcher:a]\ncmd = b\n"
    )
    return [f"{each.level.value} {each.option}: {each.what}; {each.hint}" for each in findings(load(file), others)]


@pytest.mark.parametrize(
    ("others", "named"),
    [
        pytest.param(["bob"], "(bob)", id="one other"),
        pytest.param(["eve", "dan", "bob", "cid"], "(bob, cid, dan and others)", id="many"),
    ],
)
def test_a_loopback_port_is_open_to_every_user_of_the_host(tmp_path: Path, others: list[str], named: str) -> None:
    message = (
        f"warning endpoint: every user of this host {named} can make circusd run any command;"
        " write ipc://FOLDER/circusd.sock, with a FOLDER of mode 0700"
    )

    assert told(tmp_path, "tcp://127.0.0.1:1", others) == [message]


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
