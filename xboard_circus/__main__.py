"""Run the command ``xboard-circus``, also as ``python -m xboard_circus``."""

import gc
import os
import sys


def pass_shared_folder_by() -> None:
    """Import nothing from the folder in which root types ``python -m xboard_circus``, if others may write there."""
    if os.geteuid() == 0 and not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
        found = os.stat(sys.path[0] or ".")
        if found.st_uid != 0 or found.st_mode & 0o022:
            del sys.path[0]


def main() -> None:
    """Run the command line; a Ctrl-C during its import, most of a short command's time, ends it as any other does."""
    gc.disable()  # until all is imported: a tenth of the time would go into the search for garbage
    try:
        from xboard_circus.cli import main as command_line
    except KeyboardInterrupt:
        print("xboard-circus: interrupted", file=sys.stderr)
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    pass_shared_folder_by()
    main()
