"""Stop the service of systemd: ``ExecStop=`` and ``ExecStopPost=`` of its unit.

A restart of the unit loses no request: circusd leaves, its workers serve on in the control group, and the next circusd
takes their port over. Every other end of the unit ends all processes in its control group. systemd itself knows no such
difference: it offers one KillMode for both, and a command of the unit sees it only by the running job.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
ANSWER_WITHIN = 5.0
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
    given = parser.parse_args(argv)
    job = job_of(given.unit, of_user=given.user)
    if given.action == "leave":
        if job == "restart":
            leave(given.ini, os.environ.get("MAINPID", ""))
    elif not is_followed(job, os.environ):
        end_group(given.unit)


def job_of(unit: str, *, of_user: bool) -> str | None:
    """Return the type of systemd's job for *unit*, such as "restart"; "" without one, None if unknown."""
    command = ["systemctl", *(["--user"] if of_user else []), "list-jobs", "--no-legend", "--plain", unit]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_WITHIN, check=True)
        words = done.stdout.split()  # its number, the unit, the type, the state
        return words[2] if len(words) == 4 else ""
    return None


def is_followed(job: str | None, ended: Mapping[str, str]) -> bool:
    """Return whether another circusd follows and takes over; *ended* is systemd's report of this one's end.

    A circusd that crashed or was killed is followed too, but only after `RestartSec`: a stop in between would not end
    the remaining processes.

    >>> is_followed("restart", {}), is_followed("stop", LEFT), is_followed("", LEFT), is_followed(None, LEFT)
    (True, False, True, False)
    """
    return job in FOLLOWED or (job == "" and all(ended.get(name) == value for name, value in LEFT.items()))


def leave(ini: str, circusd: str) -> None:
    """Order circusd to end without its workers, and wait until it has; if it refuses, systemd stops it plainly."""
    # Not above: an `ExecStopPost` needs none of these, and each second of their import is one without a service.
    from xboard_circus import config
    from xboard_circus.circus_client import CircusdClient
    from xboard_circus.errors import XboardError

    try:
        with CircusdClient(config.load(Path(ini)).endpoint, by="systemctl restart") as client:
            client.leave(deadline=ANSWER_WITHIN)
    except XboardError as error:
        print(f"requests may be lost, because no worker can serve on meanwhile: {error}", file=sys.stderr)
        return
    while circusd and (PROC / circusd).exists():  # TimeoutStopSec ends the wait
        time.sleep(LOOK_EVERY)


def end_group(unit: str) -> None:
    """Kill the rest of the control group of *unit*, as ``KillMode=mixed`` does; nothing outside of a unit."""
    own = next((group for group in _groups_of("self") if group.endswith(f"/{unit}")), None)
    if own is None or "SERVICE_RESULT" not in os.environ:
        print(f"nothing is killed: this is not run by systemd in the control group of {unit}", file=sys.stderr)
        return
    while left := list(_others_in(own)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_EVERY)


def _others_in(group: str) -> Iterator[int]:
    for entry in PROC.iterdir():
        is_other = entry.name.isdigit() and int(entry.name) != os.getpid()
        if is_other and _is_alive(entry) and group in _groups_of(entry.name):
            yield int(entry.name)


def _groups_of(pid: str) -> list[str]:
    """Return the control groups of *pid*, one for each tree that the host has."""
    with suppress(OSError):
        return [line.split(":", 2)[2] for line in (PROC / pid / "cgroup").read_text().splitlines()]
    return []


def _is_alive(entry: Path) -> bool:
    with suppress(OSError, IndexError):
        return entry.joinpath("stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
