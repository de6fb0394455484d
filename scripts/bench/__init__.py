"""What `scripts/bench.py` measures with; nothing of it is part of the package."""
