"""What is asked about all workers of a watcher: which slot is free, which ones to do without, whether all are ready."""

from types import SimpleNamespace

import pytest

from xboard_circus.core.restart_limits import RestartBudget, RestartLimits
from xboard_circus.core.state_names import Health, Role
from xboard_circus.core.worker_phases import Gone, Leaving, Life, LifePhase, Order, Starting, Up
from xboard_circus.supervisor.fleet import Fleet, Worker

NOW = 1000.0
RELOAD = Order(by="reload")


def worker(
    slot: int,
    phase: LifePhase | None = None,
    *,
    role: Role = Role.SERVING,
    age: float = 100.0,
    health: Health = Health.OK,
    was_ready: bool = True,
) -> Worker:
    phase = phase or Up(NOW - age)
    return Worker(
        process=SimpleNamespace(pid=100 + slot),
        pid=100 + slot,
        wid=slot,
        slot=slot,
        started=1,
        token=f"t{slot}",
        spawned_at=NOW - age,
        life=Life(phase=phase, role=role, health=health, was_ready=was_ready),
        user=0,
    )


def leaving(slot: int, role: Role = Role.SERVING, *, age: float = 100.0) -> Worker:
    return worker(slot, Leaving(RELOAD, NOW - 1, NOW + 30, Up(NOW - age)), role=role, age=age)


def fleet_of(*workers: Worker) -> Fleet:
    fleet = Fleet(RestartBudget(RestartLimits(), slots=2), lambda: NOW)
    for number, each in enumerate(workers):
        each.pid = 100 + number
        fleet.workers[each.pid] = each
    return fleet


# Slots


@pytest.mark.parametrize(
    ("workers", "slot"),
    [
        pytest.param([], 1, id="the first one has slot 1"),
        pytest.param([worker(1), worker(2)], 3, id="the next one counts on"),
        pytest.param([worker(1), worker(3)], 2, id="the lowest that is free, where one ended in between"),
        pytest.param([worker(2)], 1, id="from 1 on"),
        pytest.param([worker(1), worker(1, role=Role.RETIRING)], 2, id="a successor has its predecessor's"),
        pytest.param([worker(1, role=Role.RETIRING)], 1, id="one that retires keeps its slot from nobody"),
        pytest.param([worker(1, role=Role.SUCCESSOR), worker(1, role=Role.RETIRING)], 2, id="a successor takes it"),
        pytest.param([leaving(1)], 2, id="one that leaves has its slot until it is gone"),
    ],
)
def test_the_free_slot(workers: list[Worker], slot: int) -> None:
    assert fleet_of(*workers).free_slot() == slot


def test_a_slot_that_waits_holds_up_no_sibling() -> None:
    fleet = fleet_of(worker(3))
    for _ in range(2):
        fleet.budget.failed(1, fleet.clock())

    assert (fleet.free_slot(3), fleet.free_slots(3)) == (2, [2, 1])


def test_a_worker_has_the_wid_of_its_slot_and_takes_that_of_no_slot_that_waits() -> None:
    fleet = fleet_of(worker(2), worker(3))

    assert [fleet.free_wid(slot, 4) for slot in (1, 4, 2)] == [1, 4, 5]


# Which ones to do without


@pytest.mark.parametrize(
    ("workers", "order"),
    [
        pytest.param(
            [
                worker(1),
                worker(2, health=Health.SICK),
                worker(3, Starting(NOW - 1)),
                leaving(4),
            ],
            [4, 3, 2, 1],
            id="leaving, starting, sick, well",
        ),
        pytest.param(
            [worker(1, health=Health.BUSY), worker(2, health=Health.HUNG), worker(3, health=Health.FAILING)],
            [2, 3, 1],
            id="a hung one, one that has not answered once, one that answers",
        ),
        pytest.param(
            [worker(1, age=50), worker(2, age=200), worker(3, age=100)], [2, 3, 1], id="the oldest among equals"
        ),
    ],
)
def test_those_that_serve_least(workers: list[Worker], order: list[int]) -> None:
    fleet = fleet_of(*workers)
    chosen = [[each.slot for each in fleet.least_serving(extra)] for extra in range(len(order) + 1)]

    assert chosen == [order[:extra] for extra in range(len(order) + 1)]


def test_there_is_no_surplus_where_some_are_missing() -> None:
    assert fleet_of(worker(1)).least_serving(-2) == []


def test_retiring_ones_are_no_surplus() -> None:
    fleet = fleet_of(worker(1), worker(2, role=Role.RETIRING))

    assert [each.slot for each in fleet.least_serving(9)] == [1]


# Whether all are ready


@pytest.mark.parametrize(
    ("workers", "ready"),
    [
        pytest.param([worker(1), worker(2)], True, id="as many as wanted are ready"),
        pytest.param([worker(1)], False, id="one is missing"),
        pytest.param([worker(1), worker(2, Starting(NOW - 1))], False, id="one still starts"),
        pytest.param([worker(1), worker(2, was_ready=False, age=5)], False, id="one is up and was not ready yet"),
        pytest.param([worker(1), worker(2, was_ready=False, age=61)], True, id="one was not ready for all its time"),
        pytest.param([worker(1), leaving(2)], False, id="one leaves"),
        pytest.param([worker(1), worker(2, role=Role.RETIRING)], False, id="one that retires is about to go"),
        pytest.param([worker(1), worker(2, role=Role.SUCCESSOR)], True, id="a successor counts"),
    ],
)
def test_all_ready(workers: list[Worker], ready: bool) -> None:
    assert fleet_of(*workers).all_ready(2, within=60.0) is ready


# Others


def test_a_process_is_found_by_its_pid_and_its_start() -> None:
    (found,) = fleet = fleet_of(worker(1))

    assert (fleet.find(found.pid, 1), fleet.find(found.pid, 2), fleet.find(1, 1)) == (found, None, None)


def test_one_is_taken_out_once() -> None:
    (found,) = fleet = fleet_of(worker(1))

    assert [fleet.drop(found), fleet.drop(found)] == [True, False]


@pytest.mark.parametrize(
    ("workers", "up"),
    [
        pytest.param([worker(1), worker(2, Starting(NOW))], 1, id="one is up"),
        pytest.param([leaving(1), worker(2, Starting(NOW))], 0, id="none is: one leaves, one starts"),
        pytest.param([worker(1, role=Role.RETIRING)], 1, id="one that retires serves until it is told to go"),
    ],
)
def test_the_budget_is_told_how_many_are_up(workers: list[Worker], up: int) -> None:
    fleet = fleet_of(*workers)
    fleet.note_up()

    assert fleet.budget.up == up


@pytest.mark.parametrize(
    ("of", "up_since", "drains"),
    [
        pytest.param(worker(1, Starting(NOW - 5)), None, False, id="starting"),
        pytest.param(worker(1, Up(NOW - 5)), NOW - 5, False, id="up"),
        pytest.param(leaving(1, age=5), NOW - 5, False, id="leaving: it was up, and is so again if it stays"),
        pytest.param(leaving(1, Role.RETIRING, age=5), NOW - 5, True, id="draining after its successor took over"),
    ],
)
def test_what_is_asked_of_one_worker(of: Worker, up_since: float | None, drains: bool) -> None:
    assert (of.up_since, of.drains) == (up_since, drains)


def test_one_that_is_gone_is_not_up() -> None:
    of = worker(1, Gone(cause=None, reason="", at=NOW))  # type: ignore[arg-type]

    assert (of.up_since, of.is_up, of.is_leaving) == (None, False, False)
