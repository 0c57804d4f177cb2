"""How does something sound become something that is almost so? Bytes, words and values change."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (
    b"0", b"-0", b"1", b"-1", b"2", b"0.5", b"1.", b".5", b"+1", b"1e3", b"1e308", b"-1e308",
    b"1e-320", b"1e999", b"nan", b"-nan", b"inf", b"-inf", b"infinity", b"1_000", b"0x10", b"1,5",
    b"2147483647", b"2147483648", b"-2147483649", b"9007199254740993", b"9223372036854775807",
    b"9223372036854775808", b"18446744073709551616", b"1180591620717411303424", b"9" * 30,
    b"9" * 400, b"9" * 5000, "\u0661".encode(), "\u00bd".encode(), b"true", b"None",
)  # fmt: skip
TOKENS = (
    b"", b" ", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\x1a", b"\xff\xfe", b"\xef\xbb\xbf",
    b"\xed\xa0\x80", b"\xc0\x80", "\u2028".encode(), "\u00a0".encode(), "\U0001f600".encode(),
    b"#", b";", b"=", b",", b":", b"[", b"]", b"{", b"}", b"[]", b"{}", b'"', b"'", b'""', b"\\",
    b"/", b"../", b"~", b"~x", b"*", b"**", b"%s", b"null", b"-", b"--", b"<", b">", b"&",
    b"a" * 300,
)  # fmt: skip
BYTES = (0, 1, 0x20, 0x7F, 0x80, 0xFF)
WORD = re.compile(rb"[\w.+-]+")
NUMBER = re.compile(rb"[+-]?\d[\d.eE+-]*")
LONGEST = 1 << 16  # bytes of an input, which is to be tried quickly
MOST_CHANGES = 8

Bytes = bytearray
Operation = Callable[[random.Random, Bytes, Sequence[bytes]], Bytes]


def mutate(rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """One of `seeds` with a few changes.

    Args:
        rng: chooses them; the same one leads to the same input.
        seeds: sound inputs.
        tokens: words that mean something in this format.
    """
    data = bytearray(rng.choice(seeds))
    words = (*tokens, *tokens, *NUMBERS, *TOKENS) if rng.random() < 0.9 else TOKENS
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4, MOST_CHANGES))):
        data = rng.choice(OPERATIONS)(rng, data, words)
        if rng.random() < 0.05:
            data = _spliced(rng, data, rng.choice(seeds))
    return bytes(data[:LONGEST])


def _place(rng: random.Random, data: Bytes) -> tuple[int, int]:
    """A range of the data, mostly a short one."""
    start = rng.randint(0, len(data))
    longest = rng.choice((1, 2, 4, 16, 64, len(data)))
    return start, min(len(data), start + rng.randint(0, longest))


def _flip(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _set_byte(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    if data:
        data[rng.randrange(len(data))] = rng.choice((*BYTES, rng.randrange(256)))
    return data


def _insert(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    start, _ = _place(rng, data)
    data[start:start] = rng.choice(words)
    return data


def _delete(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    start, end = _place(rng, data)
    del data[start:end]
    return data


def _duplicate(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    start, end = _place(rng, data)
    data[end:end] = data[start:end] * rng.choice((1, 1, 2, 50))
    return data


def _cut_off(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    del data[rng.randint(0, len(data)) :]
    return data


def _replaced(pattern: re.Pattern[bytes], least: int) -> Operation:
    def replace(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
        matches = list(pattern.finditer(data))
        for match in rng.sample(matches, min(len(matches), 1)):
            data[match.start() : match.end()] = rng.choice(NUMBERS if least else words)
        return data

    return replace


def _swap_lines(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    lines = data.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return bytearray(b"\n").join(lines)


def _repeat_line(rng: random.Random, data: Bytes, words: Sequence[bytes]) -> Bytes:
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place:place] = [lines[place]] * rng.choice((1, 2, 30))
    return bytearray(b"\n").join(lines)


def _spliced(rng: random.Random, data: Bytes, other: bytes) -> Bytes:
    """The beginning of one and the end of another."""
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


OPERATIONS: tuple[Operation, ...] = (
    _flip, _set_byte, _insert, _insert, _delete, _duplicate, _cut_off, _replaced(NUMBER, 1),
    _replaced(NUMBER, 1), _replaced(WORD, 0), _replaced(WORD, 0), _swap_lines, _repeat_line,
)  # fmt: skip


def mutate_value(rng: random.Random, tree: Any, strange: Sequence[Any]) -> Any:
    """A tree of dicts and lists with a few entries changed, removed or added; `tree` stays.

    Args:
        rng: chooses them.
        tree: a sound one.
        strange: values to put in.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = _changed(rng, tree, strange)
    return tree


def _changed(rng: random.Random, tree: Any, strange: Sequence[Any]) -> Any:
    inside = isinstance(tree, dict | list | tuple) and len(tree) > 0
    if not inside or rng.random() < 0.12:
        return rng.choice(strange)
    copy = dict(tree) if isinstance(tree, dict) else dict(enumerate(tree))
    key = rng.choice(list(copy))
    match rng.choice(("change",) * 6 + ("remove", "rename", "swap", "repeat")):
        case "change":
            copy[key] = _changed(rng, copy[key], strange)
        case "remove":
            del copy[key]
        case "rename":
            copy[_hashable(rng, strange)] = copy.pop(key)
        case "swap":
            other = rng.choice(list(copy))
            copy[key], copy[other] = copy[other], copy[key]
        case "repeat":
            copy[_hashable(rng, strange)] = copy[key]
    if isinstance(tree, dict):
        return copy
    return list(copy.values()) if isinstance(tree, list) else tuple(copy.values())


def _hashable(rng: random.Random, strange: Sequence[Any]) -> Any:
    return rng.choice([value for value in strange if isinstance(value, str | int | float | bytes)])
