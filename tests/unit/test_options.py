"""The options of the ini: texts in, typed values and problems out."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xboard_circus.core.restart_limits import RestartLimits
from xboard_circus.options import circus as circus_options
from xboard_circus.options.fields import (
    HealthOptions,
    PluginOptions,
    PortOptions,
    RestartOptions,
    WatcherOptions,
    WorkerOptions,
)
from xboard_circus.options.reading import Problem, flat, ini_text, is_ours, parse_plugin, parse_watcher
from xboard_circus.options.reference import documented

NAMES = list(flat(WatcherOptions()))


def told(mapping: dict[str, object]) -> list[str]:
    return [str(problem) for problem in parse_watcher(mapping)[1]]


def test_the_defaults_are_those_of_the_design() -> None:
    options, problems = parse_watcher({})

    assert problems == []
    assert flat(options) == {
        "health.live_path": None,
        "health.ready_path": None,
        "health.host": "localhost",
        "health.scheme": "http",
        "health.headers": None,
        "health.url": None,
        "health.period": 2.0,
        "health.timeout": 2.0,
        "health.failure_threshold": 3,
        "health.success_threshold": 1,
        "health.startup_timeout": 60.0,
        "health.max_unavailable": 1,
        "request.record": True,
        "request.id_header": None,
        "request.slow": 10.0,
        "request.timeout": 0.0,
        "request.refuse_poison": None,
        "restart.burst": 5,
        "restart.window": 600.0,
        "restart.delay": 1.0,
        "restart.delay_max": 60.0,
        "restart.cooldown": 300.0,
        "restart.reset_after": 300.0,
        "port.policy": "orphans",
        "port.grace": 5.0,
        "port.retry": 10.0,
        "port.host": "127.0.0.1",
        "port.port": None,
        "worker.env_file": None,
        "worker.max_rss": 0,
        "worker.max_requests": 0,
        "worker.max_age": 0.0,
        "worker.preload": "server",
        "worker.preload_modules": None,
        "worker.websocket_spread": 3.0,
        "run.before": None,
        "run.before_timeout": 300.0,
        "dashboard.allow_add": False,
        "dashboard.root_path": None,
        "dashboard.hosts": None,
        "dashboard.folder": None,
        "dashboard.endpoints": None,
    }


def test_a_path_that_is_empty_is_none() -> None:
    """Given a variable of the environment that is set to nothing, as an image has it, then the app has no such path."""
    options, problems = parse_watcher({"health.live_path": "", "health.ready_path": " "})

    assert (options.health.live_path, options.health.ready_path, problems) == (None, None, [])


def test_every_option_is_read() -> None:
    options, problems = parse_watcher(
        {
            "health.live_path": "/health/live",
            "health.ready_path": "/health/ready?deep=1",
            "health.url": "https://localhost:8443/health",
            "health.period": " 0.5 ",
            "health.timeout": "1e0",
            "health.failure_threshold": "2",
            "health.success_threshold": 4,
            "health.startup_timeout": 20.5,
            "health.max_unavailable": "2",
            "restart.burst": "3",
            "restart.window": "120",
            "restart.delay": "0.1",
            "restart.delay_max": "5",
            "restart.cooldown": "30",
            "restart.reset_after": "60",
            "port.policy": "Any",
            "port.grace": "0",
            "port.retry": "2",
            "port.host": "::",
            "port.port": "8000",
            "worker.max_rss": "512M",
            "worker.max_requests": "10000",
            "worker.max_age": "86400",
            "worker.websocket_spread": "1.5",
        }
    )

    assert problems == []
    assert options == WatcherOptions(
        health=HealthOptions(
            live_path="/health/live",
            ready_path="/health/ready?deep=1",
            url="https://localhost:8443/health",
            period=0.5,
            timeout=1.0,
            failure_threshold=2,
            success_threshold=4,
            startup_timeout=20.5,
            max_unavailable=2,
        ),
        restart=RestartOptions(burst=3, window=120.0, delay=0.1, delay_max=5.0, cooldown=30.0, reset_after=60.0),
        port=PortOptions(policy="any", grace=0.0, retry=2.0, host="::", port=8000),
        worker=WorkerOptions(max_rss=512 << 20, max_requests=10_000, max_age=86_400.0, websocket_spread=1.5),
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        pytest.param("health.period", "fast", "not a number of seconds; write it in digits, such as 2", id="a word"),
        pytest.param("health.period", "2s", "seconds are written without a unit; write 2", id="a unit"),
        pytest.param("health.period", "5 min", "seconds are written without a unit; write 300", id="minutes"),
        pytest.param("health.period", "nan", "not a number of seconds; write it in digits, such as 2", id="nan"),
        pytest.param("health.period", "inf", "not a number of seconds; write it in digits, such as 2", id="inf"),
        pytest.param("health.period", "1_0", "not a number of seconds; write it in digits, such as 2", id="underscore"),
        pytest.param(
            "health.period", "\u0662", "not a number of seconds; write it in digits, such as 2", id="arabic 2"
        ),
        pytest.param("health.period", True, "not a number of seconds; write it in digits, such as 2", id="a bool"),
        pytest.param("health.period", "-1", "too small; write 0.05 or more", id="negative"),
        pytest.param("health.period", "0", "too small; write 0.05 or more", id="0 would turn off probes in silence"),
        pytest.param("health.period", "1e999", "too large; write 31536000 or less", id="beyond any float"),
        pytest.param("health.period", "", "no value; write one, such as 2", id="empty"),
        pytest.param(
            "health.period",
            "2 # quick",
            "Circus takes a # behind a value for part of it; put the comment on a line of its own",
            id="a comment behind it",
        ),
        pytest.param(
            "health.period",
            "2\n# quick",
            "Circus joins the indented line below to this value; begin that line in the first column",
            id="an indented comment below it",
        ),
        pytest.param("restart.burst", "2.5", "not a whole number; write 2", id="half a failure"),
        pytest.param("restart.burst", "1e400", "too large; write 10000 or less", id="too many"),
        pytest.param("restart.burst", "0", "too small; write 1 or more", id="no failure at all"),
        pytest.param("restart.delay", "0", "too small; write 0.05 or more", id="0 would be a tight loop"),
        pytest.param("restart.reset_after", "0", "too small; write 0.05 or more", id="0 would never limit"),
        pytest.param(
            "port.policy",
            "maybe",
            "not one of the words that may stand here; write one of orphans, any, never",
            id="a policy",
        ),
        pytest.param("port.port", "70000", "too large; write 65535 or less", id="a port too large"),
        pytest.param("port.port", "0", "too small; write 1 or more", id="port 0"),
        pytest.param(
            "health.headers", "Bearer x", "not a header; write one such as X-Forwarded-Proto: https", id="no header"
        ),
        pytest.param(
            "health.host", "a b", "not an address; write one such as 127.0.0.1, 0.0.0.0, :: or localhost", id="no host"
        ),
        pytest.param("health.live_path", "health", "a path begins with a slash; write /health", id="no slash"),
        pytest.param(
            "health.live_path", "http://h/live", "a path is wanted, not a whole URL; write /live", id="URL for a path"
        ),
        pytest.param(
            "health.live_path",
            "/a b",
            "a path has no blanks, # or letters beyond ASCII; escape them with %",
            id="a blank in a path",
        ),
        pytest.param(
            "health.url",
            "ftp://h/",
            "not a http or https URL; write one such as http://127.0.0.1:8000/health",
            id="another scheme",
        ),
        pytest.param(
            "health.url",
            "http://h:99999/",
            "not a URL (Port out of range 0-65535); write one such as http://127.0.0.1:8000/health",
            id="a port in a URL",
        ),
        pytest.param(
            "worker.max_rss",
            "lots",
            "not an amount of memory; write bytes, or a number with K, M or G, such as 512M",
            id="memory",
        ),
    ],
)
def test_a_wrong_value_counts_as_the_default(option: str, value: object, message: str) -> None:
    options, problems = parse_watcher({option: value})

    assert [f"{problem.what}; {problem.hint}" for problem in problems] == [message]
    assert options == WatcherOptions()


def test_a_problem_names_option_and_value() -> None:
    assert told({"port.policy": "maybe"}) == [
        "port.policy = maybe: not one of the words that may stand here; write one of orphans, any, never"
    ]


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    (problem,) = told({"health.url": "http://app:hunter2@127.0.0.1/health"})

    assert "would be on show" in problem
    assert "hunter2" not in problem


def test_an_address_that_nobody_binds_needs_a_port() -> None:
    assert told({"port.host": "0.0.0.0"}) == ["port.host = 0.0.0.0: no port.port beside it; add port.port"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        pytest.param(
            {"restart.delay": "10", "restart.delay_max": "5"},
            "restart.delay_max = 5: shorter than restart.delay = 10; write restart.delay_max = 10 or more",
            id="delay_max < delay",
        ),
        pytest.param(
            {"restart.delay": "10", "restart.cooldown": "5"},
            "restart.cooldown = 5: shorter than restart.delay = 10; write restart.cooldown = 10 or more",
            id="cooldown < delay",
        ),
        pytest.param(
            {"restart.delay": "60", "restart.burst": "10", "restart.window": "600"},
            "restart.window = 600: 10 failures 60 s apart do not fit into 600 s: a limit out of reach;"
            " write restart.window = 1200, or lower restart.burst or restart.delay",
            id="systemd's trap: delay = window / burst",
        ),
        pytest.param(
            {"restart.burst": "1000"},
            "restart.burst = 1000: 1000 failures 1 s apart do not fit into 600 s: a limit out of reach;"
            " write restart.window = 2000, or lower restart.burst or restart.delay",
            id="the one that the user wrote is to blame",
        ),
    ],
)
def test_options_that_contradict_each_other(mapping: dict[str, object], message: str) -> None:
    options, problems = parse_watcher(mapping)

    assert [str(problem) for problem in problems] == [message]
    assert options == WatcherOptions()


def test_the_budget_has_the_last_word() -> None:
    ((problem,), options) = (told({"restart.burst": "20"}), parse_watcher({"restart.burst": "20"})[0])

    assert problem.startswith("restart.burst = 20: window must be more than")
    assert options.restart.burst == 5


def test_a_contradiction_leaves_the_other_options_alone() -> None:
    options, _ = parse_watcher({"restart.delay": "10", "restart.cooldown": "5", "restart.reset_after": "7"})

    assert options.restart == RestartOptions(reset_after=7.0)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        pytest.param("restrt.burst", "restart.burst", id="the family is misspelt"),
        pytest.param("heath.period", "health.period", id="another family"),
        pytest.param("restart.brust", "restart.burst", id="the name is"),
        pytest.param("restrat.windwo", "restart.window", id="both are"),
        pytest.param("health_period", "health.period", id="no dot"),
        pytest.param("Health.Period", "health.period", id="Circus knows capitals from small letters"),
        pytest.param("health.time_out", "health.timeout", id="one letter too many"),
    ],
)
def test_a_misspelt_option_is_told_with_the_one_that_is_meant(key: str, meant: str) -> None:
    assert told({key: "5"}) == [f"{key} = 5: unknown option; did you mean {meant}?"]


def test_an_option_that_is_gone_is_told_with_what_to_use_instead() -> None:
    instead = "delete it: worker.preload = app forks the next worker at once"
    assert told({"worker.spares": "1"}) == [f"worker.spares = 1: gone, does nothing; {instead}"]


def test_an_unknown_option_of_a_family_of_ours_is_told_with_those_it_has() -> None:
    known = (
        "worker.env_file, worker.preload, worker.preload_modules, worker.max_rss, worker.max_requests, worker.max_age, "
        "worker.websocket_spread"
    )
    assert told({"worker.count": "4"}) == [f"worker.count = 4: unknown option; known are {known}"]


@pytest.mark.parametrize(
    "key",
    [
        "my.own",
        "port",
        "restart",
        "worker_class",
        "numprocesses",
        "max_age",
        "hooks.before_start",
        "stdout_stream.filename",
        "rlimit_nofile",
        "__name__",
        "flapping.window",
    ],
)
def test_a_key_of_circus_or_of_the_users_own_is_nobodys_business(key: str) -> None:
    assert told({key: "5"}) == []


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), st.text() | st.floats() | st.integers() | st.none()))
def test_reading_never_raises_and_what_it_returns_can_be_kept(mapping: dict[str, object]) -> None:
    options, _ = parse_watcher(mapping)

    restart = options.restart
    RestartLimits(
        burst=restart.burst,
        window=restart.window,
        delay=restart.delay,
        delay_max=restart.delay_max,
        cooldown=restart.cooldown,
        reset_after=restart.reset_after,
    )


@given(
    st.fixed_dictionaries(
        {f"restart.{name}": st.floats(0.05, 31_536_000) for name in ("window", "delay", "delay_max", "cooldown")}
        | {"restart.burst": st.integers(1, 10_000)}
    )
)
def test_restart_options_that_pass_make_a_budget(mapping: dict[str, object]) -> None:
    options, _ = parse_watcher(mapping)

    RestartLimits(
        burst=options.restart.burst,
        window=options.restart.window,
        delay=options.restart.delay,
        delay_max=options.restart.delay_max,
        cooldown=options.restart.cooldown,
    )


def test_what_the_state_command_tells_reads_the_same_again() -> None:
    options, _ = parse_watcher({"worker.max_rss": "1G", "restart.window": "700"})

    assert parse_watcher(flat(options)) == (options, [])


def test_ours_are_the_four_families() -> None:
    assert all(map(is_ours, NAMES))
    assert is_ours("restart.brust")
    assert not any(map(is_ours, ("cmd", "hooks.before_start", "ports.x", "restart", "rlimit_nofile")))


def test_a_plugins_options_are_read_beside_those_of_circus() -> None:
    options, problems = parse_plugin(
        {"name": "plugin:xboard", "priority": "2", "active": "True", "log_dir": "/var/log/x", "ledger.keep_days": "7"}
    )

    assert problems == []
    assert flat(options) == {
        "log_dir": "/var/log/x",
        "ledger.file": "ledger.db",
        "ledger.keep_days": 7.0,
        "ledger.max_mb": 64,
        "alerts.down_after": 30.0,
        "alerts.recover_after": 30.0,
        "logs.keep_days": 7.0,
        "container.give_up_after": 0.0,
        "container.log": "file",
    }


def test_a_plugins_wrong_options_are_told() -> None:
    options, problems = parse_plugin({"ledger.file": "my events.db", "ledger.keepdays": "7", "logdir": "x"})

    assert options == PluginOptions()
    assert problems == [
        Problem(
            "ledger.file",
            "my events.db",
            "Circus breaks such a value apart on the plugin's command line",
            "use a path of plain letters",
        ),
        Problem("ledger.keepdays", "7", "unknown option", "did you mean ledger.keep_days?"),
        Problem("logdir", "x", "unknown option", "did you mean log_dir?"),
    ]


@pytest.mark.parametrize("kind", [WatcherOptions, PluginOptions])
def test_every_option_is_explained_and_its_example_is_valid(kind: type[WatcherOptions] | type[PluginOptions]) -> None:
    for option in documented(kind):
        name, value = option.name, option.example if option.default in (None, ()) else ini_text(option.default)
        problems = parse_watcher({name: value})[1] if kind is WatcherOptions else parse_plugin({name: value})[1]

        assert option.help.endswith(".")
        assert problems == []


def test_the_options_of_circus_are_those_that_its_watcher_takes() -> None:
    from circus.config import watcher_defaults
    from circus.watcher import Watcher

    taken = set(inspect.signature(Watcher.__init__).parameters) - {"self", "options"} | set(watcher_defaults())

    assert taken <= circus_options.WATCHER_OPTIONS


@pytest.mark.parametrize("between", [", ", ";", ",\t"])
def test_headers_may_have_commas_and_more_than_one_stands_behind_a_comma_or_semicolon(between: str) -> None:
    options, problems = parse_watcher({"health.headers": f"Accept: text/html, */*{between}X-Probe: 1"})

    assert problems == []
    assert options.health.headers == ("Accept: text/html, */*", "X-Probe: 1")
