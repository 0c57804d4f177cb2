"""Which colour has a class, or a curve, in every picture?"""

from functools import lru_cache

import cv2
import numpy as np

Colour = tuple[int, int, int]  # RGB, 0 to 255

COLOURS = 128  # as many classes look different, then the colours begin again
# Of curves that are not of a class.
SERIES: tuple[Colour, ...] = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip
INK, PALE, GRID = "#222222", "#9aa0a6", "#e6e6e6"  # of figures: text and lines


def colour(label: int) -> Colour:
    """The colour of a class, always the same, and far from those of the classes before it."""
    return _palette()[label % COLOURS]


def as_hex(rgb: Colour) -> str:
    """A colour as figures and pages take it, such as `#8b00ff`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def series_colour(number: int) -> Colour:
    """The colour of a curve, network or engine among others."""
    return SERIES[number % len(SERIES)]


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever stands out more (the contrast ratio of WCAG 2, always ≥ 4.5)."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    dark_contrast, light_contrast = (luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)
    return (0, 0, 0) if dark_contrast >= light_contrast else (255, 255, 255)


@lru_cache
def _palette() -> list[Colour]:
    """Colours in an order in which each is as far as can be from all before it (in CIE Lab)."""
    levels = np.linspace(0, 255, 12, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = cv2.cvtColor((rgb[None] / 255).astype(np.float32), cv2.COLOR_RGB2Lab)[0]  # [N, 3]
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    # No night, no snow, no asphalt; and lines on white paper can be seen.
    vivid = (lightness > 42) & (lightness < 76) & (chroma > 25)
    rgb, lab = rgb[vivid], lab[vivid]
    chosen = [int(chroma[vivid].argmax())]
    distance = np.linalg.norm(lab - lab[chosen[0]], axis=1)
    while len(chosen) < COLOURS:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return [(int(r), int(g), int(b)) for r, g, b in rgb[chosen]]
