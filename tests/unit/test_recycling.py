import pytest

from xboard_circus.core.recycling import RecycleLimits, due

NONE = {"rss": None, "requests": None, "age": None}


@pytest.mark.parametrize(
    ("limits", "seen", "spread", "said"),
    [
        pytest.param(RecycleLimits(), {"rss": 10**12, "requests": 10**9, "age": 1e9}, 0, None, id="no limit, never"),
        pytest.param(RecycleLimits(rss=1, requests=1, age=1), NONE, 0, None, id="what is not known is below"),
        pytest.param(
            RecycleLimits(rss=2**20),
            {**NONE, "rss": 2**20},
            1,
            "uses 1 MiB, worker.max_rss = 1 MiB",
            id="memory has no spread",
        ),
        pytest.param(RecycleLimits(rss=2**20), {**NONE, "rss": 2**20 - 1}, 0, None, id="a byte less is fine"),
        pytest.param(
            RecycleLimits(requests=10),
            {**NONE, "requests": 12},
            1,
            "served 12 requests, worker.max_requests = 10",
            id="requests spread by a fifth",
        ),
        pytest.param(RecycleLimits(requests=10), {**NONE, "requests": 11}, 1, None, id="not before"),
        pytest.param(
            RecycleLimits(age=60),
            {**NONE, "age": 60.0},
            0,
            "up for 60 s, worker.max_age = 60 s",
            id="age counts from being ready",
        ),
        pytest.param(RecycleLimits(age=60), {**NONE, "age": 65.0}, 0.5, None, id="age spreads too"),
    ],
)
def test_due(limits: RecycleLimits, seen: dict[str, float | None], spread: float, said: str | None) -> None:
    assert due(limits, spread=spread, **seen) == said  # type: ignore[arg-type]
