"""Measure for `scripts/bench.py`; nothing of it is part of the package."""
