"""The default endpoints on TCP: circusd's own user is served, another user of the host is not."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from .attacker import PYTHON, completed_as, run_as, running_as
from .free_ports import free_port
from .harness import BUNDLE, PATIENCE, Watcher, circusd, circusd_as, eventually, kill
from .memory_group import process_group
from .test_users import USER, library_path, open_folder, pytestmark, python  # noqa: F401 - the marks, and fixtures

# ZeroMQ's protocol by hand: whoever attacks brings programs of their own. It prints what came back in each try.
ATTACK = r"""
import json, select, socket, sys, time

def frame(flags, body):
    return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
waiting = select.epoll()

def connect(port):
    if sys.argv[4:]:  # by a socket that another user has made
        door = socket.socket(fileno=0)
        cue = socket.create_connection(("127.0.0.1", int(sys.argv[4])))
        aside = cue.recv(1)
        door.connect(("127.0.0.1", port))
        waiting.register(door, select.EPOLLIN)
        door.sendall(GREETING)
        if aside:  # this process has it no longer, until the next cue
            ours, theirs = socket.socketpair()
            socket.send_fds(ours, [aside], [door.fileno()])
            door.close()
            cue.sendall(aside)
            cue.recv(1)
            door = socket.socket(fileno=socket.recv_fds(theirs, 1, 1)[1][0])
    else:
        door = socket.create_connection(("127.0.0.1", port), 5)
        waiting.register(door, select.EPOLLIN)
        door.sendall(GREETING)
    door.settimeout(90)
    return door

def ready(kind):
    return frame(4, b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind)

def asked(port, kind, message, end):
    got = b""
    try:
        door = connect(port)
        while len(got) < 64 and (more := door.recv(64)):
            got += more
        door.sendall(ready(kind) + frame(0, message))
        while end not in got and (more := door.recv(65536)):
            got += more
    except OSError:
        pass
    return got

def closed_at_once(port, message):
    try:
        with connect(port) as door:
            door.sendall(ready(b"DEALER") + frame(0, message))
    except OSError:
        pass

def command(word, **properties):
    return json.dumps({"id": "1", "command": word, "properties": properties}).encode()

port, pubsub, proof = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
add = command("add", name="evil", cmd="/usr/bin/touch", args=proof, start=True, options={"singleton": True})
if sys.argv[4:]:
    print(json.dumps({"add": asked(port, b"DEALER", add, b'"status"').decode("latin-1")}))
    sys.exit()
for _ in range(50):  # the kernel gives a socket that no process has open any longer to user 0
    closed_at_once(port, add)
found = {what: asked(port, b"DEALER", command(what), b'"status"') for what in ("status", "xboard_state")}
found["add"] = asked(port, b"DEALER", add, b'"status"')
found["events"] = asked(pubsub, b"SUB", b"\x01", b"watcher.")
print(json.dumps({what: got.decode("latin-1") for what, got in found.items()}))
"""


def attack(endpoint: str, pubsub: str, proof: Path, user: str | None) -> dict[str, str]:
    ports = [each.rpartition(":")[2] for each in (endpoint, pubsub)]
    found: dict[str, str] = run_as(user, ATTACK, *ports, proof)
    return found


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_another_user_of_the_host_gets_nothing_over_tcp(tmp_path: Path) -> None:
    """Given circusd on its default endpoints, when another user connects, then no command runs and no byte comes."""
    with circusd(tmp_path, watchers=[Watcher()], plugins=BUNDLE) as c:
        first = c.wait_ready()[0]
        refused = attack(c.endpoint, c.pubsub, tmp_path / "proof", USER)

        assert set(refused.values()) == {""}, refused
        eventually(lambda: f"refused a connection of user {USER}" in c.log("circusd"))
        assert c.log("circusd").count(f"refused a connection of user {USER}") <= 2  # one for each endpoint
        assert "evil" not in c.call("list")["watchers"]
        # Those who may are served as before: commands, our own client, events.
        assert "web: active" in c.run_circusctl("status").stdout
        assert c.status_json()["circusd"]["pid"] == c.pid
        kill(first)
        c.wait_ready()
        eventually(lambda: c.events.named("restart"))
        # The attack itself is sound: root gets in.
        let_in = attack(c.endpoint, c.pubsub, tmp_path / "proof", None)
        assert [what for what, got in let_in.items() if len(got) <= 64] == []
        eventually((tmp_path / "proof").exists)


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
@pytest.mark.parametrize(
    ("port", "is_shared", "why"),
    [
        pytest.param(0, True, "root made its socket, and", id="root has it too"),
        pytest.param(0, False, "root made its socket, and", id="root has closed it"),
        pytest.param(free_port(), True, "no client has such a port", id="on a port of servers"),
    ],
)
def test_another_user_with_a_socket_that_root_made_commands_nothing(
    tmp_path: Path, port: int, is_shared: bool, why: str
) -> None:
    """Given a socket that root made and handed on, as its circusd does to workers, and nginx and systemd to theirs,
    when its user connects it to the endpoint, then no command runs, and it is logged.

    Theirs are listeners, which a user may shut down and connect. Newer kernels, such as 6.18.44, refuse that.
    """
    with circusd(tmp_path, watchers=[Watcher()], plugins=BUNDLE) as c:
        c.wait_ready()
        ports = [each.rpartition(":")[2] for each in (c.endpoint, c.pubsub)]
        with socket.socket() as made, socket.create_server(("127.0.0.1", 0)) as cue:
            made.bind(("127.0.0.1", port))
            words = (*ports, tmp_path / "proof", cue.getsockname()[1])
            with running_as(USER, ATTACK, *words, stdin=made.fileno()) as attacker:
                if not is_shared:
                    made.close()
                cue.accept()[0].close()
                got = json.loads(attacker.communicate(timeout=90)[0])

        assert got == {"add": ""}
        eventually(lambda: why in c.log("circusd"))
        assert "evil" not in c.call("list")["watchers"]
        assert "web: active" in c.run_circusctl("status").stdout


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_another_user_with_a_socket_of_circusds_own_user_commands_nothing(open_folder: Path, python: str) -> None:  # noqa: F811
    """Given a circusd that is not root's, and a socket on a port of servers, which its user has made and handed on, as
    a server does that gives its listener to another user, when that one connects it, then no command runs.

    Clients of its user are served: `circusctl` and `status`.
    """
    folder, uid = open_folder / "handed", pwd.getpwnam(USER).pw_uid
    folder.mkdir()
    env = library_path(open_folder / "python") if python != sys.executable else {}
    with circusd(folder, watchers=[Watcher()], python=python, env=env, start=False) as c:
        for path in (folder, *folder.rglob("*"), c.runtime):
            shutil.chown(path, USER, USER)
        with circusd_as(USER, c, python=python), socket.create_server(("127.0.0.1", 0)) as cue:
            eventually(lambda: takes(c.endpoint), what="circusd listens")
            os.seteuid(uid)  # who makes a socket is its user
            try:
                made = socket.socket()
                made.bind(("127.0.0.1", free_port()))
            finally:
                os.seteuid(0)
            ports = [each.rpartition(":")[2] for each in (c.endpoint, c.pubsub)]
            words = (*ports, folder / "proof", cue.getsockname()[1])
            with made, running_as("daemon", ATTACK, *words, stdin=made.fileno()) as attacker:
                cue.accept()[0].close()
                got = json.loads(attacker.communicate(timeout=90)[0])

            assert got == {"add": ""}
            # The connection is closed before that is told.
            said = "no client has such a port"
            eventually(lambda: said in (c.folder / "circusd.out").read_text() + c.log("circusd"), what=said)
            for ask in (
                ["circus.circusctl", "--endpoint", c.endpoint, "list"],
                ["xboard_circus", "status", "-c", c.ini],
            ):
                asked = completed_as(USER, [python, "-m", *map(str, ask)], **c.environ())
                assert (asked.returncode, "web" in asked.stdout, "evil" in asked.stdout) == (0, True, False), asked


def takes(endpoint: str) -> bool:
    """Return whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])), 5):
        return True
    return False


@pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="no Python that another user could run")
def test_another_user_whose_socket_only_a_process_of_roots_has_commands_nothing(tmp_path: Path) -> None:
    """Given a socket that root made, which a user connects to the endpoint and puts aside, into the queue of a unix
    socket, while one process of root's has it, when circusd looks for who has it, then no command runs.

    Several of root's processes have for a while what anybody sends them: systemd, its journal, the circusd of another
    instance that takes a listener over from a worker. Here that is the test's own.
    """
    with circusd(tmp_path, watchers=[Watcher()], plugins=BUNDLE) as c:
        c.wait_ready()
        ports = [each.rpartition(":")[2] for each in (c.endpoint, c.pubsub)]
        with socket.socket() as made, socket.create_server(("127.0.0.1", 0)) as cues:
            made.bind(("127.0.0.1", 0))
            words = (*ports, tmp_path / "proof", cues.getsockname()[1])
            with running_as(USER, ATTACK, *words, stdin=made.fileno()) as attacker:
                cues.settimeout(PATIENCE)
                with cues.accept()[0] as cue:
                    cue.settimeout(PATIENCE)
                    kill(c.pid, signal.SIGSTOP)  # it looks when the attacker is ready: any load can do as much
                    try:
                        cue.sendall(b"x")
                        assert cue.recv(1) == b"x"
                    finally:
                        kill(c.pid, signal.SIGCONT)
                    eventually(lambda: is_over_or_has(made, 64), what="circusd has greeted it, or closed it")
                got = json.loads(attacker.communicate(timeout=90)[0])

        assert got == {"add": ""}
        eventually(lambda: f"root made its socket, and pid {os.getpid()} (root) has it" in c.log("circusd"))
        assert "evil" not in c.call("list")["watchers"]
        assert "web: active" in c.run_circusctl("status").stdout


def is_over_or_has(door: socket.socket, size: int) -> bool:
    """Return whether the connection has ended, or so many bytes can be read; without reading one."""
    try:
        got = door.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return len(got) in (0, size)


def as_old_zeromq_reads_it(head: bytes, message: bytes) -> bytes:
    """Return the body for a request's *head* with which ZMTP 1.0, that has no greeting, reads *message* as one."""
    at = 0
    while at < len(head):  # each byte at the begin of a frame is its length
        at += 1 + head[at]
    body = bytes(at - len(head)) + b"\x01\x00"
    for each in (message, b"{}"):
        body += b"\xff" + (len(each) + 1).to_bytes(8, "big") + b"\0" + each
    return body + b"\xff" + (900 - len(body) - 9).to_bytes(8, "big") + bytes(900 - len(body) - 9)


def has_closed(door: socket.socket) -> bool:
    """Return whether the other side closes the connection without a byte."""
    try:
        return door.recv(1) == b""
    except ConnectionResetError:  # what was sent was not read
        return True


def test_a_web_page_in_a_browser_of_circusds_user_commands_nothing(tmp_path: Path) -> None:
    """Given a page of any server, when it has the browser send a POST to an endpoint, then it is closed, and logged."""
    proof = tmp_path / "proof"
    with circusd(tmp_path, watchers=[Watcher()], plugins=BUNDLE) as c:
        c.wait_ready()
        add = {"name": "evil", "cmd": f"/usr/bin/touch {proof}", "start": True, "options": {"singleton": True}}
        message = json.dumps({"id": "1", "command": "add", "properties": add}).encode()
        for endpoint in (c.endpoint, c.pubsub):
            port = int(endpoint.rpartition(":")[2])
            head = f"POST /x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://evil.example\r\n"
            words = (head + "Content-Type: text/plain\r\nContent-Length: 900\r\n\r\n").encode()
            with socket.create_connection(("127.0.0.1", port), 5) as browser:
                browser.sendall(words + as_old_zeromq_reads_it(words, message))
                assert has_closed(browser)
        eventually(lambda: c.log("circusd").count("it sent an HTTP request, not ZeroMQ's protocol") == 2)
        assert not proof.exists()
        assert "evil" not in c.call("list")["watchers"]
        # Those who may are served as before: commands and events.
        assert "web: active" in c.run_circusctl("status").stdout
        kill(c.ready()[0])
        eventually(lambda: c.events.named("restart"))


def test_circusd_does_without_another_thread(tmp_path: Path) -> None:
    """Given root's circusd in a control group without room for a thread, when it is called, and a worker is killed that
    leaves a child, then it answers, and ends the child.

    Otherwise `restart` takes it for hung, and kills it; and children that have used the group up would do so for good.
    """
    with circusd(tmp_path, numprocesses=1) as c:
        worker = c.wait_ready()[0]
        c.tell(worker, "task")
        (child,) = eventually(lambda: [each for each in c.processes() if "sleep 600" in each.command])
        with process_group(c.pid, limit=len(os.listdir(f"/proc/{c.pid}/task"))):
            assert c.call("numwatchers", timeout=10)["status"] == "ok"
            kill(worker)
            eventually(lambda: not child.alive, what="what it has left is ended")


def test_circusd_answers_a_quit_to_the_end_and_starts_on_the_same_port(tmp_path: Path) -> None:
    """Given guarded endpoints, when circusd is told to quit or restart, then it answers and the ports are free."""
    with circusd(tmp_path, watchers=[Watcher()]) as c:
        c.wait_ready()
        # What is larger than the sockets' buffers comes whole.
        large = "x" * 3_000_000
        assert large in c.call(large)["reason"]
        c.do("restart")
        c.wait_ready()
        assert c.run_circusctl("quit", "--waiting").stdout.strip() == "ok"
        assert c.wait_ended() == 0
        c.start_again()
        c.wait_ready()
        assert c.serves()
