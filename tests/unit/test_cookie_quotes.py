"""Cookies are unquoted as Python does it, in less time."""

import http.cookies

from hypothesis import given
from hypothesis import strategies as st

from xboard_circus.worker.cookie_quotes import unquote

TEXTS = st.text(st.sampled_from('"\\\\0123789ab;\n'), max_size=20)


@given(TEXTS, st.booleans())
def test_a_cookie_is_unquoted_as_python_does_it(text: str, is_quoted: bool) -> None:
    value = f'"{text}"' if is_quoted else text

    assert unquote(value) == http.cookies._unquote(value)
