"""Decide whether memory permits one more worker beside old ones that drain."""

from collections.abc import Iterable


def has_room(available: int, sizes: Iterable[int]) -> bool:
    """Return whether twice the largest of *sizes*, in bytes, is *available*; of unknown sizes (0) nothing is assumed.

    >>> has_room(200, [100, 50]), has_room(199, [100, 50]), has_room(199, [0])
    (True, False, False)
    """
    return 0 < 2 * max(sizes, default=0) <= available
