"""What all figures share: names, counts and colours."""

import numpy as np
from matplotlib.figure import Figure

from utils.visualization.colours import COLOURS, as_hex, colour
from utils.visualization.curves import curve_colour
from utils.visualization.figures import count_ticks_, plain, short_count


def test_counts_are_said_as_people_say_them() -> None:
    counts = [0, 7, 0.5, 999, 1000, 1234, 9949, 9950, 48_123, 999_499, 999_500, 12_000_000]
    short = [
        "0",
        "7",
        "0.5",
        "999",
        "1 k",
        "1.2 k",
        "9.9 k",
        "10 k",
        "48 k",
        "999 k",
        "1 M",
        "12 M",
    ]
    assert [short_count(count) for count in counts] == short
    axes = Figure().subplots()
    axes.plot([0, 3e6], [0, 1])
    count_ticks_(axes.xaxis)
    assert "3 M" in [label.get_text() for label in axes.get_xticklabels()]


def test_a_name_is_no_formula_and_has_an_end() -> None:
    assert plain("a$b$c") == r"a\$b\$c"
    assert plain("x" * 99) == "x" * 23 + "…"


def test_a_class_has_its_colour_wherever_it_is_shown() -> None:
    assert [curve_colour("AP", label) for label in range(9)] == [colour(n) for n in range(9)]
    assert curve_colour("loss", 0) != colour(0)
    assert as_hex((139, 0, 255)) == "#8b00ff"


def test_the_colour_of_every_class_can_be_seen_on_white() -> None:
    linear = (np.array([colour(label) for label in range(COLOURS)]) / 255) ** 2.2
    contrast = 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    assert contrast.min() > 1.8
