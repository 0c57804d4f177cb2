"""Do a network's classes and a data set's go together?"""

import pytest

from utils.data.classes import match_classes, relation
from utils.errors import InputError

NETWORK = ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (("cat", "dog", "bird"), "equal"),
        (("cat", "dog"), "fewer"),
        (("cat", "dog", "bird", "cow"), "more"),
        (("dog", "cat", "bird"), "reordered"),
        (("bird", "cow", "fish"), "reordered"),  # one of ours is at another number
        (("cat", "dog", "owl"), "renamed"),
        (("a", "b", "c"), "renamed"),
        (("cat", "cat", "bird"), "renamed"),
    ],
)
def test_what_a_data_sets_classes_are_to_a_networks(data: tuple[str, ...], expected: str) -> None:
    assert relation(NETWORK, data) == expected


def test_a_network_without_names_takes_any_of_as_many() -> None:
    assert relation(("0", "1"), ("cat", "dog")) == "unnamed"
    assert relation(("0", "1"), ("0", "1")) == "equal"
    assert match_classes(("0", "1"), ("cat", "dog"), "a.data") == ""


def test_what_cannot_be_right_is_refused_with_the_names() -> None:
    with pytest.raises(
        InputError, match=r"a\.data: 4 classes: expected 3, as the network has; .*'cow'"
    ):
        match_classes(NETWORK, (*NETWORK, "cow"), "a.data")
    with pytest.raises(InputError, match="expected 3, as the network has; it lacks 'bird'"):
        match_classes(NETWORK, NETWORK[:2], "a.data")
    with pytest.raises(InputError, match=r"class 1 is 'cat', in x\.pt it is class 0"):
        match_classes(NETWORK, ("dog", "cat", "bird"), "a.data", "x.pt")


def test_what_may_be_meant_is_said() -> None:
    assert match_classes(NETWORK, NETWORK, "a.data") == ""
    note = match_classes(NETWORK, ("cat", "hound", "owl"), "a.data")
    assert note == "the network calls the data set's 'hound' 'dog' (and 1 more)"
