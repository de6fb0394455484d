"""A web server and a mail server that misbehave on request: what a sink of the alerts has to live with."""

import asyncio
import contextlib
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from .free_ports import free_port

LONGEST_HANG = 60.0


@dataclass
class Got:
    """One request, and how it was answered."""

    how: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


class HookServer:
    """A web server that answers as its *script* says, one word for each request, and well when that is used up.

    hang, drip, redirect, or a status; the answer to a 2xx has *answer* for its body. It refuses every connection until
    it is opened.
    """

    def __init__(self, *script: str, answer: str = "ok", tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.script = deque(script)
        self.answer = answer
        self.got: list[Got] = []
        self.proxied: list[str] = []
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None
        self._released = threading.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    @property
    def taken(self) -> list[Got]:
        """The requests that were answered well."""
        return [each for each in list(self.got) if each.how.startswith("2")]

    def open(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                how = hook.script.popleft() if hook.script else "200"
                hook.got.append(Got(how, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                with contextlib.suppress(OSError):
                    hook.reply(self, how)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def reply(self, handler: BaseHTTPRequestHandler, how: str) -> None:
        if how == "hang":
            self._released.wait(LONGEST_HANG)
            return
        if how == "drip":
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
            for number in range(1000):
                handler.wfile.write(f"x-{number}: y\r\n".encode())
                if self._released.wait(0.1):
                    return
            return
        status = 302 if how == "redirect" else int(how)
        body = self.answer.encode() if 200 <= status < 300 else f"no luck at {handler.path}".encode()
        handler.send_response(status)
        if how == "redirect":
            handler.send_header("location", f"{self.url}/elsewhere")
        if status == 429:
            handler.send_header("retry-after", "7")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


@contextlib.contextmanager
def hook_server(
    *script: str, opened: bool = True, answer: str = "ok", tls: ssl.SSLContext | None = None
) -> Iterator[HookServer]:
    server = HookServer(*script, answer=answer, tls=tls)
    if opened:
        server.open()
    try:
        yield server
    finally:
        server.close()


class MailServer:
    """A mail server that answers as its *script* says, one word for each mail, and 250 when that is used up.

    hang, or an SMTP reply such as ``451 later``; *refused* are replies by recipient, each used once. With *tls* it
    demands STARTTLS, or TLS from the start where *implicit*, and with *password* a login.
    """

    def __init__(
        self, *script: str, tls: ssl.SSLContext | None = None, implicit: bool = False, password: str = ""
    ) -> None:
        self.port = free_port()
        self.script = deque(script)
        self.refused: dict[str, str] = {}
        self.got: list[tuple[str, list[str], Message]] = []
        self.logins: list[bool] = []
        self._password = password
        self._tls = None if implicit else tls
        self._implicit_tls = tls if implicit else None
        self._controller: Controller | None = None

    @property
    def taken(self) -> list[Message]:
        """The mails that were taken."""
        return [mail for how, _, mail in list(self.got) if how.startswith("250")]

    def open(self) -> None:
        needs_login = bool(self._password)
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            ready_timeout=60,  # for its thread, on a crowded machine
            ssl_context=self._implicit_tls,
            tls_context=self._tls,
            require_starttls=self._tls is not None,
            auth_required=needs_login,
            authenticator=self._known if needs_login else None,
            auth_require_tls=self._tls is not None,
        )
        self._controller.start()

    def _known(self, *arguments: Any) -> AuthResult:
        given = arguments[-1]
        is_right = isinstance(given, LoginPassword) and given.password.decode() == self._password
        self.logins.append(is_right)
        # Not handled: the server is to say 535 by itself.
        return AuthResult(success=is_right, handled=is_right)

    async def handle_RCPT(  # noqa: N802 - the name is aiosmtpd's
        self, server: object, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if reply := self.refused.pop(address, ""):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: object, session: Session, envelope: Envelope) -> str:  # noqa: N802
        how = self.script.popleft() if self.script else "250 OK"
        content = envelope.content
        assert isinstance(content, bytes)
        self.got.append((how, list(envelope.rcpt_tos), message_from_bytes(content, policy=policy.default)))
        if how == "hang":
            await asyncio.sleep(LONGEST_HANG)
        return how

    def close(self) -> None:
        if self._controller is not None:
            self._controller.stop()


@contextlib.contextmanager
def mail_server(
    *script: str,
    opened: bool = True,
    tls: ssl.SSLContext | None = None,
    implicit: bool = False,
    password: str = "",
) -> Iterator[MailServer]:
    server = MailServer(*script, tls=tls, implicit=implicit, password=password)
    if opened:
        server.open()
    try:
        yield server
    finally:
        server.close()
