"""Requests a second, by wrk where it is installed, else by the load client, which is slower than what it measures."""

import asyncio
import re
import shutil
import subprocess

from tests.real.load import Load

SECONDS = 5
CONNECTIONS = 32


def requests_a_second(port: int, *, kept: bool) -> tuple[float, str]:
    """The figure, and what it was measured with or what went wrong."""
    url = f"http://127.0.0.1:{port}/"
    return _by_wrk(url, kept=kept) if shutil.which("wrk") else _by_load(url, kept=kept)


def _by_wrk(url: str, *, kept: bool) -> tuple[float, str]:
    headers = [] if kept else ["-H", "Connection: close"]
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *headers, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS + 30).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    errors = re.search(r"(Socket errors|Non-2xx)[^\n]*", text)
    return float(rate[1]) if rate else 0.0, f"wrk; {errors[0]}" if errors else "wrk"


def _by_load(url: str, *, kept: bool) -> tuple[float, str]:
    load = Load(url, rate=2000, connections=CONNECTIONS if kept else None, seconds=SECONDS)
    asyncio.run(load.drive())
    return load.answered / SECONDS, "load client at 2000/s, no wrk here"
