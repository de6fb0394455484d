"""A client that does not read its answers is cut off; a slow one, and one that has nothing to read, are not."""

from __future__ import annotations

import contextlib
import socket

import pytest

from .harness import PATIENCE, eventually
from .test_worker import FAST, NEEDS_FAST, PLAIN, Place, certified, place, send_request

__all__ = ["place"]

LENGTH = 16 << 20
CUT_OFF_AFTER = 15  # seconds, in place of the worker's 60


@pytest.mark.parametrize(
    ("stack", "is_encrypted"),
    [pytest.param(FAST, False, id="uvloop", marks=NEEDS_FAST), pytest.param(PLAIN, True, id="asyncio with TLS")],
)
@pytest.mark.timeout(600)
def test_of_clients_that_do_not_read_their_answers_no_memory_is_kept(
    place: Place, stack: tuple[str, ...], is_encrypted: bool
) -> None:
    """Given two requests for 16 MiB on each of five connections that read nothing, a client that reads slowly, and one
    whose events it has read, then the five are cut off, and the others are served.

    With TLS it is an endless answer: event loops give a whole one of a kept connection 35 s.
    """
    path = "/huge" if is_encrypted else "/whole"
    certificate, context = certified(place)
    options = ("--ssl-certfile", str(certificate)) if is_encrypted else ()
    worker = place.start(*stack, *options, env={"WORKER_APP_STUCK": str(CUT_OFF_AFTER)}).wait_ready()
    with contextlib.ExitStack() as stack_of_clients:

        def connected(path: str, times: int = 1) -> socket.socket:
            client = worker.connect()
            if is_encrypted:
                client = context.wrap_socket(client, server_hostname="localhost")
            stack_of_clients.enter_context(client)
            for _ in range(times):
                send_request(client, path)
            return client

        slow, quiet = connected(path), connected("/one-event")
        unread = [connected(path, times=2) for _ in range(5)]
        assert quiet.recv(65536).startswith(b"HTTP/1.1 200")
        eventually(lambda: worker.tell()["connections"] == 2 + len(unread))
        read = [0]

        def is_cut_off() -> bool:
            # TLS gives 16 KiB at most, and a kernel tells the worker of room after megabytes only.
            read[0] += sum(len(slow.recv(1 << 14)) for _ in range(16))
            return bool(worker.tell()["connections"] == 2)

        eventually(is_cut_off, timeout=CUT_OFF_AFTER + PATIENCE, every=0.5, what="who reads nothing is cut off")
        assert worker.log.count("which took nothing of its answer") == len(unread)
        while read[0] < LENGTH:  # more than any kernel holds
            more = slow.recv(1 << 20)
            assert more, f"the slow client is cut off after {read[0]} bytes"
            read[0] += len(more)
        # Not closed with unread data: a reset in the middle of a write by TLS can end in a traceback of asyncio's own,
        # which calls connection_lost of the transport twice then (python/cpython, issue 156512).
        slow.shutdown(socket.SHUT_WR)
        while slow.recv(1 << 20):
            pass
    eventually(lambda: not worker.tell()["connections"])
    assert "Traceback" not in worker.log
