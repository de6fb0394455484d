"""Small programs that a test starts, marked in their environment, and ended with all that they started."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xboard_circus.host.procs import Identity

from .processes import end_marked

MARK = "XBOARD_TEST_CHILDREN"
PROJECT = Path(__file__).parents[2]


class Child:
    """One started program, and what it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.output: IO[str] = process.stdout
        self.pid = process.pid
        identity = Identity.of(process.pid)
        assert identity is not None
        self.identity = identity

    def line(self) -> str:
        """Return the next line that it prints."""
        line = self.output.readline()
        assert line, f"{self.process.args!r} ended"
        return line.strip()

    def numbers(self) -> list[int]:
        return [int(word) for word in self.line().split()]

    def end(self) -> Identity:
        """Kill and reap it; return who it was."""
        self.process.kill()
        self.process.wait()
        return self.identity


class Children:
    """Starts programs; those in *source* run under this very Python and can import the project.

    A program that has nothing to do reads its stdin to the end: that comes with the end of its test, however it ends.
    """

    def __init__(self, stdin: int) -> None:
        self._stdin = stdin
        self.mark = uuid.uuid4().hex
        self.started: list[Child] = []

    def run(self, source: str, *words: object, **environ: str) -> Child:
        return self.start([sys.executable, "-c", source, *map(str, words)], environ)

    def start(
        self, argv: Iterable[str], environ: Mapping[str, str] = os.environ, pass_fds: tuple[int, ...] = ()
    ) -> Child:
        child = Child(
            subprocess.Popen(
                list(argv),
                stdin=self._stdin,
                stdout=subprocess.PIPE,
                text=True,
                cwd=PROJECT,
                pass_fds=pass_fds,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environ, MARK: self.mark},
            )
        )
        self.started.append(child)
        return child


@contextmanager
def children() -> Iterator[Children]:
    stdin, held = os.pipe()
    started = Children(stdin)
    try:
        yield started
    finally:
        end_marked(timeout=30.0, **{MARK: started.mark})
        for child in started.started:
            child.process.wait()
            child.output.close()
        os.close(stdin)
        os.close(held)
