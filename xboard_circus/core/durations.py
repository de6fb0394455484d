"""Format durations for people, each as a `Reason` to be translated; decide when a probe is stale."""

from xboard_circus.core.sentences import Say

UNITS = {"s": Say.UNIT_S, "min": Say.UNIT_MIN, "h": Say.UNIT_H, "d": Say.UNIT_D}
SIZES = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def seconds(value: float) -> str:
    """Format a duration for people.

    >>> seconds(600.0), seconds(2.34), seconds(0.05)
    ('600 s', '2.3 s', '0.05 s')
    """
    return Say.UNIT_S(n=f"{value:.2g}" if 0 < value < 1 else f"{value:.1f}".removesuffix(".0"))


def exactly(value: float) -> str:
    """Format a duration that an option sets, in seconds as written there.

    >>> exactly(30.0), exactly(0.25), exactly(1.6)
    ('30 s', '0.25 s', '1.6 s')
    """
    return Say.UNIT_S(n=f"{value:g}")


def lasted(value: float) -> str:
    """Format how long something took; a short time with its fraction, down to a hundredth of a second.

    >>> lasted(0.0049), lasted(2.34), lasted(75), lasted(-1)
    ('0 s', '2.3 s', '1 min 15 s', '0 s')
    """
    return seconds(round(max(value, 0.0), 2)) if value < 60 else span(value)


def span(value: float) -> str:
    """Format a time span of whole *value* seconds in its two largest units.

    >>> span(0.4), span(75), span(7260), span(200_000)
    ('0 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    left = max(0, int(value))
    parts: list[str] = []
    for unit, size in SIZES:
        count, left = divmod(left, size)
        if len(parts) == 1:
            return Say.UNITS(large=parts[0], small=UNITS[unit](n=count)) if count else parts[0]
        if count or unit == "s":
            parts.append(UNITS[unit](n=count))
    return parts[0]


def roughly(value: float) -> str:
    """Format an age in its largest unit.

    >>> roughly(65), roughly(11_000), roughly(-1)
    ('65 s', '3 h', '0 s')
    """
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit:
            return UNITS[unit](n=f"{max(value, 0) / size:.0f}")
    return UNITS["d"](n=f"{value / 86_400:.0f}")


def backoff(failures: int, *, first: float = 1.0, longest: float = 60.0) -> float:
    """Return the backoff in seconds after this many failures in a row: doubled each time, up to *longest*.

    >>> [backoff(failures) for failures in (1, 2, 3, 9999)]
    [1.0, 2.0, 4.0, 60.0]
    """
    return min(first * 2.0 ** (min(failures, 40) - 1), longest)


def stale_after(*, period: float, timeout: float) -> float:
    """Return the seconds after which a probe's result is stale, and a silent prober counts as gone."""
    return max(10.0, 5 * (period + timeout))
