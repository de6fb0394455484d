"""Examine all topics in parallel, each within a limit, and return the findings in order."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from xboard_circus.checks.check import check
from xboard_circus.checks.findings import Finding, Level, good, unknown
from xboard_circus.checks.host_rules import advice
from xboard_circus.core.reason import raised
from xboard_circus.doctor import clock, dependencies, network, old_files, past, resources, supervision
from xboard_circus.doctor.case import Case, open_case

Topic = Callable[[Case], Iterable[Finding]]

WITHIN = 15.0


def _settings(case: Case) -> Iterable[Finding]:
    """Return the errors and warnings of `check`, without the ports: they have a topic of their own."""
    found = check(case.config_file, running=True).findings
    wrong = [finding for finding in found if finding.level is not Level.OK]
    return wrong or [good(f"{case.config_file} passes `xboard-circus check`")]


def _if_read(topic: Topic) -> Topic:
    """Leave a topic out where the ini file cannot be read: "settings" reports why."""
    return lambda case: () if case.config is None else topic(case)


TOPICS: Mapping[str, Topic] = {
    "settings": _settings,
    "circusd": supervision.look,
    "ports": _if_read(network.ports),
    "control": _if_read(network.control),
    "dependencies": dependencies.look,
    "disk": _if_read(resources.disk),
    "memory": resources.memory,
    "load": resources.load,
    "limits": resources.limits,
    "firewall": _if_read(network.firewall),
    "clock": clock.look,
    "leftovers": old_files.leftovers,
    "logs": _if_read(old_files.deleted_logs),
    "errors": _if_read(past.look),
}


def examine(config_file: Path, *, topics: Mapping[str, Topic] = TOPICS, within: float = WITHIN) -> list[Finding]:
    """Return all findings within *within* seconds after circusd's answer; a topic that hangs is reported."""
    case = open_case(config_file, now=time.time())
    answers: dict[str, list[Finding]] = {}

    def run(name: str, topic: Topic) -> None:
        found: list[Finding] = []
        try:
            found.extend(each._replace(hint=advice(case.config, each.hint)) for each in topic(case))
        except Exception as error:
            found.append(unknown(f"could not be looked at: {raised(error)}"))
        answers[name] = found

    # Daemons, because a thread that waits for a dead network disk cannot be stopped, and must not keep this process
    # alive.
    threads = [threading.Thread(target=run, args=each, daemon=True, name=each[0]) for each in topics.items()]
    for thread in threads:
        thread.start()
    give_up_at = time.monotonic() + within
    for thread in threads:
        thread.join(max(0.0, give_up_at - time.monotonic()))
    late = unknown(f"gave no answer within {within:g} s")
    return [each._replace(topic=name) for name in topics for each in answers.get(name, [late])]
