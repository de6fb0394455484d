from xboard_circus.plugins.ledger import Sequence
from xboard_circus.supervisor.bus.journal import Journal


def filled(number: int, **options: int) -> Journal:
    journal = Journal(epoch="e", **options)
    for place in range(1, number + 1):
        journal.note("web", "restart", {"reason": f"r{place}"})
    return journal


def reasons(told: dict[str, object]) -> list[str]:
    events = told["events"]
    assert isinstance(events, list)
    return [data["reason"] for _, _, data in events]


def test_what_came_after_a_number_is_told() -> None:
    assert reasons(filled(4).after(2)) == ["r3", "r4"]


def test_it_keeps_as_many_as_fit() -> None:
    told = filled(1000, longest=200).after(0)

    assert reasons(told)[-1] == "r1000"
    assert 0 < len(reasons(told)) < 10
    assert told["last"] == 1000


def taken(sequence: Sequence, *numbers: int, epoch: str = "e") -> list[int]:
    return [number for number in numbers if sequence.takes(f"{epoch}-{number}")]


def test_each_is_taken_once_in_whatever_order() -> None:
    sequence = Sequence()

    assert taken(sequence, 1, 3, 2, 3, 1, 4) == [1, 3, 2, 4]


def test_a_gap_is_noticed_and_closed() -> None:
    sequence = Sequence()
    sequence.caught_up("e", 0)
    assert taken(sequence, 1, 4) == [1, 4]
    assert (sequence.is_behind, sequence.floor) == (True, 1)

    assert taken(sequence, 2, 3, 4) == [2, 3]
    sequence.caught_up("e", 4)

    assert (sequence.is_behind, sequence.floor) == (False, 4)


def test_another_circusd_begins_anew() -> None:
    sequence = Sequence()
    sequence.caught_up("e", 7)

    assert taken(sequence, 1, epoch="f") == [1]
    assert sequence.is_behind


def test_what_has_no_number_is_always_taken() -> None:
    assert [Sequence().takes(name) for name in (None, "", "x", "e-x", 5)] == [True] * 5
