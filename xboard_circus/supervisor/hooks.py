"""The hooks of an armed watcher: the user's own, with ours behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = Callable[..., Any]


class ArmedHooks(dict[str, Hook]):
    """The hooks of a watcher with ours behind them: the user's run first, and may be set again at any time.

    Attributes:
        answers: What the user's hook said last, by its name; an exception counts as False.
    """

    def __init__(self, users: dict[str, Hook], ours: dict[str, Hook]) -> None:
        super().__init__(users)
        self.ours = ours
        self.answers: dict[str, bool] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.ours or super().__contains__(name)

    def __getitem__(self, name: str) -> Hook:
        user, ours = self.get(name), self.ours.get(name)
        if user is None:
            return self.ours[name]

        def both(*args: Any, **kwargs: Any) -> Any:
            self.answers[name] = False
            try:
                answer = user(*args, **kwargs)
                self.answers[name] = bool(answer)
                return answer
            finally:
                if ours is not None:
                    ours(*args, **kwargs)

        return both
