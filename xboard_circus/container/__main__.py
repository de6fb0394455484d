"""Run as the first process of a container: check the ini file, run circusd, end as circusd ends.

    python -m xboard_circus.container           run the backend; SIGTERM ends it, SIGHUP is a rolling reload
    python -m xboard_circus.container health    end with 0 where circusd answers and the backend serves

All logs go to stdout. Exit codes: 0 stopped, 1 given up or not started (the last line has the reason), or circusd's.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

USAGE = 2
INI = Path("circus.ini")


def main(arguments: Sequence[str]) -> int:
    """Parse the command line and run its command."""
    if list(arguments) not in ([], ["run"], ["health"]):
        print("usage: python -m xboard_circus.container [run | health]", file=sys.stderr)
        print("to run something else in the image: docker run -it --entrypoint sh IMAGE", file=sys.stderr)
        return USAGE
    ini = INI.absolute()
    if list(arguments) == ["health"]:
        # Here and not above, because each imports what the other does not need, and the check has to be quick.
        from xboard_circus.container.health_check import look

        return look(ini)
    from xboard_circus.container.run import run

    return run(ini)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
