"""Which requests are for the dashboard and from its own pages."""

from __future__ import annotations

import pytest

from xboard_circus.core.origins import is_for_us, is_same_site


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("127.0.0.1:8080", True, id="an address in figures"),
        pytest.param("192.168.1.7", True, id="another one"),
        pytest.param("[::1]:8080", True, id="IPv6"),
        pytest.param("localhost:8080", True, id="localhost"),
        pytest.param("LOCALHOST.:8080", True, id="localhost, written otherwise"),
        pytest.param("ops.example.org", True, id="a name that the ini gives"),
        pytest.param("rebound.example", False, id="a stranger's name that points here"),
        pytest.param("127.0.0.1.evil.example", False, id="a name that looks like an address"),
        pytest.param("localhost.evil.example", False, id="a name that begins like localhost"),
        pytest.param("1.2.3.4@evil.example", False, id="no name at all"),
        pytest.param("", False, id="none"),
    ],
)
def test_is_for_us(host: str, expected: bool) -> None:
    assert is_for_us(host, ("ops.example.org",)) == expected


@pytest.mark.parametrize(
    ("origin", "fetch_site", "expected"),
    [
        pytest.param(None, None, True, id="curl"),
        pytest.param("http://127.0.0.1:8080", None, True, id="our page, an old browser"),
        pytest.param("http://127.0.0.1:8080", "same-origin", True, id="our page"),
        pytest.param("null", "same-origin", True, id="our page, which hides its address"),
        pytest.param("http://127.0.0.1:9999", None, False, id="another port of this host"),
        pytest.param("https://evil.example", None, False, id="another site, an old browser"),
        pytest.param("https://evil.example", "cross-site", False, id="another site"),
        pytest.param(None, "cross-site", False, id="another site that sends no origin"),
        pytest.param("http://127.0.0.1:8080", "same-site", False, id="another port, as the browser tells"),
        pytest.param("null", None, False, id="a sandboxed frame"),
        pytest.param("http://evil.example\\@127.0.0.1:8080", None, False, id="a trick"),
        pytest.param("https://ops.example.org", None, True, id="a name that the ini gives"),
    ],
)
def test_is_same_site(origin: str | None, fetch_site: str | None, expected: bool) -> None:
    names = ("ops.example.org",)

    assert is_same_site(host="127.0.0.1:8080", origin=origin, fetch_site=fetch_site, names=names) == expected
