"""Limit the rate of logins with wrong tokens.

A token of 256 bits cannot be guessed, however many tries; the limit keeps the tries cheap and the log short. It is for
wrong tokens only: a right one is accepted whatever its address has tried. Nothing in this module reads a clock.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

FREE_TRIES = 5
LONGEST_WAIT = 30.0
FORGOTTEN_AFTER = 900.0
MOST_ADDRESSES = 4096
BURST, PER_SECOND = 60.0, 5.0


@dataclass(slots=True)
class _Address:
    failures: int
    failed_at: float
    open_at: float


class LoginLimiter:
    """Failed logins, of each address and of all together.

    An address has five tries; each further failure doubles its wait, to 30 s at most. A try during the wait is refused
    and does not make it longer, so a user who mistyped at an attacker's address may try again at its end. All addresses
    together have 60 failures at once and 5 a second after that.

    >>> limiter = LoginLimiter()
    >>> for _ in range(5): limiter.failed("::1", now=0.0)
    >>> limiter.wait("::1", now=0.0), limiter.wait("::1", now=1.0), limiter.wait("127.0.0.1", now=0.0)
    (1.0, 0.0, 0.0)
    """

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._left = BURST
        self._counted_at = -math.inf

    def wait(self, address: str, now: float) -> float:
        """Return the seconds until *address* may try; 0.0: now."""
        if (known := self._addresses.get(address)) is not None and now - known.failed_at > FORGOTTEN_AFTER:
            del self._addresses[address]
            known = None
        self._refill(now)
        return max(0.0, known.open_at - now if known is not None else 0.0, (1.0 - self._left) / PER_SECOND)

    def failed(self, address: str, now: float) -> None:
        """Note a wrong token from *address*."""
        failures = 1
        if address in self._addresses:
            failures += self._addresses.pop(address).failures
        # Not 2 ** failures, because after a week of tries that number is too large for a float.
        over = min(failures - FREE_TRIES, 10)
        wait = min(LONGEST_WAIT, 2.0**over) if over >= 0 else 0.0
        self._addresses[address] = _Address(failures, now, now + wait)
        if len(self._addresses) > MOST_ADDRESSES:
            self._addresses.popitem(last=False)
        self._refill(now)
        self._left = max(0.0, self._left - 1.0)

    def succeeded(self, address: str) -> None:
        """Forget the failures of *address*."""
        self._addresses.pop(address, None)

    def _refill(self, now: float) -> None:
        if self._counted_at < now:
            if self._counted_at > -math.inf:
                self._left = min(BURST, self._left + (now - self._counted_at) * PER_SECOND)
            self._counted_at = now
