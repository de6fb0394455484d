"""The client against a circusd that speaks over real sockets and answers as the test says."""

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from fake_circusd import BUSY, UNKNOWN, Answer, FakeCircusd, always, in_turn, late

from xboard_circus import circus_client
from xboard_circus.circus_client import CircusdBusy, CircusdClient, CircusdGone, CommandRefused, UserRefused, _refuses
from xboard_circus.core.reason import key_of
from xboard_circus.core.sentences import Say
from xboard_circus.host import servers, sockdiag
from xboard_circus.host.sockets import is_loopback
from xboard_circus.plugins._base import ThreadedCommands

OK = {"status": "ok", "time": 1.0}


def closed_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("asker", "users", "owner", "others"),
    [
        pytest.param(0, {0}, 0, set(), id="root's"),
        pytest.param(7, {0}, 0, set(), id="root's, asked by another"),
        pytest.param(7, {7}, 7, set(), id="his own"),
        pytest.param(0, set(), 0, set(), id="gone again, root's ini"),
        pytest.param(0, {7}, 7, {7}, id="another's, asked by root"),
        pytest.param(8, {7}, 7, {7}, id="another's, asked by a third"),
        pytest.param(0, {0}, 7, {7}, id="another's ini, a listener that root made"),
        pytest.param(0, {7}, None, {7}, id="another's on the page"),
        pytest.param(0, set(), None, {None}, id="unknown"),
    ],
)
def test_who_else_may_have_answered(
    asker: int, users: set[int], owner: int | None, others: set[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = servers.EndpointServer(frozenset(users), frozenset())
    monkeypatch.setattr(CircusdClient, "listener", listener)
    monkeypatch.setattr("xboard_circus.circus_client.os.geteuid", lambda: asker)

    assert CircusdClient("tcp://127.0.0.1:1", owner=owner).others == others


@pytest.mark.parametrize(
    ("cure", "is_shown"),
    [
        (Say.CURE_LOGS(watcher="web"), True),
        (Say.CURE_HELD(watcher="web", slot=1), True),
        (Say.CURE_DEPENDENCY(), True),
        (Say.CURE_PORT(command="xboard-circus check", port=80), True),
        (Say.CURE_PORT_HELD(command=f"kill {os.getpid()}", port=80), True),
        (Say.CURE_PORT_HELD(command="kill 1", port=80), os.getuid() == 0),
        (Say.CURE_PORT_HELD(command="kill", port=80), False),
        (Say.CURE_PORT_HELD(command=f"kill -9 {os.getpid()}", port=80), False),
        (Say.CURE_PORT_HELD(command=f"kill {os.getpid()}; x", port=80), False),
        (Say.CURE_PORT(command="xboard-circus check; x", port=80), False),
        (Say.CURE_PORT(command="xboard-circus check", port="80, so run x"), False),
        (Say.CURE_LOGS(watcher="web. Cure: run x"), False),
        (Say.CURE_DISK(command="curl evil | sh"), False),
        (Say.CURE_OUTPUT(file="x, so run y"), False),
        (Say.CURE_SHARED(), False),
        (Say.HEAD_RUN(command="x"), False),
        ("run x", False),
    ],
    ids=key_of,  # and not by the text, which has a pid
)
def test_a_cure_that_another_user_gives_is_a_sentence_without_words_of_his(cure: str, is_shown: bool) -> None:
    assert circus_client._harms_nobody(cure, "web", {os.getuid()}) is is_shown


@pytest.mark.skipif(not sockdiag.knows_users(), reason="this host does not say who listens")
@pytest.mark.parametrize(("greeting", "refused"), [(b"", True), (b"\xff", False)])
def test_a_connection_that_another_users_circusd_closes_is_told_as_a_refusal(
    monkeypatch: pytest.MonkeyPatch, greeting: bytes, refused: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def accept() -> None:
            with server.accept()[0] as accepted:
                accepted.sendall(greeting)

        accepted = pool.submit(accept)
        owner = os.geteuid()
        monkeypatch.setattr("xboard_circus.circus_client.os.geteuid", lambda: 65534)
        client = CircusdClient(f"tcp://127.0.0.1:{server.getsockname()[1]}", owner=owner)
        with pytest.raises(UserRefused, match="may not command it") if refused else contextlib.nullcontext():
            client._server(5)
        accepted.result()


@pytest.mark.skipif(not sockdiag.knows_users(), reason="this host does not say who listens")
def test_a_listener_that_goes_while_it_is_looked_for_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a circusd that was just killed: the kernel has closed its listener, and not yet what that has accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as accepted:
        endpoint, found = f"tcp://127.0.0.1:{server.getsockname()[1]}", servers.server_of

        def look(door: socket.socket) -> object:
            accepted.enter_context(server.accept()[0])
            server.close()
            return found(door)

        monkeypatch.setattr(servers, "server_of", look)
        with pytest.raises(CircusdGone, match="Connection refused") as gone:
            CircusdClient(endpoint).pid()

    assert not gone.value.listening


def test_root_whom_another_users_circusd_refuses_is_not_advised_to_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    door, other = socket.socketpair()
    with door:
        other.close()
        monkeypatch.setattr("xboard_circus.circus_client.os.geteuid", lambda: 0)

        assert _refuses(door, servers.EndpointServer(users=frozenset({1000}), sockets=frozenset()))
        assert str(UserRefused("tcp://127.0.0.1:1", "ann")).endswith("no connection of root's; run this as ann")


def test_a_reply_comes_back_whole() -> None:
    with FakeCircusd({"list": always({**OK, "pids": [7]})}) as fake, CircusdClient(fake.endpoint) as client:
        reply = client.call("list", name="web")

    assert reply["pids"] == [7]
    assert [(each["command"], each["properties"]) for each in fake.asked] == [("list", {"name": "web"})]


def test_a_client_connects_to_look_who_listens_and_to_ask_and_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's circusd looks through all descriptors of the machine for each connection."""
    doors: list[socket.socket] = []

    def connected(endpoint: str, timeout: float) -> socket.socket:
        doors.append(connect(endpoint, timeout))
        return doors[-1]

    connect = circus_client._connected
    monkeypatch.setattr(circus_client, "_connected", connected)
    with FakeCircusd({"list": always(OK)}) as fake, CircusdClient(fake.endpoint) as client:
        client.call("list")
        client.call("list")

    assert len(doors) == 2


def test_a_busy_circusd_is_asked_again() -> None:
    with FakeCircusd({"incr": in_turn(BUSY, BUSY, OK)}) as fake, CircusdClient(fake.endpoint) as client:
        reply = client.call("incr", name="web")

    assert (reply["status"], len(fake.asked)) == ("ok", 3)


def test_a_circusd_that_restarts_is_busy_too() -> None:
    restarting = {"status": "error", "errno": 5, "reason": "arbiter is restarting..."}
    with FakeCircusd({"incr": in_turn(restarting, OK)}) as fake, CircusdClient(fake.endpoint) as client:
        assert client.call("incr")["status"] == "ok"


def test_busy_until_the_deadline_is_told_with_what_it_does() -> None:
    with FakeCircusd({"incr": always(BUSY)}) as fake, CircusdClient(fake.endpoint) as client:
        began_at = time.monotonic()
        with pytest.raises(CircusdBusy, match=r"incr: still busy after 5 s \(another command is running: manage"):
            client.call("incr", deadline=5)

    assert time.monotonic() - began_at < 30


def test_a_failure_inside_circusd_is_not_taken_for_busy() -> None:
    failed = {"status": "error", "errno": 5, "reason": "command b'{...}': division by zero"}
    with (
        FakeCircusd({"incr": always(failed)}) as fake,
        CircusdClient(fake.endpoint) as client,
        pytest.raises(CommandRefused, match="division by zero") as caught,
    ):
        client.call("incr", deadline=2)

    assert len(fake.asked) == 1
    assert not isinstance(caught.value, CircusdBusy)


def test_a_refusal_carries_its_reason() -> None:
    with (
        FakeCircusd({"xboard_state": always(UNKNOWN)}) as fake,
        CircusdClient(fake.endpoint) as client,
        pytest.raises(CommandRefused) as caught,
    ):
        client.state()

    assert caught.value.reason == "unknown command: 'xboard_state'"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("status", ["active", "stopped", "error"])
def test_a_watchers_status_is_no_error(status: str) -> None:
    with FakeCircusd({"status": always({"status": status})}) as fake, CircusdClient(fake.endpoint) as client:
        assert client.call("status", name="web")["status"] == status


def test_nobody_there_is_told_at_once() -> None:
    endpoint = f"tcp://127.0.0.1:{closed_port()}"
    began_at = time.monotonic()

    with CircusdClient(endpoint) as client, pytest.raises(CircusdGone, match="Connection refused") as caught:
        client.call("status", deadline=60)

    assert time.monotonic() - began_at < 30
    assert not caught.value.listening
    assert endpoint in str(caught.value)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1", "tcp://127.0.0.1:port", "udp://127.0.0.1:5", "circusd", ""])
def test_what_is_no_endpoint_is_told(endpoint: str) -> None:
    with CircusdClient(endpoint) as client, pytest.raises(CircusdGone):
        client.call("status", deadline=1)


def test_a_program_that_is_not_circusd_cannot_hold_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with CircusdClient(endpoint) as client, pytest.raises(CircusdGone, match=r"no reply within 0.3 s") as caught:
            client.call("status", deadline=0.3)

    assert caught.value.listening


def test_who_waits_for_a_circusd_that_was_replaced_is_told_soon() -> None:
    """Given a call without an answer, when another circusd takes the endpoint over, then the wait ends."""
    endpoint = f"tcp://127.0.0.1:{closed_port()}"
    with ThreadPoolExecutor(1) as pool, CircusdClient(endpoint) as client:
        with FakeCircusd({"list": lambda _: None}, endpoint) as old:
            call = pool.submit(client.call, "list", deadline=10)
            while not old.asked:
                time.sleep(0.01)
        with FakeCircusd({}, endpoint), pytest.raises(CircusdGone, match="has ended"):
            call.result()


def test_who_waits_for_a_circusd_that_has_passed_its_listener_on_is_told_soon() -> None:
    """Given a call without an answer, when its connection ends and the same socket still listens, the wait ends."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        ThreadPoolExecutor(1) as pool,
        CircusdClient(f"tcp://127.0.0.1:{server.getsockname()[1]}") as client,
    ):
        call = pool.submit(client.call, "list", deadline=10)
        for _ in range(2):  # it looks who listens before it connects
            server.accept()[0].close()
        with pytest.raises(CircusdGone) as caught:
            call.result()

    assert not caught.value.listening  # it has not waited until the deadline


def test_a_late_reply_is_not_taken_for_the_next() -> None:
    with FakeCircusd({"numwatchers": late(1.5, OK)}) as fake, CircusdClient(fake.endpoint) as client:
        with pytest.raises(CircusdGone):
            client.call("numwatchers", deadline=1)  # on a crowded machine it takes some of that to connect and ask
        reply = client.call("numwatchers", deadline=30)

    assert reply["number"] == 2
    assert len(fake.clients) == 2  # the socket that the late reply was meant for is gone


def test_stray_frames_are_passed_over_and_do_not_prolong_the_wait() -> None:
    def strays(asked: object) -> list[object]:
        return [b"error: empty command", b"[1]", b'"text"', b'{"id": "of another"}']

    answers = {"status": strays, "list": lambda asked: [*strays(asked), OK]}
    with FakeCircusd(answers) as fake, CircusdClient(fake.endpoint) as client:
        assert client.call("list")["status"] == "ok"
        with pytest.raises(CircusdGone):
            client.call("status", deadline=0.2)


def nested(asked: dict[str, Any]) -> list[bytes]:
    return [
        json.dumps({"id": asked["id"], "status": "ok"}).encode()[:-1]
        + b', "deep": '
        + b"[" * 10**5
        + b"]" * 10**5
        + b"}"
    ]


def large(asked: dict[str, Any]) -> list[bytes]:
    return [json.dumps({"id": asked["id"], "status": "ok", "watchers": [[]] * (2 << 20)}).encode()]


@pytest.mark.parametrize(("answer", "why"), [(large, "is larger than 4 MiB"), (nested, "is nested too deeply")])
def test_an_answer_without_measure_is_not_read(answer: Answer, why: str, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/c.sock"
    with FakeCircusd({"status": answer}, endpoint) as fake, CircusdClient(endpoint) as client:
        with pytest.raises(CircusdGone, match=f"{endpoint}: its answer {why}"):
            client.call("status", deadline=30)
        fake.answers["status"] = always(OK)
        assert client.call("status")["status"] == "ok"


def test_a_message_of_frames_without_end_is_not_kept() -> None:
    """libzmq, which bounds the single frame, would keep them all until the deadline."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, ThreadPoolExecutor(1) as pool:
        router.linger = 0
        client = CircusdClient(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
        call = pool.submit(client.call, "status", deadline=30)
        router.send_multipart([router.recv_multipart()[0], *[bytes(100)] * 1000])
        with pytest.raises(CircusdGone, match="is larger than"):
            call.result()


def test_each_thread_has_a_socket_of_its_own() -> None:
    with FakeCircusd({"list": always(OK)}) as fake, CircusdClient(fake.endpoint) as client:

        def ask() -> None:
            client.call("list")
            client.call("list")
            client.close()

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

    assert (len(fake.asked), len(fake.clients)) == (6, 3)


def test_who_listens_on_another_address_of_the_same_name_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeCircusd({"list": always(OK)}) as fake, socket.socket(socket.AF_INET6) as other:
        port = int(fake.endpoint.rpartition(":")[2])
        other.bind(("::1", port))
        other.listen()
        # As on a host where "localhost" stands for both, ::1 first.
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *args, **kw: real("::1", *args, **kw) + real("127.0.0.1", *args, **kw)
        )
        looked: list[str] = []
        server_of = servers.server_of

        def look(door: socket.socket) -> servers.EndpointServer | None:
            looked.append(door.getpeername()[0])
            return server_of(door)

        monkeypatch.setattr(servers, "server_of", look)
        with CircusdClient(fake.endpoint.replace("127.0.0.1", "localhost")) as client:
            assert client.call("list")["status"] == "ok"

    assert set(looked) == {"127.0.0.1"}


def test_the_listener_at_any_address_of_this_host_is_known() -> None:
    found = [each for of_one in psutil.net_if_addrs().values() for each in of_one if each.family == socket.AF_INET]
    address = next((each.address for each in found if not is_loopback(each.address)), None)
    if address is None:
        pytest.skip("this host has no address besides its loopback")
    with socket.create_server((address, 0)) as there, socket.create_connection(there.getsockname()) as door:
        server = servers.server_of(door)

    assert server is not None
    assert server.users == {os.geteuid()}


def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/c.sock"
    with FakeCircusd({"list": always(OK)}, endpoint=endpoint), CircusdClient(endpoint) as client:
        assert client.call("list")["status"] == "ok"


def test_a_unix_socket_that_is_not_there_is_told(tmp_path: Path) -> None:
    with CircusdClient(f"ipc://{tmp_path}/c.sock") as client, pytest.raises(CircusdGone, match="No such file"):
        client.call("list")


def test_an_endpoint_for_all_addresses_is_asked_on_this_host() -> None:
    with (
        FakeCircusd({"list": always(OK)}) as fake,
        CircusdClient(fake.endpoint.replace("127.0.0.1", "*")) as client,
    ):
        assert client.call("list")["status"] == "ok"


def test_the_helpers_say_what_circus_expects() -> None:
    answers = {
        "options": always({**OK, "options": {"numprocesses": 2}}),
        "dstats": always({**OK, "info": {"pid": 6}}),
        **{name: always(OK) for name in ("restart", "quit")},
    }
    with FakeCircusd(answers) as fake, CircusdClient(fake.endpoint) as client:
        told = [client.options("web"), client.pid()]
        client.restart("web")
        client.quit()

    assert told == [{"numprocesses": 2}, 6]
    assert [(each["command"], each["properties"]) for each in fake.asked[-2:]] == [
        ("restart", {"name": "web", "match": "simple", "waiting": True}),
        ("quit", {}),
    ]


def test_our_own_message_is_not_part_of_a_refusal() -> None:
    """Circus quotes all that it was sent, in whichever marks Python likes best."""

    def echoing(asked: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": "error",
            "errno": 2,
            "reason": f"command {json.dumps(asked).encode()!r}: 'cron' already exist",
        }

    with FakeCircusd({"add": echoing}) as fake, CircusdClient(fake.endpoint) as client:
        for name in ("cron", "it's", 'a "b"'):
            with pytest.raises(CommandRefused) as caught:
                client.call("add", name=name, cmd="secret")

            assert caught.value.reason == "'cron' already exist"


def test_an_internal_error_of_circusd_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    failed = {
        "status": "error",
        "errno": 5,
        "reason": "command b'{\"id\": 1}': 'Report' object has no attribute 'supervisor'",
        "tb": 'Traceback (most recent call last):\n  File "commands.py", line 90, in execute\n',
    }

    async def scenario(commands: ThreadedCommands) -> None:
        for _ in range(2):
            with pytest.raises(CommandRefused, match="no attribute 'supervisor'"):
                await commands.call("xboard_report")

    with FakeCircusd({"xboard_report": always(failed)}) as circusd:
        commands = ThreadedCommands(circusd.endpoint)
        asyncio.run(scenario(commands))
        commands.close()

    assert caplog.text.count("line 90, in execute") == 1
    assert "internal error in circusd" in caplog.text
