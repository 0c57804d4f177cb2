"""Is a value of the kind, and in the range, that its type says?

Settings are checked so, wherever they come from, and what is read back from a file of ours.
"""

from __future__ import annotations

import dataclasses
import math
import os
import reprlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen, Predicate
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from utils.errors import InputError

T = TypeVar("T")

LARGEST_INTEGER = 2**63 - 1  # what torch, NumPy and files hold
LONGEST_SHOWN = 200  # characters of a value in a message


def structured(kind: type[T], values: Mapping[Any, Any], place: str = "") -> T:
    """A dataclass made of what a file holds; entries that it has no field for do not count.

    Args:
        kind: the dataclass; a field without a default must be there.
        values: by name. A list is taken for a tuple, since files have none.
        place: of the values, for messages.

    Raises:
        InputError: one is missing, not of its kind or out of range.
    """
    known: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            value = values[field.name]
            known[field.name] = tuple(value) if isinstance(value, list) else value
        elif field.default is dataclasses.MISSING:
            raise InputError(f"{_prefix(place)}{field.name!r} is missing")
    made = kind(**known)
    check_fields(made, place)
    return made


def check_fields(made: Any, place: str = "") -> None:
    """Check the kinds, and then the ranges, of all fields of a dataclass.

    Raises:
        InputError: for the first value that is wrong.
    """
    check_kinds(made, place)
    for name, value, kind in fields(made):
        _check_range(name, value, kind, place)


def check_kinds(made: Any, place: str = "") -> None:
    """Check the kinds of all fields of a dataclass; see `check_fields`."""
    for name, value, kind in fields(made):
        try:
            check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except (TypeCheckError, RecursionError):
            wanted = f"expected {_kind_name(kind)}"
            raise InputError(f"{_prefix(place)}{name}={shown(value)}: {wanted}") from None


def fields(made: Any) -> Iterator[tuple[str, Any, Any]]:
    """The name, value and type of each field of a dataclass."""
    kinds = get_type_hints(type(made), include_extras=True)
    for field in dataclasses.fields(made):
        yield field.name, getattr(made, field.name), kinds[field.name]


def range_in_words(kind: Any) -> str:
    """What the limits in a type allow, such as `from 0 to below 1`; empty where it has none.

    >>> range_in_words(Annotated[int, Ge(1)])
    'at least 1'
    """
    return _in_words(_limits(kind))


def is_text(value: str) -> bool:
    """Whether the system takes it for a name: no NUL, no half of a character."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def shown(value: Any) -> str:
    """A value for a message: short, however much it holds."""
    return _SHORT.repr(value)


class _Short(reprlib.Repr):
    """Of tensors their kind and shape, of very large integers their size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = LONGEST_SHOWN

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() > 256:  # Python refuses to write those of thousands of digits
            return f"<integer of {value.bit_length()} bits>"
        return super().repr_int(value, level)

    def repr_instance(self, value: Any, level: int) -> str:
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return f"<{value.dtype}, {tuple(value.shape)}>"
        return super().repr_instance(value, level)


_SHORT = _Short()


def _prefix(place: str) -> str:
    return f"{place}: " if place else ""


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _check_range(name: str, value: Any, kind: Any, place: str) -> None:
    if value is None:
        return
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(member for member in get_args(kind) if member is not type(None))
    for entry, item, item_kind in _items(name, value, kind):
        _check_range(entry, item, item_kind, place)
    wanted = _wanted_of(value) or _wanted_by(value, _limits(kind))
    if wanted:
        raise InputError(f"{_prefix(place)}{name}={shown(value)}: expected {wanted}")


def _items(name: str, value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """What a collection holds, and of what type it is to be; nothing where that is not said."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    inner = [member for member in get_args(kind) if member is not ...]
    if inner[-1:] == [Any]:
        return  # whoever knows more of them checks them
    if isinstance(value, tuple | list) and inner:
        yield from ((name, item, inner[0]) for item in value)
    elif isinstance(value, dict) and inner:
        yield from ((f"{name}[{shown(key)}]", item, inner[1]) for key, item in value.items())


def _wanted_of(value: Any) -> str:
    """What is wanted of any value of its kind, where it is not so."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return "an integer of at most 64 bits"
    if isinstance(value, str) and not is_text(value):
        return "text as file names have it"
    return ""


def _wanted_by(value: Any, limits: Sequence[Any]) -> str:
    """What the limits want, where they do not hold."""
    return "" if all(_holds(limit, value) for limit in limits) else _in_words(limits)


def _limits(kind: Any) -> list[Any]:
    """The limits in an annotated type, and where they need words, these as a string."""
    metadata = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return [
        limit
        for item in metadata
        for limit in (item if isinstance(item, GroupedMetadata) else [item])
    ]


def _holds(limit: Any, value: Any) -> bool:
    match limit:
        case Ge(ge=least):
            return bool(value >= least)
        case Gt(gt=below):
            return bool(value > below)
        case Le(le=most):
            return bool(value <= most)
        case Lt(lt=above):
            return bool(value < above)
        case MinLen(min_length=least):
            return len(value) >= least
        case MaxLen(max_length=most):
            return len(value) <= most
        case Predicate(func=holds):
            return bool(holds(value))
    return True


def _in_words(limits: Sequence[Any]) -> str:
    """The limits in words: `from 0 to below 1`."""
    words = [limit for limit in limits if isinstance(limit, str)]
    if words:
        return str(words[0])
    low, high = "", ""
    for limit in limits:
        match limit:
            case Ge(ge=least):
                low = f"from {least:g}"
            case Gt(gt=below):
                low = f"above {below:g}"
            case Le(le=most):
                high = f"to {most:g}"
            case Lt(lt=above):
                high = f"to below {above:g}"
            case MaxLen(max_length=most):
                return f"at most {most} entries"
    if low and high:
        return f"{low} {high}"
    return low.replace("from", "at least").replace("above", "more than") + high.replace(
        "to", "at most"
    )
