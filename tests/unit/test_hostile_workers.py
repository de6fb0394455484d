"""Whatever a worker answers on its private socket: the probe judges it, and nothing that follows stumbles over it."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from xboard_circus.core import sentences
from xboard_circus.core.state_names import Health
from xboard_circus.core.state_schema import Judgement, PathReport, WorkerReport, parse_judgements
from xboard_circus.plugins import _sightings
from xboard_circus.probe import Outcome, WorkerAnswer, _NoReport, _report

HEAD = b"HTTP/1.0 200 OK\r\n\r\n"
DEEP = json.loads("[" * 300 + "]" * 300)
SURROGATE = "\ud800"
HUGE = 10**400
SAYS = st.fixed_dictionaries(
    {
        "key": st.sampled_from([each.name for each in sentences.Say]) | st.text(),
        "fields": st.dictionaries(
            st.sampled_from(["timeout", "error", "why", "line", "status"]), st.deferred(lambda: ANY)
        ),
    }
)
ANY: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.sampled_from([HUGE, -HUGE, float("nan"), float("inf"), "text", SURROGATE, "x" * 9000, DEEP]),
        st.lists(ANY, max_size=3),
        st.dictionaries(st.text(max_size=5), ANY, max_size=3),
        SAYS,
    )
)
PATH = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(PathReport.__annotations__, ANY) | {"say": SAYS, "ok": st.just(False)}
)
FIELDS = dict.fromkeys(WorkerReport.__annotations__, ANY) | {"live": PATH | ANY, "ready": PATH | ANY}
REPORT = st.fixed_dictionaries({"pid": FIELDS.pop("pid")}, optional=FIELDS)
WORKER = (7, 70)
SIBLING = (8, 80)


def refusing(**say: Any) -> dict[str, Any]:
    return {"pid": 7, "live": {"ok": False, "refused": False, "status": 500, "reason": "no", **say}}


@settings(max_examples=100, deadline=None)
@example(refusing(say={"key": "NO_ANSWER_WITHIN", "fields": {"timeout": HUGE}}))
@example(refusing(body=SURROGATE, reason=SURROGATE))
@example({"pid": 7, "threads_limit": HUGE, "threads_used": "text", "lag": float("nan")})
@given(REPORT)
def test_an_answer_of_any_kind_harms_no_sibling(told: Any) -> None:
    try:
        report = _report(HEAD + json.dumps(told).encode())
    except _NoReport:  # too large, too deep, no pid
        return
    answer = WorkerAnswer(Outcome.REPORT, "", 1.0, 0.1, report)
    silent = WorkerAnswer(Outcome.SILENCE, "no answer", 1.0, 2.0)
    seen = {WORKER: _sightings.worker_sighting(answer), SIBLING: _sightings.worker_sighting(silent)}
    judged = [_sightings._judgement(each, Health.OK, each.observation.reason, True) for each in seen.values()]
    sent = json.dumps({"7": judged[0], "8": judged[1]}, allow_nan=False)
    taken: dict[int, Judgement] = parse_judgements(json.loads(sent))

    assert set(taken) == {7, 8}
    assert taken[8]["ok"] is False
    # What is kept of it can be written: into logs, the ledger, the page and the metrics.
    json.dumps(taken, ensure_ascii=False, allow_nan=False).encode("utf-8")
