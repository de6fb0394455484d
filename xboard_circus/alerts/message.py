"""One rendered alert for one sink, which can wait in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """What a sink is to deliver.

    Attributes:
        id: Stays the same through all tries, for whoever gets it twice after a lost answer.
        fold: A later message of the same fold takes the place of one that still waits; "" for none.
        document: What programs get.
    """

    id: str
    title: str
    text: str
    document: Mapping[str, Any]
    fold: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "id": self.id,
            "title": self.title,
            "text": self.text,
            "document": dict(self.document),
            "fold": self.fold,
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Message:
        """Return the message that `as_dict` made *data* of; KeyError or TypeError where it is none."""
        texts = {name: str(data[name]) for name in ("id", "title", "text", "fold")}
        return cls(**texts, document=dict(data["document"]))


class Sink(Protocol):
    """Where alerts go.

    Attributes:
        place: Where that is, in words without a secret.
    """

    @property
    def place(self) -> str: ...

    def deliver(self, message: Message) -> None:
        """Deliver *message*, or raise AlertError. Blocks no longer than the sink's time-out."""
