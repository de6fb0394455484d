"""Stand before FastAPI for workers of apps that do not use it: its import is two thirds of what a forkserver costs.

Forkservers of apps that use FastAPI import the real one.
"""

raise ModuleNotFoundError("no FastAPI for an app that does not use it; see tests/real/lean", name="fastapi")
