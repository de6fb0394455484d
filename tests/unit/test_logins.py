"""How many tries to log in there are."""

from xboard_circus.core.logins import BURST, LONGEST_WAIT, MOST_ADDRESSES, LoginLimiter


def fail(limiter: LoginLimiter, address: str, times: int, now: float) -> None:
    for _ in range(times):
        limiter.failed(address, now)


def test_five_tries_cost_nothing_and_each_further_failure_doubles_the_wait() -> None:
    limiter, now, waits = LoginLimiter(), 0.0, []

    for _ in range(12):
        limiter.failed("a", now)
        waits.append(limiter.wait("a", now))
        now += waits[-1]

    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_refused_try_does_not_make_the_wait_longer() -> None:
    limiter = LoginLimiter()
    fail(limiter, "a", 20, 0.0)

    assert [limiter.wait("a", now) for now in (0.0, 10.0, 29.0, 30.0)] == [30.0, 20.0, 1.0, 0.0]


def test_a_success_clears_the_count() -> None:
    limiter = LoginLimiter()
    fail(limiter, "a", 5, 0.0)
    limiter.succeeded("a")
    limiter.failed("a", 1.0)

    assert limiter.wait("a", 1.0) == 0.0


def test_failures_are_forgotten_after_a_while() -> None:
    limiter = LoginLimiter()
    fail(limiter, "a", 50, 0.0)

    assert limiter.wait("a", 1000.0) == 0.0


def test_one_address_does_not_lock_another_out() -> None:
    limiter = LoginLimiter()
    fail(limiter, "attacker", 50, 0.0)

    assert limiter.wait("owner", 0.0) == 0.0


def test_many_addresses_together_are_limited_and_a_newcomer_still_comes_in() -> None:
    limiter, now, failures = LoginLimiter(), 0.0, 0

    for number in range(10_000):
        now += 0.001
        if limiter.wait(f"bot-{number % 3000}", now) == 0.0:
            limiter.failed(f"bot-{number % 3000}", now)
            failures += 1
    came_in_after = next(step for step in range(100) if limiter.wait("owner", now + step * 0.1) == 0.0)

    assert failures < BURST + 10 * 10 * 2
    assert came_in_after <= 10


def test_ten_thousand_tries_take_no_memory_to_speak_of_and_leave_the_owner_a_way_in() -> None:
    limiter = LoginLimiter()
    for number in range(10_000):
        limiter.failed(f"bot-{number}", number * 0.001)

    assert len(limiter._addresses) <= MOST_ADDRESSES
    assert limiter.wait("owner", 10.0 + LONGEST_WAIT) == 0.0
