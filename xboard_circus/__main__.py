"""The command ``xboard-circus``, also as ``python -m xboard_circus``: loads the command line and runs it."""

import sys


def main() -> None:
    """Run the command line; a Ctrl-C while it is loaded, most of a short command's time, ends it as any other does."""
    try:
        from xboard_circus.cli import main as command_line
    except KeyboardInterrupt:
        print("xboard-circus: interrupted", file=sys.stderr)
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
