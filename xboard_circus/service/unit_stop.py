"""Stop the service of systemd: ``ExecStop=`` and ``ExecStopPost=`` of its unit.

A restart of the unit loses no request: circusd leaves, its workers serve on in the control group, and the next circusd
takes their port over. Every other end of the unit ends all processes in its control group. systemd itself knows no such
difference: it offers one KillMode for both, and a command of the unit sees it only by the running job. It runs no
``ExecStop=`` for a unit that starts or reloads; there circusd looks for the job itself (`supervisor.leave`).
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from xboard_circus.host import procs
from xboard_circus.host.service_manager import ANSWER_WITHIN, job_of

PROC = Path("/proc")
LOOK_EVERY = 0.02
# The next start comes in the same job; if it fails, the old workers serve on.
FOLLOWED = frozenset({"restart", "start"})
# circusd has ended by an order of its own, such as `xboard_leave`, and systemd starts it again.
LEFT = {"EXIT_CODE": "exited", "EXIT_STATUS": "0"}


def main(argv: Sequence[str]) -> None:
    """Do the unit's work at one of its ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("leave", "end"))
    parser.add_argument("--unit", required=True)
    parser.add_argument("--user", action="store_true")
    parser.add_argument("--ini")
    parser.add_argument("--grace", type=float, default=0.0, help="seconds for workers to answer, in a stop")
    given = parser.parse_args(argv)
    job = job_of(given.unit, of_user=given.user)
    if job is None:
        print("requests may be lost in a restart: systemctl does not list the jobs of systemd", file=sys.stderr)
    if given.action == "leave":
        if job == "restart":
            leave(given.ini, os.environ.get("MAINPID", ""))
    elif not is_followed(job, os.environ):
        # In a stop, workers are left only where it has come between two circusds, and may have requests in flight.
        end_group(given.unit, grace=given.grace if job in ("stop", None) else 0.0)


def is_followed(job: str | None, ended: Mapping[str, str]) -> bool:
    """Return whether another circusd follows and takes over; *ended* is systemd's report of this one's end.

    A circusd that crashed or was killed is followed too, but only after `RestartSec`: a stop in between would not end
    the remaining processes.

    >>> is_followed("restart", {}), is_followed("stop", LEFT), is_followed("", LEFT), is_followed(None, LEFT)
    (True, False, True, False)
    """
    return job in FOLLOWED or (job == "" and all(ended.get(name) == value for name, value in LEFT.items()))


def leave(ini: str, circusd: str) -> None:
    """Order circusd to end without its workers, and wait until it has; if it refuses, systemd stops it plainly.

    One that does not answer is killed: its workers serve on, too. The file may be unreadable by now, in which case the
    next circusd does not start, and they serve until it is cured.
    """
    # Not above: an `ExecStopPost` needs none of these, and each second of their import is one without a service.
    from xboard_circus.circus_client import CircusdClient, CircusdGone
    from xboard_circus.errors import XboardError
    from xboard_circus.host import circusd_record, runtime

    instance = runtime.instance_id(ini)
    try:
        with CircusdClient(_endpoint(instance, ini), by="systemctl restart") as client:
            client.leave(deadline=ANSWER_WITHIN)
    except CircusdGone as error:
        if not error.listening or not circusd:
            return
        print(f"circusd (pid {circusd}) is killed, its workers serve on: {error}", file=sys.stderr)
        circusd_record.order_end(instance)
        with suppress(ProcessLookupError):
            os.kill(int(circusd), signal.SIGKILL)
    except XboardError as error:
        print(f"requests may be lost, because no worker can serve on meanwhile: {error}", file=sys.stderr)
        return
    while circusd and os.path.exists(PROC / circusd):  # TimeoutStopSec ends the wait
        time.sleep(LOOK_EVERY)


def _endpoint(instance: str, ini: str) -> str:
    """Return where the circusd that runs answers; XboardError if that is unknown."""
    from xboard_circus import config
    from xboard_circus.host import runtime

    endpoint = (runtime.read_record(instance) or {}).get("endpoint") or config.load(Path(ini)).endpoint
    return config.absolute(str(endpoint), Path(ini).parent)


def end_group(unit: str, *, grace: float = 0.0) -> None:
    """Kill the rest of the control group of *unit*, as ``KillMode=mixed`` does; nothing outside of a unit.

    Workers get SIGTERM first, and *grace* seconds.
    """
    own = next((group for group in procs.groups_of().values() if group.endswith(f"/{unit}")), None)
    if own is None or "SERVICE_RESULT" not in os.environ:
        print(f"nothing is killed: this is not run by systemd in the control group of {unit}", file=sys.stderr)
        return
    give_up_at = time.monotonic() + grace
    workers = [pid for pid in _others_in(own) if _is_worker(pid)] if grace else []
    for pid in workers:
        _signal(pid, signal.SIGTERM)
    while any(_is_alive(PROC / str(pid)) for pid in workers) and time.monotonic() < give_up_at:
        time.sleep(LOOK_EVERY)
    while [pid for pid in _others_in(own) if _signal(pid, signal.SIGKILL)]:
        time.sleep(LOOK_EVERY)


def _signal(pid: int, signum: signal.Signals) -> bool:
    """Return whether *pid* got the signal: what is root's in the group ends at root's hands."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
        return True
    return False


def _is_worker(pid: int) -> bool:
    """Return whether *pid* is a worker itself: what it has started has its variables too, but not its pid."""
    with suppress(OSError):
        return f"\0XBOARD_LAUNCHER={pid}:".encode() in b"\0" + (PROC / str(pid) / "environ").read_bytes()
    return False


def _others_in(group: str) -> Iterator[int]:
    for entry in PROC.iterdir():
        is_other = entry.name.isdigit() and int(entry.name) != os.getpid()
        if is_other and _is_alive(entry) and group in procs.groups_of(entry.name).values():
            yield int(entry.name)


def _is_alive(entry: Path) -> bool:
    with suppress(OSError, IndexError):
        return entry.joinpath("stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
