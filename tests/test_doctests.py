"""Do the examples in docstrings give what they say?"""

import doctest
import importlib
import re

import pytest

from tests.test_imports import MODULES

EXAMPLES = [
    name
    for name, path in MODULES.items()
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_of_a_module_hold(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted and not results.failed
