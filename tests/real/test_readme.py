"""README.md from top to bottom, as root and then as a plain user, in one checkout: its own commands and its own output.

What it names and docs/operations.md has, too, is run by test_operations*.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence

from .harness import eventually
from .machine import Machine
from .operations import OPERATIONS, ROOT, Checkout, all_commands
from .test_operations_service import checkout, host_of, plain_user, serves, state_of  # noqa: F401 - a fixture
from .test_users import open_folder, pytestmark, python  # noqa: F401 - fixtures, and the marks

PAGE = ROOT / "README.md"
TABLE = "Every day"
PLACE = "/srv/xboard"  # of the checkout, in what the page shows
BEGINNINGS = ("./", ".venv/bin/", "sudo ", "nohup ", "docker ", "cp ", "xboard-backend ")
# Run by the first reader alone.
ONCE = (
    "(sleep ",
    ".venv/bin/xboard-circus requests",
    "kill -STOP ",
    "sudo .venv/bin/xboard-circus service ",
    ".venv/bin/xboard-circus options",
)
START, STOP, SERVICE = ("./scripts/start_backend.sh start", "./scripts/start_backend.sh stop", "sudo ")
# Commands of the page that are run elsewhere, by how they begin.
ELSEWHERE = {
    ".venv/bin/xboard-circus logs -f": "test_operations.py, for a while",
    ".venv/bin/xboard-circus dashboard": "test_operations.py, without a browser",
    ".venv/bin/xboard-circus alerts test": "test_alerts.py",
    ".venv/bin/xboard-circus retry": "tests/unit/test_cli.py",
    ".venv/bin/xboard-circus top": "test_terminal.py",
    ".venv/bin/xboard-circus status --watch": "test_terminal.py",
    "nohup ./scripts/monitor_backend.sh &": "test_operations.py, with a log",
    "docker ": "test_operations_container.py, test_container_own_app.py",
    "pip install ": "scripts/prove_wheel.sh",
    "xboard-circus init --app ": "scripts/prove_wheel.sh",
    "xboard-circus start": "scripts/prove_wheel.sh",
    "xboard-circus init --docker ": "test_container_own_app.py",
    "./scripts/check.sh": ".ci/run",
    "./scripts/build.sh": "tests/test_packaging.py",
    "./scripts/soak.sh": "test_soak.py, twenty rounds",
    "./scripts/deaths.sh": "test_soak.py, sixty deaths",
    "./scripts/build_site.sh": "scripts/check.sh",
    "python3 scripts/bench.py": ".ci/run",
}


def typed() -> Iterator[tuple[str, list[str]]]:
    """Yield each command that the page tells one to type, in order, and the lines that it shows of the answer."""
    text = PAGE.read_text(encoding="utf-8")
    for part in re.split(r"^```", text, flags=re.MULTILINE):
        if part.startswith("console\n"):
            for each in part.partition("$ ")[2].split("\n$ "):
                command, *answer = each.splitlines()
                yield command.partition("  #")[0].rstrip(), [line for line in answer if line]
        else:
            yield from ((command, []) for line in part.splitlines() for command in in_text(line))


def in_text(line: str) -> Iterator[str]:
    """Yield the commands in a line of text or of the table, where the same program is named once."""
    program = ""
    for span in re.findall(r"`([^`]+)`", line.rsplit(" | ", maxsplit=1)[-1]):
        if line.startswith("| ") and program and not span.startswith(BEGINNINGS):
            span = f"{program} {span}"
        if span.startswith(BEGINNINGS if line.startswith("| ") else ("./scripts/", "python3 scripts/")):
            program = re.findall(r"(?:sudo )?\S+", span)[0]
            yield span


def is_elsewhere(command: str) -> bool:
    return command.startswith(tuple(ELSEWHERE)) or command in {each.text for each in all_commands(OPERATIONS)}


def here() -> dict[str, list[str]]:
    """Return the commands that are run here, each once, and what they show."""
    found: dict[str, list[str]] = {}
    for command, answer in typed():
        if answer or not is_elsewhere(command):
            found.setdefault(command, answer)
    return found


def shown(text: str) -> list[str]:
    """Return the lines of *text* without what differs from one run to the next."""
    numbered = re.sub(r"\d[\d.:-]*", "#", text)
    return [
        " ".join(re.sub(r"# (?:(?:min|h|d) #)? ?(?:ms|s|min|h)\b", "# s", line).split())
        for line in numbered.splitlines()
    ]


def missing(answer: str, lines: Sequence[str]) -> str | None:
    """Return the first of the *lines* of the page that *answer* has not, in their order; "..." stands for more."""
    rest = iter(shown(answer))
    for wanted in shown("\n".join(lines)):
        begins = wanted.removesuffix("...").rstrip()
        if not any(row == wanted or (row.startswith(begins) and begins != wanted) for row in rest):
            return wanted
    return None


class Reader:
    """Somebody who types what the page says, and checks what it shows."""

    def __init__(self, host: Machine, checkout: Checkout, enter: Sequence[str] = ()) -> None:  # noqa: F811
        self.host, self.checkout, self.enter = host, checkout, enter

    def type(self, command: str, answer: Sequence[str] = ()) -> str:
        """Run *command*, until it shows *answer*; what needs root is root's."""
        # How far a start has come is seen by chance.
        wanted = [line for line in answer if not line.startswith("xboard: ")]
        enter = () if command.startswith(SERVICE) else self.enter
        # In braces: of a list that goes on in the background, the shell of the whole list would hold our pipes.
        there = f"cd {self.checkout.folder} && PATH=$PWD/.venv/bin:$PATH && {{ {self.checkout.moved(command)}\n}}"

        def run() -> str:
            done = self.host.inside([*enter, "bash", "-c", there], timeout=300)
            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
            return f"{done.stdout}\n{done.stderr}".replace(str(self.checkout.folder), PLACE)

        said, give_up_at = run(), time.monotonic() + 60
        while (line := missing(said, wanted)) is not None:
            assert time.monotonic() < give_up_at, f"$ {command} does not show: {line}\n{said}"
            time.sleep(0.3)
            said = run()
        return said

    def chosen(self) -> int:
        """Return the pid of the backend's worker that has a request in flight, else of the one that is the oldest.

        On a new machine that is the one with the lowest pid.
        """
        if found := json.loads(self.type(".venv/bin/xboard-circus requests xboard --json")):
            return int(found[0]["pid"])
        watchers = json.loads(self.type(".venv/bin/xboard-circus status --json"))["watchers"]
        (xboard,) = (each for each in watchers if each["name"] == "xboard")
        return int(min(each["pid"] for each in xboard["workers"]))

    def follow(self, command: str, answer: Sequence[str]) -> str:
        """Type *command* as a reader would: with the pid and the folder that he has, and the patience that it takes."""
        command = command.replace("/opt/xboard", str(self.checkout.folder))
        if "kill -" not in command:
            one = f"{command} -n 0 tests/unit/test_durations.py"
            return self.type(one if command == "./scripts/test.sh" else command, answer)
        said, worker = "", self.chosen()
        for step in re.sub(r"(kill -\w+) \d+", rf"\1 {worker}", command).split("; "):
            if step.startswith("sleep "):
                eventually(
                    lambda: self.host.inside(["kill", "-0", f"{worker}"]).returncode, timeout=60, what="it is replaced"
                )
            else:
                said = self.type(step, answer if step == command.split("; ")[-1] else ())
        return said


def test_root_and_then_a_plain_user_follow_the_page_in_one_checkout(checkout: Checkout) -> None:  # noqa: F811
    """Given a stranger on the page's port, when root follows README.md and then a plain user does, twice, then each
    command does what it should and shows what the page shows: the service is active when the backend serves.
    """
    packages = checkout.folder / ".venv"
    shutil.copy(packages / ".installed-", packages / ".installed-test")
    ini = checkout.folder / "circus.ini"
    # A reader has the time for the usual ones.
    quick = "health.period = 0.5\nhealth.timeout = 1\n"
    ini.write_text(ini.read_text().replace("health.live_path", f"{quick}health.live_path", 1))
    said, token = "", checkout.folder / "dashboard.token"
    with host_of(checkout) as host:
        (host.folder / "bin" / "apt-get").symlink_to("/bin/false")  # a test installs nothing
        for turn, enter in enumerate(((), plain_user(checkout)) * 2):
            reader, is_running = Reader(host, checkout, enter), False
            if turn == 2:  # the service's user could make files in the folder: root was told so when it was removed
                reader.type(re.findall(r"`(chown -R root [^`]+)`", said)[-1].replace(PLACE, str(checkout.folder)))
            with contextlib.ExitStack() as stranger:
                for command, answer in here().items():
                    if turn > 0 and command.startswith(ONCE):
                        continue
                    if is_running and command.startswith(SERVICE):
                        reader.type(STOP)
                        is_running = False
                        token.write_text("")  # as a host that was reset may leave it
                        port = int(checkout.ports["8080"])
                        stranger.enter_context(socket.create_server(("127.0.0.1", port)))
                    if re.search(r" remove\b", command):
                        stranger.close()
                        eventually(
                            lambda: token.stat().st_size > 0, timeout=60, what="the page has its port and a token"
                        )
                    said += reader.follow(command, answer)
                    is_running = is_running or command == START
                    if re.search(r" install\b", command):
                        assert state_of(host) == "active"
                        assert serves(checkout)
        reader.type(START)
        reader.type(STOP)


def test_every_command_of_the_page_is_run() -> None:
    """Given the page, then what is said to be run elsewhere is still on it, and the first round runs what it has to."""
    commands = [command for command, _ in typed()]

    assert [start for start in ELSEWHERE if not any(command.startswith(start) for command in commands)] == []
    assert len(here()) > 12
