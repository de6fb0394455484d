"""Raise the limits of this process, a worker or circusd, on open files and processes.

Circus's own ``rlimit_*`` makes the spawn fail on a host with a lower hard limit; here the soft limit is raised as far
as the hard one permits, and a worker's log reports a limit that is too low.
"""

import resource

WANTED = (("RLIMIT_NOFILE", 65536, "open files"), ("RLIMIT_NPROC", 4096, "processes"))


def raise_limits() -> list[str]:
    """Raise the soft limits of `WANTED`, never lower one; return a line for each that stays too low."""
    too_low = []
    for name, wanted, what in WANTED:
        number = getattr(resource, name)
        soft, hard = resource.getrlimit(number)
        if within(wanted, soft):
            continue
        reachable = wanted if within(wanted, hard) else hard
        try:
            resource.setrlimit(number, (reachable, hard))
        except (ValueError, OSError) as error:  # macOS: a hard limit of "unlimited" that the kernel does not mean
            too_low.append(f"The limit on {what} stays at {soft}, not {wanted}: {error}")
        else:
            if reachable != wanted:
                too_low.append(f"The limit on {what} is {reachable}, not {wanted}: the hard limit is lower")
    return too_low


def most_open_files() -> int:
    """Return how many files this process may open, or `WANTED` without a limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED[0][1] if soft == resource.RLIM_INFINITY else soft


def within(wanted: int, limit: int) -> bool:
    return limit == resource.RLIM_INFINITY or wanted <= limit


def forbid_core_files() -> None:
    """Forbid core files: a hung worker dies by SIGABRT, and its memory must not be written to the disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
