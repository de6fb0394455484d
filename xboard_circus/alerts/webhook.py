"""Deliver an alert by a POST of JSON."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import xboard_circus
from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError, Secret, os_words, scrubbed
from xboard_circus.alerts.shapes import WebhookRequest, refusal, request_for
from xboard_circus.deadline import send_request

BODY_BYTES = 4096
LONGEST_PAUSE = 3600.0
NOT_NOW = (408, 425, 429)
"""Statuses below 500 that do not judge the message: took too long, too early, too many (RFC 9110, 8470, 6585)."""


@dataclass(frozen=True)
class WebhookSink:
    """POST alerts to a chat robot or a program."""

    url: Secret
    shape: str = "json"
    secret: Secret | None = None
    timeout: float = 10.0
    ca_file: Path | None = None
    is_proxied: bool = False
    wall_clock: Callable[[], float] = time.time

    @property
    def place(self) -> str:
        return f"webhook ({self.shape}), its address from {self.url}"

    def deliver(self, message: Message) -> None:
        """POST it; no redirect is followed, because another server would get the alert."""
        url = self.url.read()
        secret = self.secret.read() if self.secret else ""
        if not _is_http(url):
            raise AlertError(f"what {self.url} holds is no http or https address")
        if self.ca_file is not None and not os.path.isfile(self.ca_file):
            raise AlertError(f"ca_file: {self.ca_file} is not there")
        request = request_for(self.shape, message, url=url, secret=secret, now=self.wall_clock())
        how: dict[str, Any] = {"timeout": self.timeout, "ca_file": self.ca_file, "is_proxied": self.is_proxied}
        post(request, self.shape, secrets=[request.url, url, secret], **how)


def post(
    request: WebhookRequest,
    shape: str,
    *,
    secrets: Iterable[str],
    timeout: float,
    ca_file: Path | None,
    is_proxied: bool,
) -> None:
    """Send *request* and judge the answer, of which no more than `BODY_BYTES` are read; AlertError for a refusal."""
    headers = {**request.headers, "User-Agent": f"xboard-circus/{xboard_circus.__version__}"}
    sent: dict[str, Any] = {"data": request.body, "headers": headers, "verify": str(ca_file) if ca_file else True}
    how: dict[str, Any] = {"timeout": timeout, "most": BODY_BYTES, "decoded": True, "is_proxied": is_proxied}
    answer = send_request("POST", request.url, **how, **sent)
    if answer.is_late:
        raise AlertError(f"no complete answer within {timeout:g} s")
    if answer.status is None or answer.error is not None:
        # Their text may have the address, so none is quoted.
        what = f"no answer that could be read ({type(answer.error).__name__})"
        raise AlertError(os_words(answer.error, what))
    if why := refusal(shape, answer.status, answer.body.decode(errors="replace")):
        refused = answer.status < 500 and answer.status not in NOT_NOW
        pause = _pause(answer.headers.get("retry-after", ""))
        raise AlertError(scrubbed(why, secrets), retry_after=pause, refused=refused)


def _pause(text: str) -> float:
    return min(float(text), LONGEST_PAUSE) if text.isascii() and text.isdigit() else 0.0


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False
