"""Debian's nginx, with the file that is shipped for it and the compose file, in front of a real backend."""

import contextlib
import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from websockets.sync.client import connect

from .free_ports import free_port
from .harness import Circusd, Watcher, circusd, eventually
from .load import Load
from .parts import find, needs

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "xboard.conf"
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Circusd, int]]:
    """A backend of two workers, and the port of the nginx in front of it."""
    needs("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    watcher = Watcher(app="streams_app:app", arguments="--ws auto --timeout-graceful-shutdown 3")
    with circusd(folder, watchers=[watcher]) as c:
        c.wait_ready()
        port = free_port()
        with nginx(folder, backend=watcher.port, port=port):
            yield c, port


@contextlib.contextmanager
def nginx(folder: Path, *, backend: int, port: int) -> Iterator[None]:
    """Install the committed file into a copy of Debian's /etc/nginx as its head says, with our ports, and run nginx."""
    if not Path("/etc/nginx/sites-enabled").is_dir():
        pytest.skip("Debian's nginx has its configuration in /etc/nginx/conf.d and sites-enabled")
    etc, own = folder / "etc-nginx", folder / "deploy" / "nginx" / "xboard.conf"
    shutil.copytree("/etc/nginx", etc, symlinks=True)
    text = CONFIG.read_text()
    assert "server 127.0.0.1:8000;" in text
    assert "listen 80 default_server;" in text
    own.parent.mkdir(parents=True)
    own.write_text(
        text.replace("127.0.0.1:8000", f"127.0.0.1:{backend}").replace("listen 80 ", f"listen 127.0.0.1:{port} ")
    )
    main = (etc / "nginx.conf").read_text().replace("/etc/nginx", str(etc)).replace("/var/log/nginx", str(folder))
    main = main.replace("/run/nginx.pid", f"{folder}/nginx.pid").replace(
        "user www-data;", "user root;" if is_root() else ""
    )
    (etc / "nginx.conf").write_text(main)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (etc / "conf.d" / "test.conf").write_text("".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds))
    program = [str(find("nginx")), "-c", f"{etc}/nginx.conf", "-e", f"{folder}/error.log"]
    install(folder, etc, program)
    with (folder / "nginx.out").open("wb") as output:
        process = subprocess.Popen(
            [*program, "-g", "daemon off;"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        eventually(lambda: answers(port) or process.poll() is not None, what="nginx answers")
        assert process.poll() is None, (folder / "nginx.out").read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def is_root() -> bool:
    return os.geteuid() == 0


def install(folder: Path, etc: Path, program: Sequence[str]) -> None:
    """Run the commands in the head of the file, but the last, in *folder*, with *etc* and *program* for nginx's own."""
    told = [line.removeprefix("#   sudo ") for line in CONFIG.read_text().splitlines() if line.startswith("#   ")]
    assert [line.split()[0] for line in told] == ["rm", "cp", "nginx", "systemctl"]
    for line in told[:-1]:
        command = line.replace("/etc/nginx", str(etc)).replace("nginx -t", shlex.join([*program, "-t"]))
        done = subprocess.run(["bash", "-euc", command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_an_upload_goes_through_as_it_comes(behind: tuple[Circusd, int]) -> None:
    """Given an upload that pauses half way, then the backend has its first half by then, and in the end all of it."""
    c, port = behind
    half = b"x" * (8 * MEGABYTE)
    seen = c.folder / "web" / "upload-seen"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest("POST", "/upload")
        connection.putheader("Content-Length", str(2 * len(half)))
        connection.endheaders()
        connection.send(half)
        eventually(lambda: seen.read_text().strip("0"), what="the backend has begun to read")
        connection.send(half)
        response = connection.getresponse()
        assert (response.status, int(response.read())) == (200, 2 * len(half))
    finally:
        connection.close()


def test_an_upload_that_is_too_large_is_refused_by_nginx(behind: tuple[Circusd, int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", behind[1], timeout=60)
    try:
        connection.putrequest("POST", "/upload")
        connection.putheader("Content-Length", str(101 * MEGABYTE))
        connection.endheaders()
        assert connection.getresponse().status == 413
    finally:
        connection.close()


def test_no_request_passes_nginx_in_the_body_of_another(behind: tuple[Circusd, int]) -> None:
    """Given a request with `Upgrade`, which the file passes on, and a request for its body, then the app gets that as
    the body, and who asks next gets the answer to their own."""
    c, port = behind
    inner = b"GET /upload HTTP/1.1\r\nHost: test\r\n\r\n"
    for _ in range(5):
        size = answer(port, "POST", "/upload", inner, {"Connection": "upgrade", "Upgrade": "h2c"})
        assert size == b"%d" % len(inner)
        assert int(answer(port, "GET", "/pid")) in c.workers()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_the_app_sees_a_clients_own_address_whatever_it_claims(behind: tuple[Circusd, int], address: str) -> None:
    """Given a client that sends an X-Forwarded-For of its own, then the app gets the address that nginx saw, alone:
    uvicorn believes what nginx passes on, and would take the claim of a client on its own host for an address."""
    seen = answer(behind[1], "GET", "/client", None, {"X-Forwarded-For": "203.0.113.7"}, client=address)

    assert seen.decode() == f"{address} {address}"


def answer(port: int, *request: object, client: str = "127.0.0.1") -> bytes:
    """Send a request on a connection of its own, and return the body of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=(client, 0))
    with contextlib.closing(connection):
        connection.request(*request)  # type: ignore[arg-type]
        return connection.getresponse().read()


def test_events_arrive_one_by_one(behind: tuple[Circusd, int]) -> None:
    """Given a stream of events, then each is there before the next is sent: nothing waits for a full buffer."""
    c, port = behind
    c.set("events", "1")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/events")
        response = connection.getresponse()
        assert response.getheader("content-type") == "text/event-stream"
        for number in (1, 2, 3):
            c.set("events", str(number))
            assert response.readline() == f"data: {number}\n".encode()
            assert response.readline() == b"\n"
    finally:
        connection.close()


def test_a_websocket_passes(behind: tuple[Circusd, int]) -> None:
    with connect(f"ws://127.0.0.1:{behind[1]}/ws", proxy=None) as websocket:
        for text in ("one", "two"):
            websocket.send(text)
            assert websocket.recv(timeout=30) == text


def test_a_rolling_reload_behind_nginx_loses_nothing(behind: tuple[Circusd, int]) -> None:
    """Given kept-alive clients of nginx, when all workers are replaced, then each request is answered."""
    c, port = behind
    old = set(c.workers())
    with Load(f"http://127.0.0.1:{port}/", rate=50, connections=5) as load:
        eventually(lambda: load.answered > 20)
        c.do("xboard_reload", name="web", by="a test")
        eventually(lambda: c.watcher()["reload"]["state"] == "done", what="the reload is done")
        answered = load.answered
        eventually(lambda: load.answered > answered + 20)

    assert load.lost == []
    assert not old & set(c.workers())
