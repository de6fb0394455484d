"""Record a circusd's life while it runs, in ``life.json`` of its instance's state folder.

The next circusd reads there whether this one got a stop request. The file's own time is when it was last known to be
alive.
"""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from xboard_circus.core.lost import CircusdLife
from xboard_circus.core.reason import reason_in, with_say
from xboard_circus.errors import XboardError
from xboard_circus.host import oom, procs, runtime, worker_files

BOOT = Path("/proc/sys/kernel/random/boot_id")


def read(instance: str) -> CircusdLife | None:
    """Return the last recorded life; None if it is missing, unreadable or implausible."""
    with suppress(XboardError, OSError, ValueError, KeyError, TypeError, AttributeError):
        seen = _path(instance).stat().st_mtime
        data = runtime.read_file(instance, runtime.LIFE) or {}
        found: dict[str, Any] = {name: int(data[name]) for name in ("pid", "started")}
        found |= {name: str(data.get(name) or "") for name in ("boot", "witness")}
        found |= {name: bool(data.get(name)) for name in ("is_ordered", "wound_up")}
        found |= {"seen": seen, "why": reason_in(data, "why"), "stopped": [*map(str, data.get("stopped") or ())]}
        found["kills"] = {str(file): int(count) for file, count in data.get("kills", {}).items()}
        found["workers"] = {str(name): _workers_in(tokens) for name, tokens in (data.get("workers") or {}).items()}
        found["graces"] = {str(watcher): float(grace) for watcher, grace in (data.get("graces") or {}).items()}
        gone_at, code = data.get("gone_at"), data.get("next_ended")
        found["next_ended"] = None if code is None else int(code)
        return CircusdLife(**found, gone_at=None if gone_at is None else float(gone_at))
    return None


def _workers_in(tokens: Any) -> dict[str, str]:
    # An older release recorded a list of tokens.
    found = tokens if isinstance(tokens, dict) else dict.fromkeys(tokens, "")
    return {str(token): str(each) for token, each in found.items() if worker_files.NAME.fullmatch(f"{token}.sock")}


def write(instance: str, life: CircusdLife) -> None:
    """Record *life* in place of the last one; XboardError if that is not possible."""
    fields = life._asdict()
    del fields["seen"]
    runtime.write_file(instance, runtime.LIFE, {**fields, **with_say(life.why, "why")})


def amend(instance: str, circusd: procs.Identity | None = None, **changes: Any) -> None:
    """Amend the record of *circusd*, or of the one it is about; do nothing if it is about another.

    The time of its last sign of life stays. A failed write costs a detail of a later report, and nothing else.
    """
    if (life := read(instance)) is None or circusd not in (None, procs.Identity(life.pid, life.started)):
        return
    with suppress(XboardError, OSError):
        write(instance, life._replace(**changes))
        os.utime(_path(instance), (life.seen, life.seen))


def order_end(instance: str) -> None:
    """Record a stop request to the running circusd; the record of one that is gone is not changed."""
    if (life := read(instance)) is not None and not is_over(life, boot=boot()):
        amend(instance, is_ordered=True)


def forget(instance: str) -> None:
    """Remove the record, because no record of a circusd is better than a wrong report of its loss."""
    with suppress(OSError):
        _path(instance).unlink()


def claim(instance: str, life: CircusdLife, before: CircusdLife | None) -> bool:
    """Lock the byte of `started` in ``life.lock`` while this process runs; return whether that of *before* still is.

    Containers with one volume share the record, and see no process of each other. The kernel ends a lock with its
    process, and no child inherits it.
    """
    with suppress(XboardError, OSError):
        lock = os.open(runtime.state_dir(instance) / "life.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        for started in (life.started, before.started if before is not None else life.started):
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, started)
            except BlockingIOError:
                return True
    return False


def note_seen(instance: str) -> None:
    """Renew the time of the record; OSError if that is not possible."""
    os.utime(_path(instance))


def boot() -> str:
    """Return which start of the host this is; "" where it is unknown."""
    with suppress(OSError):
        return BOOT.read_text().strip()
    return ""


def workers(instance: str) -> dict[procs.Identity, tuple[str, int | None]]:
    """Return the workers of *instance* that were recorded in this start of the host, each with its watcher and user."""
    life = read(instance)
    found = {}
    for watcher, recorded in {} if life is None or life.boot != boot() else life.workers.items():
        for identity, _, user in (each.partition(" ") for each in recorded.values()):
            with suppress(ValueError):
                found[procs.Identity.parse(identity)] = watcher, int(user) if user else None
    return found


def kills_of(pid: int) -> dict[str, int]:
    """Return how many processes the kernel has killed, out of memory: in the cgroup of *pid*, then on the host."""
    return kills_in(str(path) for path in (oom.count_file_of(pid), oom.HOST) if path is not None)


def kills_in(files: Iterable[str]) -> dict[str, int]:
    """Return the same by the counts in these files; those without a count are left out."""
    counts = {file: oom.count_in(Path(file)) for file in files}
    return {file: count for file, count in counts.items() if count is not None}


def is_over(life: CircusdLife, *, boot: str) -> bool:
    """Return whether the circusd of *life* is gone: in another start of the host its pid is another's."""
    return life.boot not in ("", boot) or not procs.is_running(life.pid, life.started)


def lost(instance: str) -> CircusdLife | None:
    """Return the life of the last circusd if it is over, in this start of the host, without a stop request."""
    found, now = read(instance), boot()
    is_lost = found is not None and found.boot == now and is_over(found, boot=now) and not found.is_ordered
    return found if is_lost else None


def is_reported(life: CircusdLife) -> bool:
    """Return whether the plugin that saw *life* gone has reported it, or is still about to.

    Under systemd and in a container it may be killed before that, with the rest of the service.
    """
    if life.gone_at is None or not life.witness:
        return life.gone_at is not None
    try:
        witness = procs.Identity.parse(life.witness)
    except ValueError:
        return False
    return procs.is_running(witness.pid, witness.started)


def _path(instance: str) -> Path:
    return runtime.state_root_path() / instance / runtime.LIFE
