"""Alerts of a real circusd with a broken backend, to servers that refuse, hang and fail."""

# ruff: noqa: RUF001 - Chinese has marks of its own

import json
import signal
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import trustme
from circus.exc import CallError

from .alert_servers import HookServer, MailServer, hook_server, mail_server
from .free_ports import stranger
from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, crowding, eventually, holds, kill

TOKEN, PASSWORD = "T0-s3cr3t-t0k3n", "p4ssw0rd-of-the-test"
WEB = Watcher(options={**FAST_RESTARTS, "restart.reset_after": 0.5, "health.period": 0.3, "health.timeout": 2})
QUICK = {"alerts.down_after": 1, "alerts.recover_after": 0.3}
SOON = 90.0


@contextmanager
def alerting(
    folder: Path,
    alerts: Mapping[str, Mapping[str, object]],
    *,
    watchers: tuple[Watcher, ...] = (WEB,),
    plugins: Mapping[str, str] = BUNDLE,
    env: Mapping[str, str] | None = None,
) -> Iterator[Circusd]:
    """A circusd with these ``[alert:...]`` sections, its plugin ready to alert."""
    with circusd(folder, watchers=watchers, plugins=plugins, env=env, start=False) as c:
        c.write_ini(**sections(alerts), **{f"plugin__{name}": QUICK for name in plugins})
        c.start_again()
        for watcher in watchers:
            c.wait_ready(name=watcher.name)
        for name in alerts:
            eventually(lambda name=name: f"alert:{name}: sends" in plugin_log(c), timeout=SOON, what="it is ready")  # type: ignore[misc]
        yield c


def sections(alerts: Mapping[str, Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    return {f"alert__{name}": lines for name, lines in alerts.items()}


def plugin_log(c: Circusd) -> str:
    return "".join(path.read_text() for path in sorted((c.folder / "logs").glob("plugin-*.log")))


def secret(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return name


def hook_section(folder: Path, hook: HookServer, **more: object) -> dict[str, object]:
    name = secret(folder, "hook-url", f"{hook.url}/{TOKEN}")
    return {"type": "webhook", "url_file": name, "timeout": 1, **more}


def told(hook: HookServer, about: str = "") -> list[dict[str, Any]]:
    """The documents that a webhook has taken."""
    found = [json.loads(got.body) for got in hook.taken]
    return [each for each in found if about in ("", each["event"])]


def names(documents: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["watcher"], each["kind"], each["event"]) for each in documents]


def mended(c: Circusd) -> None:
    c.set("boot", "")
    c.wait_ready(timeout=SOON)


class RoundAges:
    """The age of the prober's last round, and the largest `crowding`, looked at all along from another thread."""

    def __init__(self, c: Circusd) -> None:
        self.ages: list[float] = []
        self.crowded = 1.0
        self._c = c
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "RoundAges":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            try:
                self.ages += [prober["round_age"] for prober in self._c.state()["probers"]]
                self.crowded = max(self.crowded, crowding())
            except CallError:
                continue


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def mail_section(folder: Path, server: MailServer) -> dict[str, object]:
    return {
        "type": "email",
        "host": "localhost",
        "port": server.port,
        "user": "alerts",
        "password_env": "PASSWORD_OF_THE_TEST",
        "ca_file": folder / "ca.pem",
        "sender": "alerts@example.org",
        "to": "ops@example.org",
        "timeout": 1,
    }


def subjects(mails: list[Message]) -> list[str]:
    # Python's parser keeps the space of a line that was folded before the first word.
    return [str(mail["subject"]).lstrip() for mail in mails]


def test_servers_that_refuse_hang_and_fail_get_each_alert_once_and_slow_nothing(
    tmp_path: Path, tls: ssl.SSLContext
) -> None:
    """Given both servers closed and a backend that dies at import; when they open, hang, fail and then take it;
    then each alert came once by each way, the probes never stopped, and another watcher's dead worker was replaced."""
    other = Watcher(name="other", options={**WEB.options})
    with ExitStack() as stack:
        hook = stack.enter_context(hook_server("hang", "500", opened=False))
        post = stack.enter_context(mail_server("hang", "451 not now", opened=False, tls=tls, password=PASSWORD))
        # Not "unhealthy": a machine under load may be too slow for a probe.
        wanted = "down, crash_loop"
        alerts = {
            "hook": hook_section(tmp_path, hook, on=wanted),
            "mail": {**mail_section(tmp_path, post), "on": wanted},
        }
        env = {"PASSWORD_OF_THE_TEST": PASSWORD}
        c = stack.enter_context(alerting(tmp_path, alerts, watchers=(WEB, other), env=env))
        rounds = stack.enter_context(RoundAges(c))
        answers = stack.enter_context(c.answering(within=3))
        assert answers is None

        c.set("boot", "die")
        for pid in c.workers():
            kill(pid)
        for name in alerts:
            eventually(
                lambda name=name: f"alert:{name}: not delivered: Connection refused" in plugin_log(c),  # type: ignore[misc]
                timeout=SOON,
                what="the closed server is found closed",
            )
        hook.open()
        post.open()
        eventually(lambda: hook.got and post.got, timeout=SOON, what="the hanging servers are tried")
        before = c.last_told()
        kill(c.workers("other")[0])
        c.wait_ready(name="other", timeout=SOON)
        assert c.told("restart", "other", after=before)
        eventually(lambda: ("web", "down", "problem") in names(told(hook)), timeout=SOON, what="the webhook is told")
        mended(c)
        eventually(lambda: ("web", "down", "recovered") in names(told(hook)), timeout=SOON, what="and of the end")
        eventually(
            lambda: ("web", "crash_loop", "recovered") in names(told(hook)), timeout=SOON, what="the loop's end is told"
        )
        eventually(lambda: len(post.taken) == len(hook.taken), timeout=SOON, what="as many mails as posts")
        holds(lambda: len(post.taken) == len(hook.taken) == 4, seconds=2, what="nothing comes twice")

        documents = told(hook)
        assert Counter(names(documents)) == Counter(
            {("web", kind, event): 1 for kind in ("crash_loop", "down") for event in ("problem", "recovered")}
        )
        assert len({each["id"] for each in documents}) == 4
        assert Counter(subjects(post.taken)) == Counter(each["title"] for each in documents)
        assert [got.how for got in hook.got][:2] == ["hang", "500"]
        assert [how for how, _, _ in post.got][:2] == ["hang", "451 not now"]
        # What was tried again was the same one, for whoever gets it twice.
        assert len({got.headers["idempotency-key"] for got in hook.got[:3]}) == 1
        assert max(rounds.ages) < 5 * rounds.crowded, f"the probes stood still for {max(rounds.ages)} s"
        down = next(each for each in documents if each["kind"] == "down" and each["event"] == "problem")
        assert down["next"] == f"xboard-circus -c {c.ini} why web"
        assert down["severity"] == "critical"
        assert "told to die at import" in down["reason"]
        assert_nothing_leaks(c, TOKEN, PASSWORD)


def assert_nothing_leaks(c: Circusd, *secrets: str) -> None:
    outputs = [c.run_cli("check"), c.run_cli("check", "--json"), c.run_cli("alerts", "list"), c.run_cli("status")]
    shown = [text for run in outputs for text in (run.stdout, run.stderr)]
    shown += [json.dumps(c.state()), *(process.command for process in c.processes())]
    shown += [path.read_text(errors="replace") for path in (c.folder / "logs").iterdir()]
    shown += [path.read_text(errors="replace") for path in c.runtime.rglob("*.json")]
    for text in shown:
        assert not [each for each in secrets if each in text], text


def test_an_alert_in_chinese_carries_a_chinese_reason(tmp_path: Path) -> None:
    """Given lang = zh, when a port is taken and a worker crashes, then circusd's reasons arrive in Chinese."""
    late = Watcher(name="late", numprocesses=1, options={**WEB.options, "port.retry": 0.3})
    with (
        hook_server() as hook,
        stranger(late.port, tmp_path) as holder,
        circusd(tmp_path, watchers=[WEB, late], plugins=BUNDLE, start=False) as c,
    ):
        c.write_ini(alert__hook=hook_section(tmp_path, hook, on="port_refused, restart", lang="zh"))
        c.start_again()
        c.wait_ready()
        (taken,) = eventually(lambda: told(hook), timeout=SOON, what="the held port is told")
        assert taken["reason"].startswith(f"占用者是进程 {holder.pid} ("), taken["reason"]
        assert taken["reason"].endswith("：与本实例无关")
        assert f"原因：{taken['reason']}" in taken["text"]

        c.tell(c.workers()[0], "signal 11")
        crashed = eventually(lambda: told(hook)[1:2], timeout=SOON, what="the crash is told")[0]
        assert (crashed["reason"], crashed["say"]["key"]) == ("因 SIGSEGV 终止", "DIED")


def test_a_hung_worker_and_a_held_port_are_told_and_so_is_their_end(tmp_path: Path) -> None:
    late = Watcher(name="late", numprocesses=1, options={**WEB.options, "port.retry": 0.3})
    with (
        hook_server() as hook,
        stranger(late.port, tmp_path) as holder,
        circusd(
            tmp_path,
            watchers=[WEB, late],
            plugins={"alerts": "xboard_circus.plugins.alerts.Alerts", **BUNDLE},
            start=False,
        ) as c,
    ):
        c.write_ini(alert__hook=hook_section(tmp_path, hook, on="port_refused, unhealthy"), plugin__alerts=QUICK)
        c.start_again()
        c.wait_ready()
        (refused,) = eventually(lambda: told(hook), timeout=SOON, what="the held port is told")
        assert (refused["watcher"], refused["kind"], refused["severity"]) == ("late", "port_refused", "critical")
        assert str(holder.pid) in refused["reason"]

        c.tell(c.workers()[0], "block 600")
        unhealthy = eventually(lambda: told(hook)[1:2], timeout=SOON, what="the hung worker is told")[0]
        assert (unhealthy["watcher"], unhealthy["kind"]) == ("web", "unhealthy")
        recovered = eventually(lambda: told(hook, "recovered"), timeout=SOON, what="its end is told")[0]
        assert (recovered["watcher"], recovered["kind"]) == ("web", "unhealthy")
        assert recovered["seconds"] > 0

        holder.signal(signal.SIGKILL)
        eventually(lambda: ("late", "port_refused", "recovered") in names(told(hook)), timeout=SOON)
        holds(lambda: len(told(hook)) == 4, seconds=1.5, what="one plugin alone tells, and once")


def test_a_plugin_that_is_killed_tells_nothing_twice_and_forgets_nothing(tmp_path: Path) -> None:
    """Given an alert that was told and one that waits; when the plugin is killed; then the next one sends the rest."""
    with hook_server() as hook, hook_server(opened=False) as closed:
        alerts: dict[str, Mapping[str, object]] = {"hook": hook_section(tmp_path, hook, on="down")}
        url = secret(tmp_path, "closed-url", f"{closed.url}/{TOKEN}")
        alerts["closed"] = {"type": "webhook", "url_file": url, "timeout": 1, "on": "down"}
        with alerting(tmp_path, alerts) as c:
            c.set("boot", "die")
            for pid in c.workers():
                kill(pid)
            eventually(lambda: told(hook), timeout=SOON)
            eventually(lambda: "alert:closed: not delivered" in plugin_log(c), timeout=SOON)
            eventually(
                lambda: "reports down; 1 not delivered yet: Connection refused" in c.run_cli("alerts", "list").stdout,
                timeout=SOON,
                what="the command line says what waits",
            )
            before = c.plugin("xboard")
            kill(before.pid)
            eventually(lambda: c.plugin("xboard").pid != before.pid, timeout=SOON)
            closed.open()
            eventually(lambda: told(closed), timeout=SOON, what="what waited is sent by the next plugin")
            mended(c)
            for server in (hook, closed):
                eventually(lambda server=server: told(server, "recovered"), timeout=SOON)  # type: ignore[misc]
                assert names(told(server)) == [("web", "down", "problem"), ("web", "down", "recovered")]
                assert len({each["since"] for each in told(server)}) == 1


def test_a_circusd_that_does_not_answer_is_told_by_its_plugin(tmp_path: Path) -> None:
    with hook_server() as hook, alerting(tmp_path, {"hook": hook_section(tmp_path, hook, on="silent")}) as c:
        c.past[-1].signal(signal.SIGSTOP)
        try:
            (silent,) = eventually(lambda: told(hook, "problem"), timeout=SOON, what="the silence is told")
        finally:
            c.past[-1].signal(signal.SIGCONT)
        assert (silent["watcher"], silent["kind"], silent["severity"]) == ("circusd", "silent", "critical")
        assert silent["reason"].startswith("circusd has not answered for ")
        assert f"Its workers still answer on :{c.watchers['web'].port} (2 alive)" in silent["text"]
        eventually(lambda: names(told(hook, "recovered")) == [("circusd", "silent", "recovered")], timeout=SOON)


def test_what_the_ini_says_anew_counts_without_a_restart(tmp_path: Path) -> None:
    with hook_server() as hook, alerting(tmp_path, {}) as c:
        c.write_ini(alert__hook=hook_section(tmp_path, hook, min_severity="info"), plugin__xboard=QUICK)
        eventually(lambda: "alert:hook: sends" in plugin_log(c), timeout=SOON)
        kill(c.workers()[0])
        eventually(lambda: len(told(hook)) == 2, timeout=SOON)
        assert names(told(hook)) == [("web", "restart", "problem"), ("web", "restart", "recovered")]


def test_the_command_line_tries_every_sink(tmp_path: Path) -> None:
    program = tmp_path / "notify"
    program.write_text('#!/bin/sh\ncat > "$1"\n')
    program.chmod(0o700)
    with hook_server("500", "200") as hook, circusd(tmp_path, start=False) as c:
        alerts: dict[str, Mapping[str, object]] = {"hook": hook_section(tmp_path, hook)}
        alerts |= {"run": {"type": "command", "command": "./notify got.json"}}
        c.write_ini(**sections(alerts), plugin__xboard={"use": BUNDLE["xboard"]})

        first = c.run_cli("alerts", "test")
        second = c.run_cli("alerts", "test", "hook")
        unknown = c.run_cli("alerts", "test", "hok")
        listed = c.run_cli("alerts", "list")

    assert (first.returncode, first.stdout) == (1, "hook: not delivered: answered 500: no luck at ***\nrun: ok\n")
    assert json.loads((tmp_path / "got.json").read_text())["event"] == "test"
    assert (second.returncode, second.stdout) == (0, "hook: ok\n")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "there is no [alert:hok]; did you mean hook?" in unknown.stderr
    assert listed.stdout == (
        f"hook: webhook (json), its address from file {c.folder}/hook-url; reports warning and worse\n"
        "run: command ./notify; reports warning and worse\n"
    )


def test_a_watcher_that_is_set_to_no_workers_looks_well_nowhere(tmp_path: Path) -> None:
    """Given a webhook, when the last worker is taken away by circusctl decr, then status, doctor and webhook say so;
    when one is added again, then it is over."""
    with hook_server() as hook, alerting(tmp_path, {"hook": hook_section(tmp_path, hook)}) as c:
        assert c.run_circusctl("decr", "web", str(WEB.numprocesses), "--waiting").returncode == 0
        eventually(lambda: told(hook, "problem"), timeout=SOON)
        shown, found = c.run_cli("status").stdout, c.run_cli("doctor").stdout

        assert names(told(hook)) == [("web", "down", "problem")]
        for text in (told(hook)[0]["reason"], shown, found):
            assert "set to 0 workers, so nothing answers" in text
            assert "`xboard-circus scale web 1` starts one" in text
        assert "error: circusd: web: stopped: set to 0 workers" in found

        assert c.run_circusctl("incr", "web", "--waiting").returncode == 0
        eventually(lambda: told(hook, "recovered"), timeout=SOON)
        assert names(told(hook)) == [("web", "down", "problem"), ("web", "down", "recovered")]


def test_an_operators_stop_ends_the_loop_of_a_watcher_without_a_guard(tmp_path: Path) -> None:
    """Given a crash loop that the limiter has stopped for its cooldown, when an operator stops it too, then the alert
    ends, and the limiter starts it no more."""
    loops = Watcher(
        name="loops",
        numprocesses=1,
        armed=False,
        listens=False,
        command="/bin/false",
        options={"restart.burst": 2, "restart.window": 60, "restart.cooldown": 5, "restart.delay": 1},
    )
    with hook_server() as hook, circusd(tmp_path, watchers=[WEB, loops], plugins=BUNDLE, check_delay=0.5) as c:
        c.stop()
        c.write_ini(**sections({"hook": hook_section(tmp_path, hook)}), plugin__xboard=QUICK)
        c.start_again()
        c.wait_ready()
        eventually(lambda: ("loops", "crash_loop", "problem") in names(told(hook)), timeout=SOON)
        eventually(lambda: c.status("loops") == "stopped", timeout=SOON, what="the limiter has stopped it")
        before = len(told(hook, "stopped"))

        assert c.run_circusctl("stop", "loops").returncode == 0

        eventually(lambda: ("loops", "crash_loop", "stopped") in names(told(hook, "stopped")), timeout=SOON)
        assert before == 0
        holds(lambda: c.status("loops") == "stopped", seconds=7, what="the limiter leaves it alone")
