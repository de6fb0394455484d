"""Ask all topics at once, each for a bounded time, and put their answers in the order of the topics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from xboard_circus.doctor import (
    clock,
    control,
    dependencies,
    disk,
    firewall,
    leftovers,
    limits,
    machine,
    past,
    ports,
    settings,
    supervision,
)
from xboard_circus.doctor.case import Case, open_case
from xboard_circus.doctor.diagnosis import Diagnosis, unknown

Topic = Callable[[Case], Iterable[Diagnosis]]

WITHIN = 15.0
ANSWER_WITHIN = 10.0
TOPICS: Mapping[str, Topic] = {
    "settings": settings.look,
    "circusd": supervision.look,
    "ports": ports.look,
    "control": control.look,
    "dependencies": dependencies.look,
    "disk": disk.look,
    "memory": machine.memory,
    "load": machine.load,
    "limits": limits.look,
    "firewall": firewall.look,
    "clock": clock.look,
    "leftovers": leftovers.look,
    "errors": past.look,
}


def examine(config_file: Path, *, topics: Mapping[str, Topic] = TOPICS, within: float = WITHIN) -> list[Diagnosis]:
    """Return what there is to tell, in at most *within* seconds after circusd's answer; what hangs is told as such."""
    case = open_case(config_file, now=time.time())
    answers: dict[str, list[Diagnosis]] = {}

    def ask(name: str, topic: Topic) -> None:
        found: list[Diagnosis] = []
        try:
            for each in topic(case):
                found.append(each)
        except Exception as error:
            found.append(unknown(name, f"could not be looked at: {type(error).__name__}: {error}"))
        answers[name] = found

    # Daemons: a thread that waits for a dead network disk can't be ended, and must not hold up our own end.
    threads = [threading.Thread(target=ask, args=each, daemon=True, name=each[0]) for each in topics.items()]
    for thread in threads:
        thread.start()
    give_up_at = time.monotonic() + within
    for thread in threads:
        thread.join(max(0.0, give_up_at - time.monotonic()))
    late = f"gave no answer within {within:g} s"
    return [
        each for name in topics for each in answers.get(name) or ([unknown(name, late)] if name not in answers else [])
    ]
