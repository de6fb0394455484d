"""Which requests are for the dashboard and from its own pages."""

import pytest

from xboard_circus.core.origins import is_for_us


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
