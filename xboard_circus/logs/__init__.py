"""List the log files of one ini file, their last lines, and new lines.

Nothing here queries circusd, so it works when circusd is down. Only files that the ini names are ever opened.
"""

from xboard_circus.logs.files import LogFile, log_files
from xboard_circus.logs.follow import LogFollower
from xboard_circus.logs.lines import Line
from xboard_circus.logs.tail import tail

__all__ = ["Line", "LogFile", "LogFollower", "log_files", "tail"]
