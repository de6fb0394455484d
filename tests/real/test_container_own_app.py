"""An image of the user's own app, by `xboard-circus init --docker`, on the image of the committed Dockerfile."""

import http.client
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from .containers import answers, build_flags, image, need_containers, podman, running
from .harness import eventually
from .operations import OPERATIONS

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(1800)

SHOP = """
from fastapi import FastAPI, UploadFile

app = FastAPI()


@app.get("/alive")
async def alive() -> str:
    return "yes"


@app.post("/pictures")
async def pictures(file: UploadFile) -> int:
    return file.size
"""
PACKAGE = "python-multipart"  # FastAPI wants it for forms, and the image has it not
LARGE = 90_000_000
NOT_IN_IT = ("circus.ini", "logs/x.log", ".env", "shop.db", ".git/config", ".venv/x")
# As in docker-compose.yml: no place for an upload in /tmp.
HARDENED = ("--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:mode=1777,size=64m", "--cap-drop=all")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with an app, what it needs, and what is nobody's business."""
    need_containers()
    folder = tmp_path / "shop"
    for name in NOT_IN_IT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("hunter2")
    (folder / "shop").mkdir()
    (folder / "shop" / "main.py").write_text(SHOP)
    (folder / "requirements.txt").write_text(f"{PACKAGE}\n")
    return folder


def test_an_app_with_packages_of_its_own_is_built_runs_and_takes_a_large_form(shop: Path) -> None:
    """Given `init --docker`, `docker build` and `docker run`, then the app serves, is healthy, and takes 90 MB."""
    command = [
        sys.executable,
        "-m",
        "xboard_circus",
        "init",
        "--docker",
        "--app",
        "shop.main:app",
        "--live-path",
        "/alive",
    ]
    done = subprocess.run(command, cwd=shop, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    name = f"localhost/xb-shop-{uuid.uuid4().hex[:10]}"
    podman("build", *build_flags(on=image()), f"--tag={name}", shop, timeout=600)
    try:
        with running(*HARDENED, "--volume=/var/tmp", of=name) as container:
            assert answers(f"{container.url}/alive") == '"yes"'
            assert upload(container.port, LARGE) == (200, str(LARGE))
            eventually(lambda: container.health() == "healthy", timeout=120, every=0.5)
            there = container.exec("sh", "-c", f"cat {' '.join(NOT_IN_IT)} 2>/dev/null; true")
            assert "hunter2" not in there
            assert "health.live_path = $(circus.env.XBOARD_LIVE_PATH)" in there
    finally:
        podman("rmi", name)


def test_an_app_is_tried_in_a_mount_as_the_page_says(shop: Path) -> None:
    """Given an app without health paths, when it is mounted by the page's command, then it serves, and is healthy."""
    (shop / "shop" / "main.py").write_text(SHOP.partition('@app.post("/pictures")')[0].replace(", UploadFile", ""))
    (command,) = re.findall(r"`docker run (--rm .*) xboard-backend`", OPERATIONS.read_text(encoding="utf-8"))
    words = [word.replace("$(pwd)", str(shop)) for word in command.split() if word not in ("--rm", "-p", "8000:8000")]

    with running(*words) as container:
        assert answers(f"{container.url}/alive") == '"yes"'
        eventually(lambda: container.health() == "healthy", timeout=120, every=0.5)


def upload(port: int, size: int) -> tuple[int, str]:
    """Post a form with a file of that many bytes; return the status and the text of the answer."""
    part = 'Content-Disposition: form-data; name="file"; filename="large.png"'
    body = f"--x\r\n{part}\r\n\r\n".encode() + bytes(size) + b"\r\n--x--\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/pictures", body, {"Content-Type": "multipart/form-data; boundary=x"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
