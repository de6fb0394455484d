"""Why a process ended: every fact that tells, and which one wins."""

from signal import SIGHUP, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xboard_circus.core.causes import Cause, Death, cause_of

OOM = "killed from outside by SIGKILL (out of memory?)"
TAKEN = (
    "ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): [errno 98] address already in use"
)
TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/app.py", line 3, in <module>
    import nothing_like_it
ModuleNotFoundError: No module named 'nothing_like_it'
"""
LIFESPAN = TRACEBACK + "\nERROR:    Application startup failed. Exiting.\n"
PYDANTIC = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings
port
  Input should be a valid integer
"""


def ready(exit_code: int | None, log_tail: str = "", *, signals: tuple[int, ...] = ()) -> Death:
    return Death(exit_code=exit_code, was_up=True, log_tail=log_tail, signals=signals, command="python -m app")


def never_ready(exit_code: int | None, log_tail: str = "", *, signals: tuple[int, ...] = ()) -> Death:
    return Death(exit_code=exit_code, was_up=False, log_tail=log_tail, signals=signals, command="python -m app")


@pytest.mark.parametrize(
    ("death", "expected"),
    [
        pytest.param(ready(1), (Cause.CRASH, "exited with code 1"), id="nothing in the log"),
        pytest.param(
            ready(1, TRACEBACK),
            (Cause.CRASH, "exited with code 1: \"ModuleNotFoundError: No module named 'nothing_like_it'\""),
            id="a traceback's last line",
        ),
        pytest.param(
            never_ready(3, LIFESPAN),
            (Cause.FAILED_START, "exited with code 3: \"ModuleNotFoundError: No module named 'nothing_like_it'\""),
            id="the exception beats the complaint after it",
        ),
        pytest.param(
            ready(1, "2026-01-02 03:04:05 [71] | sqlite3.OperationalError: disk I/O error"),
            (Cause.CRASH, 'exited with code 1: "sqlite3.OperationalError: disk I/O error"'),
            id="behind the time and pid of Circus's log stream",
        ),
        pytest.param(
            never_ready(1, PYDANTIC),
            (
                Cause.FAILED_START,
                'exited with code 1: "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings"',
            ),
            id="an exception that goes on for lines",
        ),
        pytest.param(
            never_ready(1, "django.core.exceptions.ImproperlyConfigured: no SECRET_KEY"),
            (Cause.FAILED_START, 'exited with code 1: "django.core.exceptions.ImproperlyConfigured: no SECRET_KEY"'),
            id="an exception of any name, if it is dotted",
        ),
        pytest.param(
            ready(1, "KeyboardInterrupt"), (Cause.CRASH, 'exited with code 1: "KeyboardInterrupt"'), id="no message"
        ),
        pytest.param(
            never_ready(1, '\x1b[31mERROR\x1b[0m:    Error loading ASGI app. Could not import module "apq".'),
            (
                Cause.FAILED_START,
                "exited with code 1: \"ERROR: Error loading ASGI app. Could not import module 'apq'.\"",
            ),
            id="a complaint will do",
        ),
        pytest.param(
            never_ready(1, "INFO: reading settings\nDATABASE_URL is not set\n"),
            (Cause.FAILED_START, 'exited with code 1: "DATABASE_URL is not set"'),
            id="the words of sys.exit",
        ),
        pytest.param(
            never_ready(1, "2026-11-24 20:47:29 [71] | set DATABASE_URL"),
            (Cause.FAILED_START, 'exited with code 1: "set DATABASE_URL"'),
            id="the words of sys.exit, with Circus's time",
        ),
        pytest.param(
            ready(1, "DATABASE_URL is not set"), (Cause.CRASH, "exited with code 1"), id="last words of a start alone"
        ),
        pytest.param(
            never_ready(1, "it begins\nINFO:     Waiting for application startup."),
            (Cause.FAILED_START, "exited with code 1 before it was up"),
            id="a log's last line explains nothing",
        ),
        pytest.param(
            never_ready(1, "it begins\n2026-11-24 20:47:29,123 root started"),
            (Cause.FAILED_START, "exited with code 1 before it was up"),
            id="nor does one that begins with its time",
        ),
        pytest.param(
            never_ready(2, 'INFO: 127.0.0.1:4711 - "GET / HTTP/1.1" 200 OK'),
            (Cause.FAILED_START, "exited with code 2 before it was up"),
            id="an access log explains nothing",
        ),
        pytest.param(
            ready(0), (Cause.EXITED, "exited with code 0 without a stop request"), id="code 0 that nobody asked for"
        ),
        pytest.param(
            never_ready(0),
            (Cause.FAILED_START, "exited with code 0 before it was up, without a stop request"),
            id="code 0 at start",
        ),
        pytest.param(ready(None), (Cause.UNKNOWN, "ended, exit status unknown"), id="an end that nobody saw"),
    ],
)
def test_exits(death: Death, expected: tuple[Cause, str]) -> None:
    assert cause_of(death) == expected


@pytest.mark.parametrize(
    ("death", "expected"),
    [
        pytest.param(ready(-SIGKILL), (Cause.KILLED, OOM), id="SIGKILL from outside"),
        pytest.param(never_ready(-SIGKILL), (Cause.KILLED, OOM), id="SIGKILL at start"),
        pytest.param(ready(-SIGSEGV), (Cause.CRASH, "died by SIGSEGV"), id="another signal"),
        pytest.param(ready(-SIGTERM), (Cause.CRASH, "died by SIGTERM"), id="SIGTERM that Circus didn't send"),
        pytest.param(
            never_ready(-SIGSEGV), (Cause.FAILED_START, "died by SIGSEGV before it was up"), id="a signal at start"
        ),
        pytest.param(ready(-63), (Cause.CRASH, "died by signal 63"), id="a signal without a name"),
    ],
)
def test_signals(death: Death, expected: tuple[Cause, str]) -> None:
    assert cause_of(death) == expected


@pytest.mark.parametrize(
    ("death", "expected"),
    [
        pytest.param(
            never_ready(120, "no such program: uvicornn\n\n"),
            (Cause.CANNOT_RUN, 'cannot be run: "no such program: uvicornn"'),
            id="the launcher's own words",
        ),
        pytest.param(
            never_ready(120, 'xboard-circus launcher: program not found: uvicornn\nINFO: "GET /" 200 OK'),
            (Cause.CANNOT_RUN, 'cannot be run: "program not found: uvicornn"'),
            id="found by its signature in a log that siblings write to",
        ),
        pytest.param(
            never_ready(120), (Cause.CANNOT_RUN, "cannot be run: no such program: python -m app"), id="no program"
        ),
        pytest.param(
            never_ready(121),
            (Cause.CANNOT_RUN, "cannot be run: no such working directory: python -m app"),
            id="no working directory",
        ),
        pytest.param(
            never_ready(122),
            (
                Cause.CANNOT_RUN,
                "cannot be run: no such user or group, or no permission to switch to it: python -m app",
            ),
            id="no user",
        ),
        pytest.param(
            never_ready(124),
            (Cause.CANNOT_RUN, "cannot be run: a resource limit can't be set: python -m app"),
            id="no rlimit",
        ),
        pytest.param(never_ready(123), (Cause.UNKNOWN, "its circusd was gone before it ran"), id="circusd is gone"),
        pytest.param(
            ready(120, "no such program: uvicornn"),
            (Cause.CRASH, "exited with code 120"),
            id="no launcher any more once it was ready",
        ),
        pytest.param(ready(123), (Cause.CRASH, "exited with code 123"), id="nor one that misses circusd"),
    ],
)
def test_the_launcher_tells_by_its_exit_code(death: Death, expected: tuple[Cause, str]) -> None:
    assert cause_of(death) == expected


@pytest.mark.parametrize(
    ("death", "expected"),
    [
        pytest.param(never_ready(1, TAKEN), (Cause.PORT_CONFLICT, f'port taken: "{TAKEN}"'), id="asyncio"),
        pytest.param(
            never_ready(3, "OSError: [Errno 48] Address already in use\nbye"),
            (Cause.PORT_CONFLICT, 'port taken: "OSError: [Errno 48] Address already in use"'),
            id="macOS, not in the last line",
        ),
        pytest.param(
            never_ready(1, "[Errno 980] whatever"),
            (Cause.FAILED_START, 'exited with code 1: "[Errno 980] whatever"'),
            id="another errno",
        ),
        pytest.param(
            never_ready(2, "Address already in use"),
            (Cause.FAILED_START, "exited with code 2 before it was up"),
            id="another exit code",
        ),
        pytest.param(
            ready(1, "OSError: [Errno 98] Address already in use"),
            (Cause.PORT_CONFLICT, 'port taken: "OSError: [Errno 98] Address already in use"'),
            id="a slow server that binds by itself passes for ready before it has its port",
        ),
    ],
)
def test_port_conflicts(death: Death, expected: tuple[Cause, str]) -> None:
    assert cause_of(death) == expected


@pytest.mark.parametrize(
    ("death", "expected"),
    [
        pytest.param(
            Death(
                exit_code=-SIGKILL,
                was_up=True,
                commanded_by="operator",
                our_kill=Cause.UNHEALTHY,
                our_reason="hung: no answer 3 times in a row",
            ),
            (Cause.UNHEALTHY, "hung: no answer 3 times in a row"),
            id="our own kill beats a command",
        ),
        pytest.param(
            Death(exit_code=-SIGKILL, was_up=False, our_kill=Cause.FAILED_START),
            (Cause.FAILED_START, "failed start"),
            id="our own kill without words",
        ),
        pytest.param(
            Death(exit_code=120, was_up=False, commanded_by="reload"),
            (Cause.COMMANDED, "commanded: reload"),
            id="a command beats the exit code",
        ),
        pytest.param(
            Death(exit_code=None, was_up=True, commanded_by="scale"),
            (Cause.COMMANDED, "commanded: scale"),
            id="a command explains an end that nobody saw",
        ),
        pytest.param(
            ready(0, signals=(SIGUSR1, SIGTERM)),
            (Cause.COMMANDED, "commanded: SIGTERM sent by Circus"),
            id="a terminating signal of Circus's is a command",
        ),
        pytest.param(
            ready(-SIGKILL, signals=(SIGTERM,)),
            (Cause.COMMANDED, "commanded: SIGTERM sent by Circus"),
            id="killed while it drained",
        ),
        pytest.param(
            ready(-SIGHUP, signals=(SIGHUP,)),
            (Cause.COMMANDED, "commanded: SIGHUP sent by Circus"),
            id="died by the very signal that Circus sent",
        ),
        pytest.param(
            ready(1, signals=(SIGHUP, SIGUSR1)),
            (Cause.CRASH, "exited with code 1"),
            id="a signal to reload is no command to end",
        ),
    ],
)
def test_what_wins(death: Death, expected: tuple[Cause, str]) -> None:
    assert cause_of(death) == expected


def test_only_commanded_deaths_cost_nothing() -> None:
    assert [cause for cause in Cause if not cause.counts] == [Cause.COMMANDED]


# What /proc and log files hold is bytes.
TEXT = st.binary(max_size=400).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Death,
        exit_code=st.none() | st.integers(-70, 300),
        was_up=st.booleans(),
        commanded_by=st.none() | TEXT,
        signals=st.lists(st.integers(1, 64), max_size=3).map(tuple),
        our_kill=st.none() | st.sampled_from(Cause),
        our_reason=TEXT,
        log_tail=TEXT | TEXT.map("Error: ".__add__) | st.just("Error: " + "x" * 1000),
        command=TEXT,
    )
)
def test_every_death_has_a_reason_of_one_short_line(death: Death) -> None:
    _, reason = cause_of(death)

    assert (reason.isprintable(), 0 < len(reason) <= 300) == (True, True)
