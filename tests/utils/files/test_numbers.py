"""What is a number in a text file, and what only Python takes for one?"""

import doctest
import math

import pytest

from utils.files import numbers
from utils.files.numbers import to_float, to_int


def test_the_examples() -> None:
    assert doctest.testmod(numbers) == (0, 2)


@pytest.mark.parametrize("text", ["1_000", "0x10", "١٢", "1,5", "", "1e", ".", "1 2", "½", "1.5f"])
def test_what_only_looks_like_a_number_is_none(text: str) -> None:
    for read in (to_float, to_int):
        with pytest.raises(ValueError, match="not a"):
            read(text)


@pytest.mark.parametrize("text", ["9" * 5000, "1.0", "1e3", "nan", "9" * 19])
def test_whole_numbers_fit_into_64_bits(text: str) -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        to_int(text)
    assert to_int("-" + "9" * 18) == -(10**18) + 1


def test_numbers_that_are_not_finite_are_told_from_no_numbers() -> None:
    assert [to_float(text) for text in ("inf", "-Infinity", "1e400", "9" * 5000)] == [
        math.inf,
        -math.inf,
        math.inf,
        math.inf,
    ]
    assert math.isnan(to_float("NaN"))


def test_a_long_word_that_is_no_number_is_refused_at_once() -> None:
    for word in ("9" * 10**6 + "x", "." * 10**6, "1." + "0" * 10**6 + "e", "-" + "1" * 10**6 + "_"):
        with pytest.raises(ValueError, match="not a number"):
            to_float(word)
