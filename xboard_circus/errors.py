"""Define the errors that a person can cure: one tree, caught once per process.

The command line prints the message and ends with the exit code; a hook or a plugin logs it and goes on.
"""

import shlex


class XboardError(Exception):
    """An error that a person can cure; the message gives the cause and, if known, the cure.

    Attributes:
        exit_code: Exit code of the command line: 1 failed, 2 wrong usage.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Command(str):
    """Cure that changes files, processes or the firewall, with quoted *paths*; see `checks.host_rules.advice`."""

    def __new__(cls, text: str, *paths: object) -> "Command":
        return super().__new__(cls, text.format(*(shlex.quote(str(path)) for path in paths)) if paths else text)


class OptionError(XboardError):
    """An option that cannot be used; the message names file, section and option, and what to write instead."""


class PortError(XboardError):
    """A port that cannot be bound, or a host that is no address of this machine."""
