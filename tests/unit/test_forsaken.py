import socket
from pathlib import Path

from xboard_circus.worker.forsaken import others_serve


def test_where_the_runtime_folder_is_gone_nobody_else_is_known_to_serve(tmp_path: Path) -> None:
    assert not others_serve(tmp_path / "gone", "me")
    assert not others_serve(None, "me")


def test_a_worker_that_is_up_and_takes_connections_serves(tmp_path: Path) -> None:
    (tmp_path / "other.up").touch()
    assert not others_serve(tmp_path, "me")

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "other.sock"))
        door.listen()

        assert others_serve(tmp_path, "me")
        assert not others_serve(tmp_path, "other")
