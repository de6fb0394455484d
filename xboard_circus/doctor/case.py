"""Hold the ini file and circusd's answers, queried once for all topics."""

from pathlib import Path
from typing import NamedTuple

from xboard_circus.config import Config
from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.instance import Instance, Silent
from xboard_circus.snapshot import Snapshot


class Case(NamedTuple):
    """One instance at one moment.

    Attributes:
        instance: None where the ini cannot be read.
        snapshot: The answer of circusd; None without one.
        circusd: The process, answering or not.
        trouble: Why circusd gave no answer, if known.
        now: Wall-clock seconds.
    """

    config_file: Path
    now: float
    instance: Instance | None = None
    snapshot: Snapshot | None = None
    circusd: procs.Identity | None = None
    trouble: str = ""

    @property
    def config(self) -> Config | None:
        """Return the ini, None if it cannot be read."""
        return None if self.instance is None else self.instance.config

    @property
    def read_config(self) -> Config:
        """Return the ini; only a topic that needs it reads this."""
        if self.config is None:
            raise XboardError(self.trouble)
        return self.config

    @property
    def instance_id(self) -> str:
        """Return the name of the runtime folder."""
        return runtime.instance_id(self.config_file)


def open_case(config_file: Path, *, now: float) -> Case:
    """Read the ini file and query circusd; never raises for a fault of either."""
    instance = None
    try:
        instance = Instance(config_file)
        found = instance.find()
    except XboardError as error:
        return Case(config_file, now, instance, trouble=str(error))
    if isinstance(found, Silent):
        trouble = f"circusd (pid {found.identity.pid}) runs and does not answer: {found.why}"
        return Case(config_file, now, instance, circusd=found.identity, trouble=trouble)
    return Case(config_file, now, instance, found, None if found is None else found.identity)
