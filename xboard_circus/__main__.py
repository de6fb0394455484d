"""``python -m xboard_circus`` is the command ``xboard-circus``."""

from xboard_circus.cli import main

if __name__ == "__main__":
    main()
