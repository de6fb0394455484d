"""What can go wrong in a way that a person can put right: one tree, caught once per process.

The command line prints the message and ends with the exit code; a hook or a plugin logs it and goes on.
"""


class XboardError(Exception):
    """Something that a person can put right; the message says what and, where known, how.

    Attributes:
        exit_code: What the command line ends with: 1 told you why, 2 wrong usage.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OptionError(XboardError):
    """An option that can't be used; the message names file, section and option, and what to write instead."""


class PortError(XboardError):
    """A port that can't be had, or a host that is no address of this machine."""
