"""Deliver an alert by e-mail."""

import base64
import logging
import smtplib
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from pathlib import Path
from typing import Any

from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError, Secret, os_words, scrubbed
from xboard_circus.deadline import Cut

log = logging.getLogger("xboard_circus.alerts")

REPLIES = 1 << 20
PORTS = {"starttls": 587, "tls": 465, "none": 25}


@dataclass(slots=True)
class SmtpSink:
    """Send alerts to some addresses through a mail server."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int | None = None
    security: str = "starttls"
    user: str | None = None
    password: Secret | None = None
    timeout: float = 10.0
    ca_file: Path | None = None
    # By message: the recipients without it so far, so that no other gets it twice.
    _left: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    @property
    def place(self) -> str:
        return f"e-mail to {', '.join(self.to)} by {self.host}:{self._port}"

    @property
    def _port(self) -> int:
        return self.port or PORTS[self.security]

    def deliver(self, message: Message) -> None:
        """Send the mail: delivered once the server has accepted it, even if QUIT fails."""
        password = self.password.read() if self.password else ""
        began = time.monotonic()
        with Cut(self.timeout) as cut:
            try:
                self._hand_over(message, password, cut)
            except (smtplib.SMTPException, OSError, ValueError) as error:
                # smtplib reports a time-out of its own as a closed connection.
                is_late = cut.done or isinstance(error, TimeoutError) or time.monotonic() - began >= 0.95 * self.timeout
                why = f"no complete answer within {self.timeout:g} s" if is_late else _words(error)
                # Without its cause, which may quote what was sent, such as a password.
                refused = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500
                refused |= isinstance(error, ValueError)  # it can't be written as a mail
                raise AlertError(scrubbed(why, self._sent(password)), refused=refused) from None

    def _sent(self, password: str) -> list[str]:
        """Return the password, also as a login sends it (RFC 4954), which a server may quote."""
        words = (password, f"\0{self.user}\0{password}") if password else ()
        return [password, *(base64.b64encode(each.encode()).decode() for each in words)]

    def _hand_over(self, message: Message, password: str, cut: Cut) -> None:
        tls = self._context() if self.security == "tls" else None
        # smtplib would look its name up in the DNS, which may take minutes.
        name = socket.gethostname() or "localhost"
        server = _Client(cut, tls, host=self.host, port=self._port, local_hostname=name, timeout=self.timeout)
        try:
            if self.security == "starttls":
                server.starttls(context=self._context())
            if self.user:
                server.login(self.user, password)
            left = self._left.get(message.id, self.to)
            refused = server.send_message(self._mail(message), to_addrs=[parseaddr(each)[1] for each in left])
        finally:
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
            server.close()
        self._left.clear()
        later = tuple(each for each in left if 400 <= refused.get(parseaddr(each)[1], (0,))[0] < 500)
        for address, (code, reply) in refused.items():
            log.warning("alert: %s gets none: %d %s", address, code, scrubbed(str(reply), self._sent(password)))
        if later:
            self._left[message.id] = later
            raise AlertError(f"not yet taken for {', '.join(later)}")

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        # An encoded word (RFC 2047) in it would be decoded here, its line breaks too: a header of its writer's choice.
        mail["Subject"] = message.title.replace("=?", "= ?")
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.to)
        mail["Date"] = formatdate(time.time(), localtime=True)
        mail["Message-ID"] = f"<{message.id}@{parseaddr(self.sender)[1].partition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text + "\n")
        return mail


class _Replies:
    """The replies of a server, `REPLIES` bytes in all; smtplib would keep one without end, 400 MiB in a second."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, REPLIES

    def readline(self, size: int) -> bytes:
        line: bytes = self._file.readline(min(size, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()


class _Client(smtplib.SMTP):
    """Cut the connection at the deadline of *cut*, its handshake too where *tls* is given."""

    def __init__(self, cut: Cut, tls: ssl.SSLContext | None, **options: Any) -> None:
        self._cut, self._tls = cut, tls
        super().__init__(**options)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Replies(self.sock.makefile("rb"))
        return super().getreply()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        opened = socket.create_connection((host, port), timeout)
        self._cut.watch(opened)
        return opened if self._tls is None else self._tls.wrap_socket(opened, server_hostname=host)


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, reply = next(iter(error.recipients.values()))
        return f"every recipient was refused: {code} {_decoded(reply)}"
    if isinstance(error, smtplib.SMTPResponseException):
        what = "the login was refused:" if isinstance(error, smtplib.SMTPAuthenticationError) else "answered"
        return f"{what} {error.smtp_code} {_decoded(error.smtp_error)}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the server offers no STARTTLS, or no login"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "the server closed the connection"
    return os_words(error, type(error).__name__)


def _decoded(reply: object) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
