"""Who is logged in: a signed cookie, so that a reload of the dashboard logs nobody out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from xboard_circus.dashboard.saved import Saved
from xboard_circus.dashboard.tokens import Role, Tokens

SECONDS = 12 * 3600.0
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Session:
    """One login. *expires* is wall time: it has to outlive the process."""

    id: str
    role: Role
    expires: float
    csrf: str


class Sessions:
    """Makes and reads the cookies. Those who logged out are remembered until their cookie would have expired."""

    def __init__(self, tokens: Tokens, saved: Saved, *, clock: Callable[[], float] = time.time) -> None:
        self._key = tokens.key("session")
        self._csrf_key = tokens.key("csrf")
        self._saved = saved
        self._clock = clock

    def begin(self, role: Role) -> str:
        """Return the cookie of a new session."""
        content = {"id": f"{role}-{secrets.token_urlsafe(16)}", "role": role, "expires": self._clock() + SECONDS}
        # Without "=", for which a cookie would have to be quoted.
        body = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        return f"{body}.{self._signature(body)}"

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None where it is not ours, has expired or was ended."""
        if not cookie or len(cookie) > _LONGEST or not cookie.isascii():
            return None
        body, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature, self._signature(body)):
            return None
        content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        session = Session(content["id"], content["role"], content["expires"], self._csrf(content["id"]))
        return session if self.is_valid(session) else None

    def is_valid(self, session: Session) -> bool:
        """Say whether a session that was read earlier still holds, for answers that go on for long."""
        return session.expires > self._clock() and not self._saved.has_ended(session.id, session.role, session.expires)

    def end(self, session: Session) -> None:
        """Make the session's cookie void."""
        self._saved.end_session(session.id, session.role, session.expires, now=self._clock())

    def is_csrf_of(self, session: Session, token: str) -> bool:
        """Say whether *token* is the one that the pages of this session carry."""
        return hmac.compare_digest(session.csrf.encode(), token.encode("utf-8", "replace"))

    def _signature(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()

    def _csrf(self, session_id: str) -> str:
        return hmac.new(self._csrf_key, session_id.encode(), hashlib.sha256).hexdigest()
