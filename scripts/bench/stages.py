"""Record when a Python process of a start begins, imports a module of a stage, and starts another process.

Python imports it as its ``sitecustomize``.
"""

import os
import sys
import time
from typing import Any

MARKS = frozenset({"xboard_circus.plugins.guard", "uvicorn", "fastapi", "socket.bind", "subprocess.Popen", "os.fork"})


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Take an audit event, and append its instant to the file of its name, as the app does."""
    name = arguments[0] if event == "import" else event
    if name in MARKS or event == "python":
        with open(f"{os.environ['BENCH_FOLDER']}/{name}", "a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")


note("python", ())
sys.addaudithook(note)
