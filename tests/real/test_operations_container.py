"""The commands of docs/operations.md that take a container engine: podman stands in for Docker."""

import shlex
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from .compose import files_that_can_be_open
from .containers import answers, build_flags, exists, image, podman
from .operations import ENGINE, OPERATIONS, Checkout, Command, commands

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(1800)

# Builds included.
LONGEST = 600
STARTS = ("docker run ", "docker-compose up ")


class Engine(Checkout):
    """A checkout whose `docker` and `docker-compose` are podman's, with names that nobody else has."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = f"xb{uuid.uuid4().hex[:10]}"
        port = self.ports["8000"]
        self.url = f"http://127.0.0.1:{port}"
        self.listen = f"127.0.0.1:{port}"
        self.stand_in("sudo", 'exec "$@"')
        flags = shlex.join(build_flags())
        self.stand_in("docker", f'if [ "$1" = build ]; then shift; set -- build {flags} "$@"; fi\nexec podman "$@"')
        self.stand_in("docker-compose", f'exec {sys.executable} -m podman_compose --project-name {self.name} "$@"')
        self.added |= {
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            # These go before what .env says.
            "XBOARD_IMAGE": self.name,
            "XBOARD_LISTEN": self.listen,
            "XBOARD_NOFILE": str(files_that_can_be_open()),
        }

    def moved(self, text: str) -> str:
        """Return *text* with names and a port that nobody else has: what is inside of the container stays."""
        if not text.startswith("docker"):
            return super().moved(text)
        return text.replace("-p 8000:", f"-p {self.listen}:").replace("xboard-backend", self.name)

    def containers(self) -> list[str]:
        """Return the ids of what was started here."""
        found = []
        for wanted in (f"name=^{self.name}$", f"label=io.podman.compose.project={self.name}"):
            found += podman("ps", "--all", "--filter", wanted, "--format={{.ID}}").stdout.split()
        return found


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    image()  # its layers are most of the one that the page builds
    made = Engine(tmp_path.resolve() / "xboard")
    yield made
    for number in made.containers():
        print(podman("logs", number, check=False).stdout)
        podman("rm", "--force", "--time=1", number)
    made.run(Command("docker-compose down --volumes"))
    if exists(made.name):
        podman("rmi", podman("image", "inspect", made.name, "--format={{.Id}}").stdout.strip())
    shutil.rmtree(made.runtime, ignore_errors=True)


def test_each_command_that_takes_a_container_engine_does_what_it_says(engine: Engine) -> None:
    """Given a fresh checkout, when the page is followed, then no command fails, and what was started serves."""
    for command in commands(OPERATIONS, ENGINE):
        done = engine.run(command, timeout=LONGEST)
        assert done.returncode == 0, f"$ {command.text}\n{done.stdout}{done.stderr}"
        if command.text.startswith(STARTS):
            answers(f"{engine.url}/health/ready", within=120)
        elif " logs " in command.text:
            assert "Application startup complete" in done.stdout + done.stderr

    assert engine.containers() == []
    assert (engine.folder / "xboard.db").stat().st_size > 0
