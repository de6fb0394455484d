"""Find which checks fail by what an app answers on a health path. The answer is a claim of the app."""

from collections.abc import Iterator, Mapping

LISTS = ("checks", "components", "entries", "results", "dependencies", "services")
STATES = ("status", "healthy", "ok")
TEXTS = ("reason", "detail", "error", "message", "output", "description")
WELL = frozenset({"ok", "up", "pass", "passed", "passing", "healthy", "ready", "alive", "true", "success", "warn"})
MOST = 3


def failed_checks(answer: object) -> str:
    """Return the checks that *answer*, read from JSON, names as failing, each with what it says; "" without any.

    It knows the maps and lists of Spring, ASP.NET, MicroProfile and `application/health+json`, and the text of
    FastAPI's errors.

    >>> failed_checks({"checks": {"database": "no answer within 2 s", "uploads": "ok"}, "reason": "see checks"})
    'database: no answer within 2 s'
    >>> failed_checks({"components": {"db": {"status": "DOWN"}, "disk": {"status": "UP"}}})
    'db: DOWN'
    >>> failed_checks({"checks": [{"name": "queue", "status": False}]}), failed_checks({"detail": "redis: refused"})
    ('queue', 'redis: refused')
    """
    if not isinstance(answer, Mapping):
        return ""
    found = [each for name in LISTS for each in _failing(answer.get(name))]
    return "; ".join([*found[:MOST], *(["..."] if found[MOST:] else [])]) or _text_of(answer)


def _failing(checks: object) -> Iterator[str]:
    if isinstance(checks, list):
        checks = {each.get("name"): each for each in checks if isinstance(each, Mapping)}
    for name, said in checks.items() if isinstance(checks, Mapping) else ():
        found = said[0] if isinstance(said, list) and said else said
        state = next((found[key] for key in STATES if key in found), None) if isinstance(found, Mapping) else found
        if isinstance(name, str) and isinstance(state, (str, bool)) and str(state).strip().lower() not in WELL:
            text = (_text_of(found) if isinstance(found, Mapping) else "") or (state if isinstance(state, str) else "")
            yield f"{name}: {text}" if text else name


def _text_of(answer: Mapping[object, object]) -> str:
    return next((text for name in TEXTS if isinstance(text := answer.get(name), str) and text.strip()), "")
