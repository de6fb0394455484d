"""Log people in with a signed cookie, so that a reload of the dashboard logs nobody out."""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from xboard_circus.dashboard.saved import Saved
from xboard_circus.dashboard.tokens import Role, Tokens

SECONDS = 12 * 3600.0
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Session:
    """One login. *id* begins with the role; *expires* is wall time: it has to outlive the process."""

    id: str
    expires: float
    csrf: str

    @property
    def role(self) -> Role:
        return cast(Role, self.id.partition("-")[0])


class Sessions:
    """Make and read the cookies. Those who logged out are remembered until their cookie would have expired."""

    def __init__(self, tokens: Tokens, saved: Saved, *, clock: Callable[[], float] = time.time) -> None:
        self._key = tokens.key("session")
        self._csrf_key = tokens.key("csrf")
        self._saved = saved
        self._clock = clock

    def begin(self, role: Role) -> str:
        """Return the cookie of a new session: its id, its end and the signature of both."""
        body = f"{role}-{secrets.token_urlsafe(16)}.{self._clock() + SECONDS}"
        return f"{body}.{_signature(self._key, body)}"

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None where it is not ours, has expired or was ended."""
        if not cookie or len(cookie) > _LONGEST or not cookie.isascii():
            return None
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature, _signature(self._key, body)):
            return None
        session_id, _, expires = body.partition(".")
        session = Session(session_id, float(expires), _signature(self._csrf_key, session_id))
        return session if self.is_valid(session) else None

    def is_valid(self, session: Session) -> bool:
        """Say whether a session that was read earlier still holds, for answers that go on for long."""
        return session.expires > self._clock() and not self._saved.has_ended(session.id, session.expires)

    def end(self, session: Session) -> None:
        """Make the session's cookie void."""
        self._saved.end_session(session.id, session.expires, now=self._clock())

    def is_csrf_of(self, session: Session, token: str) -> bool:
        """Say whether *token* is the one that the pages of this session carry."""
        return hmac.compare_digest(session.csrf.encode(), token.encode("utf-8", "replace"))


def _signature(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()
