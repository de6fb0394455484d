"""Record when a process of a start gets how far. As `sitecustomize` Python imports this first in each process."""

import os
import sys
import time

FILE = f"{os.environ['BENCH_FOLDER']}/stages"
MODULES = {"uvicorn", "starlette"}


def record(what: str) -> None:
    line = f"{os.getpid()} {what} {time.monotonic()} {time.process_time()}\n"
    with open(FILE, "a") as file:  # one short write: lines of several processes do not mix
        file.write(line)


def follow(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.fork" or (event == "import" and arguments[0] in MODULES):
        record(str(arguments[0]) if arguments else "forks")


record("begins")
sys.addaudithook(follow)
