"""Deliver an alert by a POST of JSON."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import xboard_circus
from xboard_circus.alerts import shapes
from xboard_circus.alerts.message import Message
from xboard_circus.alerts.secrets import AlertError, Secret, os_words, scrubbed
from xboard_circus.deadline import Cut, innermost

BODY_BYTES = 4096
LONGEST_PAUSE = 3600.0


@dataclass(frozen=True, slots=True)
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
        if self.ca_file is not None and not self.ca_file.is_file():
            raise AlertError(f"ca_file: {self.ca_file} is not there")
        request = shapes.request_for(self.shape, message, url=url, secret=secret, now=self.wall_clock())
        status, body, pause = self._posted(request)
        if why := shapes.refusal(self.shape, status, body):
            raise AlertError(scrubbed(why, [request.url, url, secret]), retry_after=pause)

    def _posted(self, request: shapes.WebhookRequest) -> tuple[int, str, float]:
        # Not at the top: it costs each plugin 9 MB, and most have no webhook.
        import requests

        failure, is_late = "", False
        with Cut(self.timeout) as cut, requests.Session() as session:
            session.trust_env = self.is_proxied
            for scheme in ("http://", "https://"):
                session.mount(scheme, cut.adapter())
            try:
                with session.post(
                    request.url,
                    data=request.body,
                    headers={**request.headers, "User-Agent": f"xboard-circus/{xboard_circus.__version__}"},
                    timeout=self.timeout,
                    verify=str(self.ca_file) if self.ca_file else True,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    status = response.status_code
                    pause = _pause(response.headers.get("retry-after", ""))
                    body = response.raw.read(BODY_BYTES, decode_content=True).decode(errors="replace")
            # Errors of urllib3 pass through where the body is read. Their text has the address, so none is quoted.
            except Exception as error:
                cause = innermost(error)
                is_late = isinstance(cause, TimeoutError)
                failure = os_words(cause, f"no answer that could be read ({type(cause).__name__})")
        # The socket has the same time-out, and may be the first to notice.
        if cut.done or is_late:
            raise AlertError(f"no complete answer within {self.timeout:g} s")
        if failure:
            raise AlertError(failure)
        return status, body, pause


def _pause(text: str) -> float:
    return min(float(text), LONGEST_PAUSE) if text.isascii() and text.isdigit() else 0.0


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False
