"""Go through the rows, run by run; a rival that fails in one is told of there, and the rest goes on."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.result import Found, Series
from bench.rivals import BARE, CLI, OURS, RIVAL
from bench.rows import Row
from bench.running import Never


def measure_all(rows: list[Row], rivals: list[str], runs: int) -> list[Series]:
    """Run by run and not row by row, so that what else the machine does meets every rival."""
    lines = {row.name: [Series(row.name, title, unit) for title, unit in row.lines] for row in rows}
    wanted = {*rivals, BARE, CLI} if OURS in rivals else set(rivals)
    todo = [
        (row, name) for run in range(runs) for row in rows if run < row.runs for name in row.rivals if name in wanted
    ]
    columns = (TextColumn("{task.description:50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(todo))
        for row, name in todo:
            progress.update(bar, description=f"{row.name}: {RIVAL[name].title}")
            if not has_settled(lines[row.name], name):
                add(lines[row.name], name, measure(row, name))
            progress.advance(bar)
    return [line for of_row in lines.values() for line in of_row]


def has_settled(lines: list[Series], name: str) -> bool:
    """Who never got there in the first run is not waited for in the next."""
    before = lines[0].found.get(name)
    return before is not None and before[0].value is None


def measure(row: Row, name: str) -> list[Found]:
    try:
        return row.measure(RIVAL[name])
    except Never as never:
        note = str(never)
    except Exception as error:  # the boundary of one measurement: the others are worth having without it
        note = f"failed: {type(error).__name__}: {error}"[:200]
    return [Found(None, note)] * len(row.lines)


def add(lines: list[Series], name: str, found: list[Found]) -> None:
    for line, one in zip(lines, found, strict=True):
        line.found.setdefault(name, []).append(one)
