"""Curves as SVG, which a page shows sharp at any width and in the colours of its theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from utils.run_page.html import tag

Curve = tuple[Sequence[float], Sequence[float]]  # x, y
Band = tuple[Sequence[float], Sequence[float], Sequence[float]]  # x, lower y, upper y

WIDTH, HEIGHT = 360, 210  # pixels, where the page is as wide as a phone
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 34  # margins around the curves
COLOURS = 10  # that the page's style has, as --c0, --c1, ...
MARKED_UNTIL = 40  # of fewer points each is marked
LARGE = 10_000  # numbers from here on are written with k, M, G


@dataclass(frozen=True)
class Scale:
    """Where values lie in pixels, and which of them are written at the axis."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @staticmethod
    def of(values: Iterable[float], start: float, end: float, whole: bool = False) -> Scale:
        """A scale on which all finite values have a place. whole: ticks are whole numbers."""
        from matplotlib.ticker import MaxNLocator

        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if low == high:
            low, high = low - (0.5 if whole else abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
        ticks = MaxNLocator(nbins=5, integer=whole, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        shown = [float(tick) for tick in ticks if low - 1e-9 <= tick <= high + 1e-9]
        return Scale(low, high, start, end, tuple(shown))

    def at(self, value: float) -> float:
        """The place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def number(value: float) -> str:
    """A number as people write it: 0.002, 12.5, 64 k, 3.1 M.

    >>> [number(value) for value in (0.00204, 12.3456, 64_000, 3_100_000, float("nan"))]
    ['0.00204', '12.35', '64 k', '3.1 M', '-']
    """
    if not math.isfinite(value):
        return "-"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, LARGE):
            return f"{value / size:.3g} {unit}"
    return f"{value:.4g}"


def chart(
    title: str,
    curves: Mapping[str, Curve],
    *,
    x_label: str = "epoch",
    y_label: str = "",
    unit: bool = False,
    whole: bool = True,
    bands: Sequence[Band] = (),
    marks: Mapping[str, float] | None = None,
    lines: bool = True,
    colours: Sequence[str] = (),
) -> Element:
    """A figure with curves, their names and last values below. Values that are not finite are gaps.

    Args:
        title: above it.
        curves: by name.
        x_label: of the axis to the right.
        y_label: of the axis upwards, written above it.
        unit: that axis goes from 0 to 1.
        whole: x has whole numbers only.
        bands: areas below the curves.
        marks: x by name, drawn as vertical lines.
        lines: points are joined.
        colours: of the curves, such as `#8b00ff`; none for those of the page.
    """
    marks = marks or {}
    xs = [x for curve in curves.values() for x in curve[0]] + list(marks.values())
    ys = [y for curve in curves.values() for y in curve[1]] + [y for b in bands for y in b[2]]
    finite = [y for y in ys if math.isfinite(y)]
    if unit:
        finite = [0.0, 1.0]
    elif finite and min(finite) >= 0:
        finite.append(0.0)
    paint = colours or [f"var(--c{index % COLOURS})" for index in range(len(curves))]
    across = Scale.of(xs, LEFT, WIDTH - RIGHT, whole)
    up = Scale.of(finite, HEIGHT - BOTTOM, TOP)
    drawing = tag(
        "svg",
        *_axes(across, up, x_label),
        *(_area(band, across, up) for band in bands),
        *(_mark(x, across) for x in marks.values()),
        *(
            _line(name, curve, across, up, paint[index])
            for index, (name, curve) in enumerate(curves.items())
        ),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=title,
    )
    over_time = x_label == "epoch"
    names = [
        _entry(name, curve if over_time else None, paint[index])
        for index, (name, curve) in enumerate(curves.items())
    ]
    names += [tag("li", tag("i", class_="mark"), name) for name in marks]
    caption = tag("figcaption", title, tag("small", f" {y_label}") if y_label else None)
    return tag(
        "figure",
        caption,
        drawing,
        tag("ul", *names, class_="legend"),
        class_="card" if lines else "card points",
    )


def _axes(across: Scale, up: Scale, x_label: str) -> list[Element]:
    bottom = HEIGHT - BOTTOM
    parts = []
    for tick in up.ticks:
        y = up.at(tick)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        text = tag("text", number(tick), x=LEFT - 5, y=y + 4, text_anchor="end")
        parts.append(text)
    for tick in across.ticks:
        x = across.at(tick)
        parts.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(tag("text", number(tick), x=x, y=bottom + 15, text_anchor="middle"))
    parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", x_label, x=middle, y=HEIGHT - 5, text_anchor="middle"))
    return parts


def _line(name: str, curve: Curve, across: Scale, up: Scale, colour: str) -> Element:
    points = [(x, y) for x, y in zip(*curve, strict=True)]
    steps, pen_down = [], False
    for x, y in points:
        if math.isfinite(y):
            steps.append(f"{'L' if pen_down else 'M'}{across.at(x):g} {up.at(y):g}")
        pen_down = math.isfinite(y)
    group = tag("g", tag("path", d=" ".join(steps), class_="curve"), style=f"color:{colour}")
    for x, y in points if len(points) < MARKED_UNTIL else ():
        if math.isfinite(y):
            told = tag("title", f"{name}: {number(y)} at {number(x)}")
            group.append(tag("circle", told, cx=across.at(x), cy=up.at(y), r=2.2))
    return group


def _area(band: Band, across: Scale, up: Scale) -> Element:
    xs, low, high = band
    there = [f"{across.at(x):g} {up.at(y):g}" for x, y in zip(xs, high, strict=True)]
    back = [f"{across.at(x):g} {up.at(y):g}" for x, y in zip(xs, low, strict=True)][::-1]
    return tag("polygon", points=" ".join([*there, *back]), class_="band")


def _mark(x: float, across: Scale) -> Element:
    place = across.at(x)
    return tag("line", x1=place, x2=place, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark")


def _entry(name: str, curve: Curve | None, colour: str) -> Element:
    """A curve's name, and its last value where one asks for that."""
    if curve is None:
        return tag("li", tag("i", style=f"background:{colour}"), name)
    last = next((y for y in reversed(curve[1]) if math.isfinite(y)), math.nan)
    return tag("li", tag("i", style=f"background:{colour}"), f"{name} ", tag("b", number(last)))
