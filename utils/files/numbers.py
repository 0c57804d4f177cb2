"""Which words are numbers? One answer for every text file that is read.

Python's `int` and `float` also take `1_000`, digits of other scripts and texts of any length; other
programs that read the same files do not.
"""

import re

# Each digit can match in one way alone, or a long word that is no number would take minutes.
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)  # fits into 64 bits


def to_float(text: str) -> float:
    """A decimal number, `nan` or `inf`, blanks around it aside.

    >>> to_float(" 1.5e3"), to_float("-.5"), to_float("1e999"), to_float("nan")
    (1500.0, -0.5, inf, nan)

    Raises:
        ValueError: it is none, such as `1_000`, `0x10` or `1,5`.
    """
    word = text.strip()
    if not (NUMBER.fullmatch(word) or NOT_FINITE.fullmatch(word)):
        raise ValueError("not a number")
    return float(word)


def to_int(text: str) -> int:
    """A whole number of at most 18 digits, blanks around it aside.

    >>> to_int(" +12"), to_int("-3")
    (12, -3)

    Raises:
        ValueError: it is none, such as `1_000`, `1.0` or one of 5,000 digits.
    """
    word = text.strip()
    if not WHOLE.fullmatch(word):
        raise ValueError("not a whole number")
    return int(word)
