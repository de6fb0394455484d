"""Draw docs/terminal.svg: a worker is killed, one hangs, all are reloaded, by a real backend.

`.venv/bin/python scripts/draw_terminal.py`, with the ports of circus.ini free, takes half a minute. The picture has the
commands and what they printed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from clone import import_from
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "terminal.svg"
TITLE = "A worker is killed, one hangs, all are reloaded; each is replaced"
COLUMNS = 112
WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""What rich has a reader's browser fetch; without it the picture uses a font of the reader's."""


def main() -> None:
    """Run the commands, and write the picture."""
    screen = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "xboard")
        (folder / "logs").mkdir(parents=True)
        shutil.copy(ROOT / "circus.ini", folder)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= {"COLUMNS": str(COLUMNS), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
        environment["XBOARD_RUNTIME_DIR"] = str(Path(place, "run"))
        environment.pop("NO_COLOR", None)

        def run(command: str, colours: str = "") -> str:
            variables = {**environment, "FORCE_COLOR": colours}
            return subprocess.check_output(["bash", "-c", command], cwd=folder, env=variables, text=True)

        def show(command: str, colours: str = "1") -> None:
            screen.print(Text.from_ansi(f"$ {command}\n{run(command, colours)}"))

        def worker(slot: int) -> Any:
            (found,) = json.loads(run("xboard-circus status xboard --json"))["watchers"]
            return next(each["pid"] for each in found["workers"] if each["slot"] == slot)

        run("xboard-circus start")
        try:
            show("xboard-circus status xboard")
            show(f"kill -9 {worker(1)}; sleep 3")
            show("xboard-circus why | head -9")
            hung = worker(2)
            show(f"kill -STOP {hung}; while kill -0 {hung} 2> /dev/null; do sleep 1; done")
            show("xboard-circus why | head -11")
            show("xboard-circus reload xboard", colours="")  # with them it shows each turn of a spinner
            show("xboard-circus status xboard")
        finally:
            run("xboard-circus stop")
    PICTURE.write_text(WEB_FONT.sub("", screen.export_svg(title=TITLE)), encoding="utf-8")


if __name__ == "__main__":
    import_from(ROOT)
    main()
