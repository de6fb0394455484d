import asyncio
import json
import math
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from xboard_circus import probe as probing
from xboard_circus.core.health import Silence
from xboard_circus.deadline import Cut
from xboard_circus.host import procs
from xboard_circus.host.worker_files import BEAT
from xboard_circus.probe import (
    BODY_LIMIT,
    Outcome,
    Target,
    UrlAnswer,
    WorkerAnswer,
    probe_url,
    probe_workers,
    worker_request,
)

REQUEST = worker_request(live_path="/health/live", ready_path="/health/ready", timeout=0.5)
PID = 4711
Handle = Callable[[socket.socket], None]


def answer(body: bytes, *, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.0 {status}\r\ncontent-length: {size}\r\n\r\n".encode() + body


def report(**more: object) -> bytes:
    return answer(json.dumps({"pid": PID, "state": "ready", **more}).encode())


@contextmanager
def serving(family: socket.AddressFamily, address: str | tuple[str, int], handle: Handle) -> Iterator[socket.socket]:
    """A server that hands each connection to *handle* in a thread, and ends them all at the end."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    accepted: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        # What the prober cuts off in the middle of a sentence is no failure of the server's.
        with suppress(OSError), connection:
            connection.recv(4096)
            handle(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                accepted.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener
    finally:
        for end in (listener, *accepted):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        for thread in threads:
            thread.join()
        listener.close()


def probe(
    path: Path, *, timeout: float = 30.0, spared: float = math.inf, seen: list[Silence | None] | None = None
) -> WorkerAnswer:
    looks: list[Silence | None] = [] if seen is None else seen
    target = Target(PID, str(path), REQUEST, timeout, spared, looks.append)
    return asyncio.run(probe_workers([target]))[PID]


def probe_served(tmp_path: Path, handle: Handle, *, timeout: float = 30.0) -> tuple[Outcome, str]:
    with serving(socket.AF_UNIX, str(tmp_path / "w.sock"), handle):
        found = probe(tmp_path / "w.sock", timeout=timeout)
    return found.outcome, found.reason


def hang(connection: socket.socket) -> None:
    connection.recv(1)


def drip(connection: socket.socket) -> None:
    for byte in report():
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def trickle(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.001)


def pour(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def test_a_worker_that_answers_hands_in_its_report(tmp_path: Path) -> None:
    with serving(socket.AF_UNIX, str(tmp_path / "w.sock"), lambda c: c.sendall(report(lag=0.25))):
        found = probe(tmp_path / "w.sock")

    assert (found.outcome, found.reason) == (Outcome.REPORT, "")
    assert (found.report["pid"], found.report["state"], found.report["lag"]) == (PID, "ready", 0.25)


def test_an_answer_without_a_length_ends_with_the_connection(tmp_path: Path) -> None:
    body = json.dumps({"pid": PID}).encode()

    assert probe_served(tmp_path, lambda c: c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)) == (Outcome.REPORT, "")


def test_a_worker_behind_a_wrapper_answers_for_what_circusd_spawned(tmp_path: Path) -> None:
    assert probe_served(tmp_path, lambda c: c.sendall(report(pid=1))) == (Outcome.REPORT, "")


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        pytest.param(hang, "no answer within 0.5 s", id="it hangs"),
        pytest.param(drip, "no answer within 0.5 s", id="it sends a byte at a time"),
        pytest.param(trickle, "no answer within 0.5 s", id="it sends a byte at each moment"),
    ],
)
def test_silence_is_what_tells_of_a_stuck_loop(tmp_path: Path, handle: Handle, expected: str) -> None:
    assert probe_served(tmp_path, handle, timeout=0.5) == (Outcome.SILENCE, expected)


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        pytest.param(pour, "answer larger than 64 KiB", id="a body without end"),
        pytest.param(
            lambda c: c.sendall(answer(b"x" * 70_000)), "answer larger than 64 KiB", id="a long announced body"
        ),
        pytest.param(lambda c: None, "connection closed without an answer", id="it closes"),
        pytest.param(
            lambda c: c.sendall(answer(b"{}", status="500 -")),
            "private socket answered 'HTTP/1.0 500 -'",
            id="an error of the answerer's",
        ),
        pytest.param(lambda c: c.sendall(b"hello\r\n\r\n"), "private socket answered 'hello'", id="no HTTP"),
        pytest.param(
            lambda c: c.sendall(answer(b'{"pid": 47', length=100)),
            "answer incomplete or not JSON",
            id="it breaks off",
        ),
        pytest.param(lambda c: c.sendall(answer(b"[" * 60_000)), "answer incomplete or not JSON", id="deep nesting"),
        pytest.param(lambda c: c.sendall(answer(b"[]")), "answer is not a report", id="another JSON"),
        pytest.param(lambda c: c.sendall(answer(b"{}", length=-7)), "answer is not a report", id="no length"),
    ],
)
def test_an_answer_that_makes_no_sense_is_no_silence(tmp_path: Path, handle: Handle, expected: str) -> None:
    outcome, reason = probe_served(tmp_path, handle)

    assert reason == expected
    assert outcome is Outcome.UNCLEAR


def test_no_depth_of_a_report_spoils_the_round() -> None:
    """Given reports nested just less than json refuses, then each is read or refused, and none raises: the answers of
    the siblings would be lost with it."""
    for depth in range(1, 1100):
        nested = '{"live": ' * depth + "1" + "}" * depth
        with suppress(probing._NoReport):
            probing._report(answer(f'{{"pid": 1, "rss": {nested}}}'.encode()))


def test_a_long_head_is_not_looked_through_with_each_piece() -> None:
    """Given thousands of lengths, which took 8 ms for each byte that follows, then none of them is read."""
    line, start = b"content-length: 7\r\n", b"HTTP/1.0 200 OK\r\n"
    received = bytearray(start + line * 2600 + b"\r\n")

    assert probing._missing(bytearray(start + line * 200 + b"\r\n")) == 7
    assert probing._missing(received) == probing.BODY_LIMIT + 1 - len(received)


def test_of_a_silent_worker_the_progress_is_read_before_and_after(tmp_path: Path) -> None:
    beat = tmp_path / "w.beat"

    def work(connection: socket.socket) -> None:
        beat.write_bytes(BEAT.pack(9, 0.0))
        hang(connection)

    beat.write_bytes(BEAT.pack(4, 0.0))
    with serving(socket.AF_UNIX, str(tmp_path / "w.sock"), work):
        found = probe(tmp_path / "w.sock", timeout=3)

    assert (found.outcome, found.beats) == (Outcome.SILENCE, (4, 9))


def test_of_a_silent_worker_without_its_file_no_progress_is_known(tmp_path: Path) -> None:
    with serving(socket.AF_UNIX, str(tmp_path / "w.sock"), hang):
        found = probe(tmp_path / "w.sock", timeout=0.5)

    assert (found.outcome, found.beats) == (Outcome.SILENCE, None)


@pytest.mark.parametrize(
    ("stands_for", "ends"),
    [
        pytest.param(5.5, True, id="almost as long as it may"),
        pytest.param(99.0, False, id="much longer, so that another probe has found it hung"),
        pytest.param(math.nan, False, id="nonsense"),
        pytest.param(-99.0, False, id="since a time to come"),
    ],
)
def test_a_probe_ends_when_the_loop_has_stood_still_for_as_long_as_it_may(
    tmp_path: Path, stands_for: float, ends: bool
) -> None:
    (tmp_path / "w.beat").write_bytes(BEAT.pack(4, time.monotonic() - stands_for))
    with serving(socket.AF_UNIX, str(tmp_path / "w.sock"), hang):
        found = probe(tmp_path / "w.sock", timeout=30 if ends else 0.7, spared=8)

    assert (found.outcome, found.beats) == (Outcome.SILENCE, (4, 4))
    # Some of the 2.5 s that are left may be over by the time that it asks.
    limit = r"([12](\.\d)?|0\.\d)" if ends else r"0\.7"
    assert re.fullmatch(f"no answer within {limit} s", found.reason)


@contextmanager
def silent_process(path: Path, then: str = "time.sleep(600)") -> Iterator[int]:
    """Run a process that listens on *path*, and answers nothing, but does something *then*; yield its pid."""
    listen = f"s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen()"
    command = [sys.executable, "-I", "-S", "-c", f"import socket, time; {listen}; print(flush=True)\n{then}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        until = time.monotonic() + 30
        while "sleep" in then and psutil.Process(process.pid).status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < until, "it does not sleep"  # what it still does would be seen as a move
            time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def first_thread(pid: int) -> procs.FirstThread:
    found = procs.first_thread(pid)
    assert found is not None
    return found


def test_a_process_that_a_signal_has_stopped_is_not_waited_for(tmp_path: Path) -> None:
    """Given a silent process, then it is waited for; stopped, it is not, but only while it has not run meanwhile."""
    path = tmp_path / "w.sock"
    with silent_process(path) as pid:
        found = probe(path, timeout=1.5)
        assert (found.outcome, found.is_stopped, first_thread(pid).is_stopped) == (Outcome.SILENCE, False, False)

        os.kill(pid, signal.SIGSTOP)
        found = probe(path, timeout=30)

        assert (found.outcome, found.is_stopped) == (Outcome.SILENCE, True)
        assert found.reason == "a signal such as SIGSTOP has stopped its process"
        before = first_thread(pid)
        assert before.is_stopped
        assert first_thread(pid) == before
        os.kill(pid, signal.SIGCONT)
        while first_thread(pid).is_stopped:
            time.sleep(0.01)
        os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + 30
        # It is shown as stopped a moment before its last turn is counted.
        while not (after := first_thread(pid)).is_stopped or after == before:
            assert time.monotonic() < until
            time.sleep(0.01)


def looks_at(path: Path, then: str, *, stands_for: float = 0.0) -> list[Silence]:
    """Return what is seen, for a second, of a silent process that shows that its loop stands."""
    now, seen = time.monotonic(), list[Silence | None]()
    path.with_suffix(".beat").write_bytes(BEAT.pack(4, now - stands_for if stands_for else 0))
    with silent_process(path, then):
        probe(path, timeout=1.0, seen=seen)
    assert seen.pop() is None
    return [each for each in seen if each is not None]


def test_a_silent_worker_is_looked_at_while_it_is_waited_for(tmp_path: Path) -> None:
    """Given a process that waits or computes, then that is seen; what it shows is read at each look."""
    sleeps = looks_at(tmp_path / "a.sock", "time.sleep(600)")
    stands = looks_at(tmp_path / "b.sock", "time.sleep(600)", stands_for=5.0)

    assert [each.lasts for each in sleeps] == sorted(each.lasts for each in sleeps)
    assert sleeps[0].lasts >= 0.2
    assert {(each.moves, each.stands, each.stopped) for each in sleeps} == {(False, 0.0, 0.0)}
    assert not any(each.computes for each in sleeps)
    # On a crowded machine it may not be on a core for long enough in one second.
    several = (looks_at(tmp_path / f"c{number}.sock", "while True: pass") for number in range(20))
    assert any(each.computes for seen in several for each in seen)
    assert all(5.2 <= each.stands < 60 for each in stands)


def test_a_well_worker_is_not_looked_at(tmp_path: Path) -> None:
    seen: list[Silence | None] = []
    with serving(socket.AF_UNIX, str(tmp_path / "w.sock"), lambda c: c.sendall(report())):
        probe(tmp_path / "w.sock", timeout=30, seen=seen)

    assert seen == [None]


def test_how_long_a_process_ran() -> None:
    before = first_thread(os.getpid())
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    after = first_thread(os.getpid())

    assert after.ran >= before.ran + 0.04
    assert after.waits >= before.waits
    assert after.queued >= before.queued >= 0
    assert procs.first_thread(2**22 + 1) is None


def test_a_full_queue_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))

        found = probe(path)

    assert (found.outcome, found.reason) == (Outcome.SILENCE, "connection queue full")


def closed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        pytest.param(lambda path: None, "No such file or directory", id="no file"),
        pytest.param(closed, "Connection refused", id="nobody listens"),
        pytest.param(lambda path: path.write_text(""), "Connection refused", id="a plain file"),
    ],
)
def test_a_socket_that_cannot_be_reached_is_not_the_workers_fault(
    tmp_path: Path, prepare: Callable[[Path], object], expected: str
) -> None:
    prepare(tmp_path / "w.sock")

    found = probe(tmp_path / "w.sock")

    assert (found.outcome, found.reason) == (Outcome.UNCLEAR, f"private socket unreachable: {expected}")


def test_a_path_that_is_too_long_is_not_the_workers_fault(tmp_path: Path) -> None:
    assert probe(tmp_path / ("x" * 120)).outcome is Outcome.UNCLEAR


def test_a_prober_out_of_descriptors_blames_nobody(tmp_path: Path) -> None:
    async def probe_with_few_descriptors() -> dict[int, WorkerAnswer]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        try:
            with suppress(OSError):
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            return await probe_workers([Target(PID, str(tmp_path / "w.sock"), REQUEST, 0.5)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in held:
                os.close(descriptor)

    with serving(socket.AF_UNIX, str(tmp_path / "w.sock"), lambda c: c.sendall(report())):
        found = asyncio.run(probe_with_few_descriptors())[PID]

    assert (found.outcome, found.reason) == (
        Outcome.UNCLEAR,
        "private socket unreachable: Too many open files",
    )


def test_a_silent_worker_holds_up_no_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.sock" for number in range(20)]
    targets = [Target(number, str(path), REQUEST, 3.0) for number, path in enumerate(paths)]

    def reply(connection: socket.socket) -> None:
        number = int(Path(connection.getsockname()).stem)
        if number % 2:
            hang(connection)
        connection.sendall(report(pid=number))

    def serve_all(left: list[Path]) -> dict[int, WorkerAnswer]:
        if not left:
            return asyncio.run(probe_workers(targets))
        with serving(socket.AF_UNIX, str(left[0]), reply):
            return serve_all(left[1:])

    began_at = time.monotonic()
    found = serve_all(paths)

    assert [pid for pid, one in found.items() if one.outcome is Outcome.REPORT] == list(range(0, 20, 2))
    assert max(one.latency for one in found.values() if one.outcome is Outcome.REPORT) < 2.5
    assert time.monotonic() - began_at < 15.0  # ten silences of three seconds, side by side


def test_the_request_names_what_is_to_be_asked_and_no_more() -> None:
    assert worker_request(live_path=None, ready_path="/r?a=1&b", timeout=1.0).split(b" ")[1] == (
        b"/-/worker?ready=%2Fr%3Fa%3D1%26b&timeout=0.8"
    )


# health.url


@contextmanager
def web(handle: Handle) -> Iterator[str]:
    with serving(socket.AF_INET, ("127.0.0.1", 0), handle) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/health"


def ask(handle: Handle, *, timeout: float = 0.5) -> UrlAnswer:
    with web(handle) as url:
        return probe_url(url, timeout=timeout)


def drip_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        connection.sendall(f"x-{number}: y\r\n".encode())
        time.sleep(0.05)


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b".")
        time.sleep(0.05)


def drip_body_without_length(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b".")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("handle", "ok", "status", "reason"),
    [
        pytest.param(lambda c: c.sendall(answer(b"fine")), True, 200, "", id="well"),
        pytest.param(lambda c: c.sendall(answer(b"", status="204 -")), True, 204, "", id="well, without a word"),
        pytest.param(lambda c: c.sendall(answer(b"no", status="500 -")), False, 500, "answered 500", id="an error"),
        pytest.param(
            lambda c: c.sendall(b"HTTP/1.0 302 -\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n"),
            False,
            302,
            'answered 302, a redirect to "http://other/"',
            id="a redirect is not followed",
        ),
        pytest.param(hang, False, None, "no complete answer within 3 s", id="it hangs"),
        pytest.param(drip_head, False, 200, "no complete answer within 3 s", id="headers without end"),
        pytest.param(drip_body, False, 200, "no complete answer within 3 s", id="a byte at a time"),
        pytest.param(
            drip_body_without_length, False, 200, "no complete answer within 3 s", id="a byte at a time, no length"
        ),
    ],
)
def test_only_a_whole_2xx_in_time_is_well(handle: Handle, ok: bool, status: int | None, reason: str) -> None:
    found = ask(handle, timeout=3)  # a crowded machine takes a second for a status line

    assert (found.ok, found.status, found.reason) == (ok, status, reason)
    assert found.latency < 6


def test_the_time_out_of_requests_is_named_as_the_deadline_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a deadline that comes late, when requests gives up first, then the reason is the same."""
    monkeypatch.setattr("xboard_circus.deadline.Cut", lambda timeout: Cut(timeout + 5))

    assert ask(hang).reason == "no complete answer within 0.5 s"


def test_of_a_body_without_end_only_the_beginning_is_read() -> None:
    sent = 0

    def pour_and_count(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 4096)

    found = ask(pour_and_count, timeout=5.0)

    assert (found.ok, found.status) == (True, 200)
    assert sent < BODY_LIMIT + 16 * 1024 * 1024  # what the kernel's buffers hold is sent, but nobody keeps it
    assert found.latency < 4.0


def test_a_refused_connection_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = probe_url(f"http://127.0.0.1:{taken.getsockname()[1]}/", timeout=10.0)

    assert (found.ok, found.status, found.reason) == (False, None, "Connection refused")


def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert ask(lambda c: c.sendall(answer(b""))).ok


def test_requests_costs_nothing_until_a_url_is_probed() -> None:
    code = "import sys, xboard_circus.probe; print('requests' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
