"""Run the command ``xboard-circus``, also as ``python -m xboard_circus``."""

import gc
import os
import signal
import sys
from types import FrameType

AGAIN_AFTER = 0.01
NOT_WITHIN = ("importlib.", "_frozen_importlib", "rich.live")


def pass_shared_folder_by() -> None:
    """Import nothing from the folder in which root types ``python -m xboard_circus``, if others may write there."""
    if os.geteuid() == 0 and not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
        found = os.stat(sys.path[0] or ".")
        if found.st_uid != 0 or found.st_mode & 0o022:
            del sys.path[0]


def open_missing() -> None:
    """Open /dev/null for a standard stream that is closed: the next file, such as a lock, would get its number."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; in the middle of an import, or of a picture of rich's, as soon as that is done.

    In a callback of the import Python would print the exception and go on, or end with another one. A picture that has
    half begun cannot be ended. A line that rich prints is no picture: its reader may never read.
    """
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(NOT_WITHIN):
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; a Ctrl-C during its import, most of a short command's time, ends it as any other does."""
    open_missing()
    gc.disable()  # until all is imported: a tenth of the time would go into the search for garbage
    try:
        from xboard_circus.cli import main as command_line
    except KeyboardInterrupt:
        print("xboard-circus: interrupted: nothing was done", file=sys.stderr)
        sys.exit(130)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as below nohup
        signal.signal(signal.SIGINT, interrupt)
    command_line()


if __name__ == "__main__":
    pass_shared_folder_by()
    main()
