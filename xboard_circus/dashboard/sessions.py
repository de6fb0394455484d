"""Authenticate users by signed sessions, so that a reload of the dashboard logs no user out."""

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


@dataclass(frozen=True)
class Session:
    """One login. *id* begins with the role; *expires* is wall time, because it has to outlive the process."""

    id: str
    expires: float

    @property
    def role(self) -> Role:
        return cast(Role, self.id.partition("-")[0])


class Sessions:
    """Make and read sessions. Ended ones are remembered until they would have expired."""

    def __init__(self, tokens: Tokens, saved: Saved, *, clock: Callable[[], float] = time.time) -> None:
        self._key = tokens.key("session")
        self._saved, self._clock = saved, clock

    def begin(self, role: Role) -> str:
        """Return a new session as text: its id, its end and the signature of both."""
        body = f"{role}-{secrets.token_urlsafe(16)}.{self._clock() + SECONDS}"
        return f"{body}.{_signature(self._key, body)}"

    def read(self, text: str) -> Session | None:
        """Return the session in *text*; None if it is not ours, has expired or was ended."""
        if len(text) > _LONGEST or not text.isascii():
            return None
        body, _, signature = text.rpartition(".")
        if not hmac.compare_digest(signature, _signature(self._key, body)):
            return None
        session_id, _, expires = body.partition(".")
        session = Session(session_id, float(expires))
        return session if self.is_valid(session) else None

    def is_valid(self, session: Session) -> bool:
        """Return whether a session that was read earlier is still valid, for long answers."""
        return session.expires > self._clock() and not self._saved.has_ended(session.id, session.expires)

    def end(self, session: Session) -> None:
        """Make the session void."""
        self._saved.end_session(session.id, session.expires)


def _signature(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()
