"""Read the native frames of a hung worker by py-spy, where it is installed: Python's own stacks end at a call of C."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from pathlib import Path

WITHIN = 2.0
MOST_CHARS = 20_000


async def native_frames(pid: int, within: float) -> str:
    """Return the frames of all threads of a process; "" where py-spy is missing, may not, or is late."""
    import shutil  # not above: most plugins see no hung worker

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if (program := shutil.which("py-spy", path=path)) is None:
        return ""
    try:
        process = await asyncio.create_subprocess_exec(
            program, "dump", "--native", "--pid", str(pid), stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except OSError:
        return ""
    try:
        said, _ = await asyncio.wait_for(process.communicate(), within)
    except (TimeoutError, asyncio.TimeoutError):
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return ""
    text = said.decode(errors="replace")
    return text[text.find("\nThread ") + 1 :][:MOST_CHARS] if "\nThread " in text else ""  # before that: its command
