import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from xboard_circus.core.sentences import Say
from xboard_circus.host import oom
from xboard_circus.host.oom import CGROUPS, HOST, OomKills, count_file_of, count_in, kill_like_others
from xboard_circus.supervisor.life import evidence

GROUP = Path("/group/memory.events")


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        pytest.param("0::/app/web", "app/web/memory.events", id="version 2"),
        pytest.param("4:cpu:/x\n3:memory,hugetlb:/app", "memory/app/memory.oom_control", id="version 1"),
        pytest.param("3:memory:/docker/abc", "memory/memory.oom_control", id="version 1 in a container"),
        pytest.param("0::/gone", "memory.events", id="version 2 in a container"),
        pytest.param("0::/gone\n1:name=systemd:/", None, id="none"),
    ],
)
def test_where_the_kernel_counts(tmp_path: Path, cgroup: str, file: str | None) -> None:
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text(cgroup)
    groups = tmp_path / "cgroup"
    groups.mkdir()
    if file is not None:
        (groups / file).parent.mkdir(parents=True, exist_ok=True)
        (groups / file).write_text("low 0\noom_kill 3\n")

    found = count_file_of(7, proc=tmp_path / "proc", cgroups=groups)

    assert found == (None if file is None else groups / file)
    assert found is None or count_in(found) == 3


def test_nothing_is_told_of_a_process_that_is_not_there(tmp_path: Path) -> None:
    assert count_file_of(7, proc=tmp_path) is None
    assert count_in(tmp_path / "none") is None


class Kernel:
    """Counts that a test sets; *group* is the cgroup's, None where it has none."""

    def __init__(self, group: int | None = 0, host: int | None = 0) -> None:
        self.counts = {GROUP: group, HOST: host}
        self.kills = OomKills(
            find=lambda pid: None if self.counts[GROUP] is None else GROUP, read=lambda path: self.counts[path]
        )

    def look(self, *pids: int) -> None:
        self.kills.look(pids)


def test_a_count_that_rose_tells_of_the_oom_killer() -> None:
    kernel = Kernel()
    kernel.look(1)
    kernel.counts[GROUP] = 1

    assert kernel.kills.killed(1) == "the kernel's OOM killer, oom_kill of its cgroup rose"


def test_one_kill_explains_one_death() -> None:
    kernel = Kernel(group=5)
    kernel.look(1, 2)
    kernel.counts[GROUP] = 6

    assert [bool(kernel.kills.killed(pid)) for pid in (1, 2)] == [True, False]


def test_a_count_that_did_not_rise_rules_it_out() -> None:
    kernel = Kernel(group=5)
    kernel.look(1)

    assert kernel.kills.killed(1) == ""


def test_a_kill_just_before_a_look_is_not_overlooked() -> None:
    kernel = Kernel()
    kernel.look(1)
    kernel.counts[GROUP] = 1
    kernel.look(1)

    assert kernel.kills.killed(1)


def test_a_look_at_one_that_died_and_was_not_reaped_yet_does_not_lose_its_group() -> None:
    """The kernel shows such a process at the top of all groups."""
    files, counts = [GROUP], {GROUP: 0, HOST: 0, CGROUPS / "memory" / "memory.oom_control": 0}
    kills = OomKills(find=lambda pid: files[0], read=lambda path: counts[path])
    for _ in range(2):
        kills.look([1])
    files[0] = CGROUPS / "memory" / "memory.oom_control"
    counts |= {GROUP: 1, HOST: 1}
    kills.look([1])

    assert kills.killed(1) == Say.OOM_OF_CGROUP()


TOP = CGROUPS / "memory" / "memory.oom_control"


def test_of_one_that_died_before_the_first_look_at_it_only_the_host_tells() -> None:
    """Given a worker that was not reaped yet at that look, so that the kernel shows it at the top of all groups.

    The kill is in the counts by then, and that of the top does not rise with those of its groups.
    """
    of_pid = {os.getpid(): GROUP, 1: GROUP, 2: TOP}
    counts = {GROUP: 0, HOST: 0, TOP: 0}
    kills = OomKills(find=of_pid.get, read=lambda path: counts[path])
    kills.look([1])
    counts |= {GROUP: 1, HOST: 1}
    kills.look([1, 2])

    assert kills.killed(2) is None


def test_the_group_of_circusd_is_known_before_the_first_worker() -> None:
    kernel = Kernel()
    kernel.look()
    kernel.look(1)
    kernel.counts[GROUP] = 1

    assert kernel.kills.killed(1) == Say.OOM_OF_CGROUP()


def test_a_kill_of_long_ago_explains_nothing() -> None:
    kernel = Kernel()
    kernel.look(1)
    kernel.counts[GROUP] = 1
    kernel.look(1)
    kernel.look(1)

    assert kernel.kills.killed(1) == ""


def test_without_a_cgroup_the_host_is_asked() -> None:
    kernel = Kernel(group=None)
    kernel.look(1)
    kernel.counts[HOST] = 1

    assert kernel.kills.killed(1) == "the kernel's OOM killer, oom_kill of the host rose"


def test_where_nobody_counts_nothing_is_known() -> None:
    kernel = Kernel(group=None, host=None)
    kernel.look(1)

    assert kernel.kills.killed(1) is None


def test_one_kill_explains_one_death_whosever_it_is() -> None:
    """Given two watchers in one cgroup, as they usually are, when its count rises by one, then one death is told."""
    kernel = Kernel()
    spawned: Any = [
        SimpleNamespace(pid=pid, rss=0, process=SimpleNamespace(_worker=psutil.Process())) for pid in (1, 2)
    ]
    supervisor: Any = SimpleNamespace(oom=kernel.kills, clock=lambda: 9.0, looked_at=0.0)
    supervisor.armed = {each.pid: SimpleNamespace(fleet=[each]) for each in spawned}
    evidence.look(supervisor)
    kernel.counts[GROUP] = 1

    told = [evidence.oom_of(kernel.kills, each, -signal.SIGKILL) for each in spawned]

    assert [bool(each) for each in told] == [True, False]


def test_the_count_of_the_host_proves_nothing_about_a_process_that_was_never_looked_at() -> None:
    """Where only the host counts, a kill elsewhere would explain the death of a worker too young to be known."""
    kernel = Kernel(group=None)
    kernel.look(1)
    kernel.counts[HOST] = 1

    assert kernel.kills.killed(2) is None
    assert kernel.kills.killed(1)


@pytest.mark.parametrize("group", [None, 0], ids=["only the host counts", "its cgroup counts too"])
def test_a_count_of_the_host_that_did_not_rise_rules_it_out_for_a_process_that_was_never_looked_at(
    group: int | None,
) -> None:
    """Given a worker that is killed before the first look at it, which comes within two seconds of its start."""
    kernel = Kernel(group=group, host=76)
    kernel.look()

    assert kernel.kills.killed(2) == ""


# words: how many processes, each the child of the last. Each prints its pid once it has all below it.
CHAIN = """
import subprocess, sys
left = int(sys.argv[1])
open("/proc/self/oom_score_adj", "w").write("1000")
below = [sys.executable, "-c", sys.argv[2], str(left - 1), sys.argv[2]]
child = subprocess.Popen(below, stdin=subprocess.PIPE) if left > 1 else None
print("here", flush=True)
sys.stdin.read()
if child: child.communicate()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an oom_score_adj")
def test_a_worker_that_serves_and_what_it_has_started_are_killed_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a worker with a child, a grandchild and so on, then all are put back; of very many, the first ones."""
    usual = adjustment(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", CHAIN, "4", CHAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        for _ in range(4):
            assert worker.stdout.readline() == "here\n"
        family = [worker.pid, *(each.pid for each in psutil.Process(worker.pid).children(recursive=True))]
        assert [adjustment(pid) for pid in family] == ["1000"] * 4

        monkeypatch.setattr(oom, "MOST_DESCENDANTS", 2)
        kill_like_others(worker.pid)
        assert [adjustment(pid) for pid in family] == [usual, usual, "1000", "1000"]
        monkeypatch.undo()
        kill_like_others(worker.pid)
        assert [adjustment(pid) for pid in family] == [usual] * 4
        worker.communicate()


def adjustment(pid: int) -> str:
    return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
