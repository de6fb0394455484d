"""How much memory can be had, in control groups with and without a limit."""

from pathlib import Path

import psutil
import pytest

from xboard_circus.host import free_memory, oom


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group in which this process seems to be, without a limit."""
    folder = tmp_path / "above" / "group"
    folder.mkdir(parents=True)
    monkeypatch.setattr(oom, "count_file_of", lambda pid: folder / "memory.events")
    return folder


def limit(folder: Path, most: str, used: int, cached: int) -> None:
    (folder / "memory.max").write_text(most)
    (folder / "memory.current").write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")


def test_without_a_limit_it_is_what_the_host_has(group: Path) -> None:
    limit(group, "max", 10, 5)

    assert 0 < free_memory.available() <= psutil.virtual_memory().total


def test_the_narrowest_limit_counts(group: Path) -> None:
    limit(group, "1000", 300, 50)
    limit(group.parent, "900", 300, 50)

    assert free_memory.available() == 650


def test_what_the_kernel_throttles_beyond_is_a_limit(group: Path) -> None:
    """Given memory.high below memory.max, as MemoryHigh= of systemd sets it, then it is the limit."""
    limit(group, "1000", 300, 50)
    (group / "memory.high").write_text("500\n")
    limit(group.parent, "max", 300, 50)
    (group.parent / "memory.high").write_text("max\n")

    assert free_memory.available() == 250
