"""Raise the limits of this process on open files and processes.

Circus's own ``rlimit_*`` makes the spawn fail on a host with a lower hard limit; here the soft limit is raised as far
as the hard one permits, and the log reports a limit that is too low.
"""

import logging
import resource

log = logging.getLogger("uvicorn.error")

WANTED = (("RLIMIT_NOFILE", 65536, "open files"), ("RLIMIT_NPROC", 4096, "processes"))


def raise_limits() -> None:
    """Raise the soft limits of `WANTED`; never lower one."""
    for name, wanted, what in WANTED:
        number = getattr(resource, name)
        soft, hard = resource.getrlimit(number)
        if within(wanted, soft):
            continue
        reachable = wanted if within(wanted, hard) else hard
        try:
            resource.setrlimit(number, (reachable, hard))
        except (ValueError, OSError) as error:  # macOS: a hard limit of "unlimited" that the kernel does not mean
            log.warning("The limit on %s stays at %d, not %d: %s", what, soft, wanted, error)
        else:
            if reachable != wanted:
                log.warning("The limit on %s is %d, not %d: the hard limit is lower", what, reachable, wanted)


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
