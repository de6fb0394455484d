"""Record the events of the watchers in a file that stays small and may fail without harm."""

from xboard_circus.ledger.database import LedgerError, LedgerTrouble
from xboard_circus.ledger.record import Record
from xboard_circus.ledger.store import MIB, LedgerStore

__all__ = ["MIB", "LedgerError", "LedgerStore", "LedgerTrouble", "Record"]
