"""What circusd writes down of its life, with an arbiter that only knows how to stop."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from circus.exc import ConflictError

from xboard_circus.core.lost import CircusdLife
from xboard_circus.host import circusd_record, oom, procs, runtime
from xboard_circus.supervisor.bus.journal import Journal
from xboard_circus.supervisor.circusd_lifetime import SEEN_EVERY, Lifetime
from xboard_circus.supervisor.patches.circus_arbiter import stop
from xboard_circus.supervisor.supervisor import Supervisor

INSTANCE = "abc"


class Bench:
    """A supervisor of this process.

    Attributes:
        is_busy: Circus refuses to stop, as another command runs.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.is_busy = False
        self.armed: dict[str, Any]
        own = procs.Identity.of(os.getpid())
        assert own is not None
        self.identity = own
        self.arbiter = SimpleNamespace(stop=self._stop, evpub_socket=None, _stopping=False)
        found: Any = SimpleNamespace(
            instance=INSTANCE, identity=own, arbiter=self.arbiter, clock=lambda: self.now, journal=Journal(epoch="e")
        )
        self.armed = found.armed = {}
        found.publish = partial(Supervisor.publish, found)
        self.lifetime = Lifetime(cast(Supervisor, found), at_exit=lambda *_: None)
        stop(self.arbiter, ordered=self.lifetime.end_ordered, beside=lambda: "beside").install()

    def _stop(self) -> str:
        if self.is_busy:
            raise ConflictError("arbiter is already running")
        return "stopping"

    def tick_later(self) -> None:
        self.now += SEEN_EVERY
        self.lifetime.tick()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(tmp_path / "r"))
    return runtime.instance_dir(INSTANCE) / "life.json"


def is_ordered() -> bool | None:
    found = circusd_record.read(INSTANCE)
    return None if found is None else found.is_ordered


@pytest.mark.parametrize(("is_busy", "answer"), [(False, "stopping"), (True, "beside")])
def test_it_is_told_to_end_when_its_stop_begins_also_beside_a_command(file: Path, is_busy: bool, answer: str) -> None:
    bench = Bench()
    bench.is_busy = is_busy
    before = is_ordered()

    assert bench.arbiter.stop() == answer
    assert (before, is_ordered()) == (False, True)


def test_a_second_stop_is_refused(file: Path) -> None:
    bench = Bench()
    bench.is_busy = bench.arbiter._stopping = True

    with pytest.raises(ConflictError):
        bench.arbiter.stop()


def test_a_file_that_was_cleared_away_is_written_again(file: Path) -> None:
    bench = Bench()
    file.unlink()
    bench.lifetime.tick()
    assert not file.exists()

    bench.tick_later()

    assert is_ordered() is False


def test_a_record_of_another_containers_circusd_is_replaced_by_our_own(file: Path) -> None:
    """Given a second container on the same volume, whose circusd has written its own record, also with our pid."""
    bench = Bench()
    for pid in (bench.identity.pid, bench.identity.pid + 1):
        circusd_record.write(INSTANCE, CircusdLife(pid=pid, started=bench.identity.started + 1))
        bench.tick_later()

        found = circusd_record.read(INSTANCE)
        assert found is not None
        assert found[:2] == bench.identity

    circusd_record.amend(INSTANCE, bench.identity, next_ended=3)  # it is ours still, and keeps what others have added
    bench.tick_later()
    found = circusd_record.read(INSTANCE)
    assert found is not None
    assert found.next_ended == 3


def test_a_circusd_that_ends_leaves_the_record_to_the_other(file: Path) -> None:
    bench = Bench()
    bench.arbiter.stop()
    other = CircusdLife(pid=bench.identity.pid + 1, started=7)
    circusd_record.write(INSTANCE, other)

    bench.tick_later()

    found = circusd_record.read(INSTANCE)
    assert found is not None
    assert found[:2] == other[:2]


HOLDS = """
import sys
from xboard_circus.core.lost import CircusdLife
from xboard_circus.host import circusd_record
life = CircusdLife(pid=1, started=int(sys.argv[2]))
print(circusd_record.claim(sys.argv[1], life, None), flush=True)
sys.stdin.read()
"""


def test_a_circusd_that_serves_in_another_container_is_not_lost(file: Path) -> None:
    """Given a record whose pid is none of ours, and a process that holds its lock, or has ended."""
    gone, code = 999, [sys.executable, "-c", HOLDS, INSTANCE, "999"]
    record = CircusdLife(pid=2**22 + 1, started=gone, boot=circusd_record.boot(), workers={"web": {"a1": "7:1"}})
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "False\n"
        circusd_record.write(INSTANCE, record)
        beside = Bench().lifetime
        other.communicate()
    assert (beside.loss, beside.left) == (None, {})

    circusd_record.write(INSTANCE, record)
    after = Bench().lifetime

    assert after.loss is not None
    assert (after.loss.kind, after.left) == ("circusd_lost", record.workers)


def test_that_it_lives_is_the_time_of_the_file(file: Path) -> None:
    bench = Bench()
    os.utime(file, (50, 50))
    bench.tick_later()

    found = circusd_record.read(INSTANCE)
    assert found is not None
    assert found.seen > 50


def test_a_count_that_could_not_be_written_is_written_later(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's OOM kill must not look like circusd's own, because the disk was full when it was counted."""
    count = file.parent.parent / "vmstat"
    count.write_text("oom_kill 1\n")
    monkeypatch.setattr(oom, "HOST", count)
    bench = Bench()
    count.write_text("oom_kill 2\n")
    file.parent.chmod(0o777)  # which we refuse to write to
    bench.tick_later()
    file.parent.chmod(0o700)
    before = circusd_record.read(INSTANCE)

    bench.tick_later()

    found = circusd_record.read(INSTANCE)
    assert before is not None
    assert found is not None
    assert (before.kills[str(count)], found.kills[str(count)]) == (1, 2)


def test_where_nothing_can_be_written_nobody_is_taken_for_lost(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.mkdir()
    bench = Bench()
    bench.tick_later()
    assert caplog.text.count("the next one will not know of it") == 1

    # It could be written for a while, and no more when it is told to end.
    file.rmdir()
    bench.tick_later()
    assert is_ordered() is False
    file.parent.chmod(0o777)  # which we refuse to write to
    bench.arbiter.stop()
    file.parent.chmod(0o700)

    assert is_ordered() is None


def test_the_one_before_is_told_of_unless_it_lives_or_is_this_process(file: Path) -> None:
    bench = Bench()
    assert bench.lifetime.view() is None
    assert Bench().lifetime.view() is None

    circusd_record.write(
        INSTANCE, CircusdLife(pid=bench.identity.pid, started=bench.identity.started + 1, boot=circusd_record.boot())
    )
    view = Bench().lifetime.view()

    assert view is not None
    assert (view["was_told"], view["successor"]) == (False, bench.identity.pid)


def test_the_workers_that_serve_are_known_to_the_next_one_until_they_are_ended(file: Path) -> None:
    bench = Bench()
    bench.armed["web"] = serving("a1")
    bench.lifetime.tick()
    dead = circusd_record.read(INSTANCE)
    assert dead is not None
    circusd_record.write(INSTANCE, dead._replace(started=1))  # another process, which is gone

    following = Bench()
    following.armed["web"] = serving("b2")
    following.lifetime.tick()
    old, new = {"a1": "7:1 33"}, {"b2": "7:1 33"}
    assert (following.lifetime.left, workers()) == ({"web": old}, {"web": {**new, **old}})
    assert following.lifetime.graces == {"web": 40}

    following.lifetime.left.clear()
    following.lifetime.tick()
    assert workers() == {"web": new}


def test_what_is_no_token_or_process_in_the_record_leads_to_none(file: Path) -> None:
    found = {"../x": "8:1", "a1": "9:1 33", "b2": "junk", "c3": "5:1", "d4": "6:1 me"}
    record = CircusdLife(pid=7, started=1, boot=circusd_record.boot(), workers={"web": found})
    circusd_record.write(INSTANCE, record)
    assert workers() == {"web": {name: found[name] for name in ("a1", "b2", "c3", "d4")}}
    assert circusd_record.workers(INSTANCE) == {procs.Identity(9, 1): ("web", 33), procs.Identity(5, 1): ("web", None)}

    circusd_record.write(INSTANCE, record._replace(boot="another"))
    assert circusd_record.workers(INSTANCE) == {}

    older = json.loads(file.read_text())
    file.write_text(json.dumps({**older, "workers": {"web": ["../x", "a1"]}}))
    assert workers() == {"web": {"a1": ""}}


def serving(token: str) -> Any:
    fleet = [SimpleNamespace(token=token, pid=7, started=1, user=33)]
    return SimpleNamespace(fleet=fleet, watcher=SimpleNamespace(graceful_timeout=40))


def workers() -> Any:
    found = circusd_record.read(INSTANCE)
    return None if found is None else found.workers
