"""Look at everything that keeps a backend from running well on this host; change nothing.

One module for each topic. A topic is a function of the `Case` that yields diagnoses; each has its own thread and its
own deadline, so that a disk that hangs costs its own line and no more.
"""

from __future__ import annotations

from xboard_circus.doctor.diagnosis import Diagnosis, Level
from xboard_circus.doctor.examination import examine

__all__ = ["Diagnosis", "Level", "examine"]
