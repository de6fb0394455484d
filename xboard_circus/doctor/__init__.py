"""Examine the host and the backend, one topic a file; change nothing.

One module for each topic. A topic is a function of the `Case` that yields findings; each has its own thread and its
own deadline, so that a disk that hangs costs its own line and no more.
"""

from xboard_circus.doctor.examination import examine

__all__ = ["examine"]
