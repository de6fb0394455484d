"""What is known of one worker, and from when on it counts."""

from __future__ import annotations

from xboard_circus.core.states import WorkerState
from xboard_circus.supervisor.slot import Spawned

SILENT = "no answer within 2 s"


def starting() -> Spawned:
    return Spawned(process=None, pid=71, wid=1, slot=1, started=1, spawned_at=10.0, circus_started=10.0)


def seen(spawned: Spawned) -> tuple[WorkerState | None, str, bool | None]:
    return spawned.seen, spawned.seen_reason, spawned.ready_now


def test_a_beginner_shows_what_the_prober_found() -> None:
    spawned = starting()

    spawned.judged(WorkerState.STARTING, SILENT, ready=False, asked_at=11.0)

    assert seen(spawned) == (WorkerState.STARTING, SILENT, False)


def test_what_was_seen_of_its_start_is_over_when_it_is_ready() -> None:
    spawned = starting()
    spawned.judged(WorkerState.STARTING, SILENT, ready=False, asked_at=11.0)

    spawned.became_ready(12.0)

    assert seen(spawned) == (None, "", None)


def test_an_answer_to_a_question_from_before_it_was_ready_comes_too_late() -> None:
    spawned = starting()
    spawned.became_ready(12.0)

    spawned.judged(WorkerState.STARTING, SILENT, ready=False, asked_at=11.0)

    assert seen(spawned) == (None, "", None)


def test_a_later_question_counts() -> None:
    spawned = starting()
    spawned.became_ready(12.0)

    spawned.judged(WorkerState.STARTING, "status 307", ready=False, asked_at=12.5)

    assert seen(spawned) == (WorkerState.STARTING, "status 307", False)
