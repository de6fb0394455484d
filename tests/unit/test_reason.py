"""Reasons quote strangers; what comes out is one printable line."""

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xboard_circus.core.durations import seconds
from xboard_circus.core.reason import LARGEST, LONGEST, Reason, data_of, key_of, one_line, reason_in, with_say
from xboard_circus.core.sentences import Say
from xboard_circus.errors import XboardError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain", "plain", id="plain text stays"),
        pytest.param(" a\tb\r\nc ", "a b c", id="blanks and line ends become one blank"),
        pytest.param("\x1b[1;31mred\x1b[0m", "red", id="colours go"),
        pytest.param("a\x1b]0;title\x07b", "a ]0;title b", id="a terminal's title can't be set"),
        pytest.param("\udcff!", "!", id="bytes that are no text go"),
        pytest.param("\u3164we\u2800\ufe0fb", "we b", id="what no font shows is a blank"),
        pytest.param("⚠\ufe0f 🏳\ufe0f\u200d🌈 a\u200db", "⚠\ufe0f 🏳\ufe0f\u200d🌈 a b", id="what joins an emoji stays"),
        pytest.param("x" * 301, "x" * 297 + "...", id="too long is cut"),
        pytest.param("x" * 300, "x" * 300, id="just long enough isn't"),
        pytest.param("", "", id="nothing stays nothing"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert one_line(text) == expected


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_one_line_is_one_printable_line_and_stays_as_it_is(raw: bytes) -> None:
    line = one_line(raw.decode("utf-8", "surrogateescape"))

    assert (line.isprintable(), len(line) <= LONGEST, one_line(line)) == (True, True, line)


# --- the data of a reason ---

NESTED = Say.COUNTED(why=Say.EXITED_SAYING(code=3, line="x"), then=Say.THEN_COOL_AGAIN(wait=seconds(2.5)))


def test_a_reason_is_its_text_and_survives_as_data() -> None:
    data = json.loads(json.dumps(NESTED.as_data()))
    back = Reason.from_data(data)

    assert NESTED == 'exited with code 3: "x"; failed again: cooling down, next try in 2.5 s'
    assert (back, data_of(back)) == (NESTED, data)
    assert (key_of(back), back is not None and key_of(back.fields["why"])) == ("COUNTED", "EXITED_SAYING")


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(one_line(NESTED, 20), id="cut to a line"),
        pytest.param(str(NESTED), id="made a text"),
        pytest.param(str(XboardError(NESTED)), id="raised"),
        pytest.param(copy.deepcopy(NESTED), id="copied"),
        pytest.param(pickle.loads(pickle.dumps(NESTED)), id="pickled"),
        pytest.param(reason_in({"x": 1, **with_say(NESTED)}), id="sent"),
    ],
)
def test_the_data_stays_with_the_text(kept: str) -> None:
    assert data_of(kept) == NESTED.as_data()


def test_a_list_is_written_between_commas() -> None:
    held = Say.ENDED(processes=["7 (a)", "8 (b)"])

    assert (held, data_of(held)) == (
        "ended 7 (a), 8 (b)",
        {"key": "ENDED", "fields": {"processes": ["7 (a)", "8 (b)"]}},
    )


@pytest.mark.parametrize(
    "junk",
    [
        None,
        "COUNTED",
        [],
        {},
        {"key": "WELL_AGAIN"},
        {"key": ["WELL_AGAIN"], "fields": {}},
        {"key": "NOTHING_OF_OURS", "fields": {}},
        {"key": "__class__", "fields": {}},
        {"key": "WELL_AGAIN", "fields": {"more": 1}},
        {"key": "SICK", "fields": {}},
        {"key": "SICK", "fields": []},
        {"key": "SICK", "fields": {"why": None}},
        {"key": "SICK", "fields": {"why": float("nan")}},
        {"key": "SICK", "fields": {"why": [[1]]}},
        {"key": "SICK", "fields": {"why": ["x"] * 1000}},
        {"key": "SICK", "fields": {"why": {"key": "SICK", "fields": {}}}},
    ],
)
def test_junk_is_no_reason_and_the_text_counts(junk: object) -> None:
    assert Reason.from_data(junk) is None
    assert reason_in({"reason": "as it came", "say": junk}) == "as it came"


def test_a_reason_that_was_sent_is_in_the_words_of_this_version() -> None:
    assert reason_in({"reason": "anything", "say": {"key": "WELL_AGAIN", "fields": {}}}) == Say.WELL_AGAIN()


def test_what_nests_without_end_is_refused_where_it_comes_in() -> None:
    data: dict[str, object] = Say.WELL_AGAIN().as_data()
    for _ in range(5000):
        data = {"key": "SICK", "fields": {"why": data}}

    assert Reason.from_data(data) is None


def test_what_nests_too_deep_becomes_text_where_it_is_made() -> None:
    reason: Reason = Say.WELL_AGAIN()
    for _ in range(100):
        reason = Say.SICK(why=reason)

    assert Reason.from_data(reason.as_data()) is not None
    assert len(json.dumps(reason.as_data())) < 2 * LARGEST


def test_large_values_are_bounded() -> None:
    many = Say.PORT_HELD(holders=[Say.HOLDER(facts=["x" * 500] * 50, whose="\x1b[31m" + "y" * 500)] * 50)

    assert len(json.dumps(many.as_data())) < 2 * LARGEST
    assert "\x1b" not in json.dumps(many.as_data())


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["key", "SICK", "why"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.fixed_dictionaries(
                {
                    "key": st.sampled_from(["SICK", "COUNTED", "WELL_AGAIN"]) | inner,
                    "fields": st.dictionaries(st.sampled_from(["why", "then"]), inner, max_size=2),
                }
            )
        ),
    )
)
def test_from_data_takes_anything(data: object) -> None:
    found = Reason.from_data(data)

    assert found is None or Reason.from_data(json.loads(json.dumps(found.as_data()))) == found
