"""A container that was started wrongly, as everybody does once: it ends, and its last line says what to do."""

import urllib.request
from pathlib import Path

import pytest

from .containers import answers, image, last_line, need_containers, podman, running

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(1800)

READ_ONLY = ("--read-only", "--read-only-tmpfs=false")
NO_TMP = "/tmp cannot be written: run the container with --tmpfs /tmp"
NO_DATABASE = (
    "SQLite keeps its log beside /app/xboard.db, and /app cannot be written: "
    "mount a folder, say /app/data, and set XBOARD_DB=/app/data/xboard.db"
)
NOT_WRITABLE = "/app/uploads cannot be written by user 1000: `chown 1000` it on the host, or run with another --user"

NO_FILES = [
    f"/app/{name} is a folder: there was no file to mount when the container was made; "
    f"remove the container and the folder, {make_it}, and run it again"
    for name, make_it in ((".env", "put the file there"), ("shop.db", "`touch shop.db`"))
]


@pytest.fixture(autouse=True)
def _parts() -> None:
    need_containers()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param(READ_ONLY, [NO_TMP, NO_DATABASE, NOT_WRITABLE], id="nothing can be written"),
        pytest.param((*READ_ONLY, "--tmpfs=/tmp:mode=1777"), [NO_DATABASE, NOT_WRITABLE], id="no place for data"),
        pytest.param(("--tmpfs=/app/uploads:mode=0700",), [NOT_WRITABLE], id="a folder of somebody else's"),
        pytest.param(
            ("--tmpfs=/app/data:mode=0700", "--env=XBOARD_DB=/app/data/xboard.db"),
            [NOT_WRITABLE.replace("uploads", "data")],
            id="a folder for data of somebody else's",
        ),
        pytest.param(("--tmpfs=/app/.env", "--tmpfs=/app/shop.db"), NO_FILES, id="folders in place of files"),
    ],
)
def test_what_cannot_be_written_is_told_with_the_cure(options: tuple[str, ...], told: list[str]) -> None:
    with running(*options) as container:
        assert container.wait_end() == 1
        assert container.logs().splitlines() == [f"xboard-circus: {line}" for line in told]


def test_a_variable_that_makes_no_sense_is_told_by_its_name() -> None:
    """Given a wrong number in the environment, then the log tells what it is for, and the end where it comes from."""
    with running(env={"XBOARD_WORKERS": "many"}) as container:
        assert container.wait_end() == 1
        logs = container.logs()
        assert "numprocesses = $(circus.env.XBOARD_WORKERS): Circus cannot read this; write a whole number" in logs
        last = last_line(logs)
        assert last.startswith("xboard-circus: nothing was started: /app/circus.ini is at fault, see above; ")
        assert "these are the container's environment's: XBOARD_APP, XBOARD_DASHBOARD, " in last


def test_a_command_that_is_none_of_ours_is_refused_with_the_way_to_a_shell() -> None:
    done = podman("run", "--rm", "--network=none", image(), "bash", check=False)

    assert done.returncode == 2
    assert "docker run -it --entrypoint sh IMAGE" in done.stderr


def test_any_user_will_do(tmp_path: Path) -> None:
    """Given a user that the image does not know, then the backend has its database and takes an upload."""
    with running("--user=4321") as container:
        answers(f"{container.url}/health/ready")
        put = urllib.request.Request(f"{container.url}/uploads/note.txt", b"kept", method="PUT")
        with urllib.request.urlopen(put, timeout=60) as done:
            assert done.status in (200, 201)
        assert container.exec("stat", "-c", "%u", "/app/xboard.db", "/app/uploads/note.txt").split() == ["4321"] * 2
