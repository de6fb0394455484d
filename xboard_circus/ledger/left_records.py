"""Keep records that could not be stored, such as on a full disk, for the recorder of the next circusd."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xboard_circus.host.runtime import read_private, write_whole
from xboard_circus.ledger.record import Record, record_of_row, row_of

MOST_CHARS = 1_000_000


def save(path: Path, records: Sequence[Record], *, now: float) -> int:
    """Save the newest of *records* that fit into `MOST_CHARS`, and return how many do not; OSError on a full disk."""
    texts, left = [], MOST_CHARS
    for record in reversed(records):
        text = json.dumps(row_of(record, now=now))
        left -= len(text) + 1
        if left < 1:
            break
        texts.append(text)
    write_whole(path, f"[{','.join(reversed(texts))}]")
    return len(records) - len(texts)


def load(path: Path) -> list[Record]:
    """Return the records that were saved; none of a file that is missing or not as `save` writes it."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        rows = json.loads(read_private(path, MOST_CHARS))
        return [each for row in rows if (each := record_of_row((None, *row)))]
    return []
