"""What a container runs: ``python -m xboard_circus.container`` first of all, and ``... health`` to check on it."""
