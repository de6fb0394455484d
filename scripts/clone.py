"""Let a script import from its checkout, which must be a clone of one's own."""

import subprocess
import sys
from pathlib import Path


def import_from(checkout: Path) -> None:
    """Add *checkout* to the end of Python's search path; leave as `test.sh` does where others may make files there.

    Root would run a `configparser.py` there; and at the end too one that Circus tries to import, such as `papa`.
    """
    if subprocess.run(["sh", "-c", '. "$0"; refuse_shared', checkout / "scripts" / "bootstrap.sh"]).returncode:
        sys.exit(1)
    sys.path.append(str(checkout))
