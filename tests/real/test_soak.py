"""The programs beside this file that run for long, run for a short time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, timeout: float) -> str:
    result = subprocess.run(
        [sys.executable, "-m", f"tests.real.{words[0]}", *words[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2000:]
    return result.stdout


@pytest.mark.timeout(900)
def test_twenty_rounds_of_random_faults_and_commands_come_right() -> None:
    """Given circusd under 20 rounds of faults and commands, after each it answers, and all of its workers serve."""
    told = run("soak", "--rounds", "20", "--seed", "9", timeout=850)

    assert told.startswith("seed 9, 20 rounds\n")
    assert "all came right" in told


@pytest.mark.timeout(600)
def test_two_thousand_random_requests_end_no_process_and_leave_no_traceback() -> None:
    """Given junk for the page, private sockets, circusd, its bus and the sample app, then nothing ends or breaks."""
    told = run("fuzz", "--requests", "2000", "--seed", "9", timeout=550)

    assert "seed 9, 2000 requests" in told
    assert "no 5xx, no traceback, no process ended, circusd answers" in told


def test_the_deaths_are_counted_and_the_memory_is_told() -> None:
    """Given 60 deaths, when the memory is measured over them, circusd's and the plugin's figures are printed."""
    told = run("deaths", "--deaths", "60", "--workers", "4", timeout=300)

    counts = re.findall(r"(\d+) deaths, .*: circusd [\d.]+ MiB, plugin [\d.]+ MiB", told)
    assert max(map(int, counts)) >= 60, told
    assert len(re.findall(r"^(?:circusd|plugin): [+-][\d.]+ MiB per 1,000 deaths", told, re.MULTILINE)) == 2, told
