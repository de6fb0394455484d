"""Run a backend in a container: ``python -m xboard_circus.container`` as process 1, and ``... health`` as its check."""
