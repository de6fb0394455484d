"""Run the hooks of an armed watcher: the user's own first, then ours."""

from collections.abc import Callable
from typing import Any

from xboard_circus.core.reason import raised
from xboard_circus.core.sentences import Say

Hook = Callable[..., Any]


class ArmedHooks(dict[str, Hook]):
    """The hooks of a watcher with ours behind them: the user's run first, and may be set again at any time.

    Ours get the user's answer as *allowed*.

    Attributes:
        failed: Why each of the user's hooks failed last: it returned false, or raised.
    """

    def __init__(self, users: dict[str, Hook], ours: dict[str, Hook]) -> None:
        super().__init__(users)
        self.ours = ours
        self.failed: dict[str, str] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.ours or super().__contains__(name)

    def __getitem__(self, name: str) -> Hook:
        user, ours = self.get(name), self.ours.get(name)
        if user is None:
            return self.ours[name]

        def both(*args: Any, **kwargs: Any) -> Any:
            self.failed.pop(name, None)
            answer = False
            try:
                answer = user(*args, **kwargs)
                if not answer:
                    self.failed[name] = Say.HOOK_REFUSED(hook=name)
                return answer
            except Exception as error:
                self.failed[name] = Say.HOOK_RAISED(hook=name, error=raised(error))
                raise
            finally:
                if ours is not None:
                    ours(*args, **{**kwargs, "allowed": bool(answer)})

        return both
