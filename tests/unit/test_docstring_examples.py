"""The examples in docstrings are run, so that none of them shows what no longer is."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "xboard_circus"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE / "plugins").glob("*.py")]
    if ">>> " in path.read_text(encoding="utf-8")
)
assert MODULES


@pytest.mark.parametrize("name", MODULES)
def test_its_examples_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
