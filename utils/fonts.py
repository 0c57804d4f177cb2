"""Which font has the letters of a text? For pictures and figures alike, on any system."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure

DEFAULT = "DejaVu Sans"  # comes with matplotlib
SCORE_LETTERS = " .0123456789"
# How files of fonts with many letters begin that are made for screens; others come after them.
PREFERRED = (
    *("notosanscjk", "notosanssc", "sourcehansans", "wqy", "droidsansfallback"),  # Linux
    *("msyh", "simhei", "malgun", "meiryo", "yugoth", "leelaw", "nirmala", "segoeui"),  # Windows
    *("pingfang", "hiragino", "stheiti", "applesdgothic", "arial unicode"),  # macOS
    *("notosans", "arial"),
)
# Fonts of pictures, and one that has a sign for "no such letter" everywhere.
UNUSABLE = ("emoji", "lastresort", "symbola")
MOST_NAMED = 5  # names without letters that a line lists


@functools.lru_cache(maxsize=4096)
def font_for(text: str) -> Path | None:
    """A font file that has every letter of `text` and the figures of a score, or None.

    DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic and more. For others,
    Chinese or Korean for instance, the machine's own fonts are searched.
    """
    wanted = {ord(letter) for letter in text + SCORE_LETTERS}
    if wanted <= _letters(default_font()):
        return default_font()
    return next((path for path in installed() if wanted <= _letters(path)), None)


def undrawable(names: Sequence[str]) -> list[str]:
    """The names that no font on this machine has the letters for: pictures show their numbers."""
    return [name for name in names if not name.isascii() and font_for(name) is None]


def missing_letters(names: Sequence[str]) -> str:
    """A line about the names that pictures cannot show; empty where they show all."""
    hidden = undrawable(names)
    if not hidden:
        return ""
    named = ", ".join(hidden[:MOST_NAMED]) + (", …" if len(hidden) > MOST_NAMED else "")
    return (
        f"no font here has the letters of {named}: pictures show the numbers of these classes; "
        "install a font that has them, such as Noto Sans CJK (on Linux: fonts-noto-cjk, or a .ttf "
        "in ~/.fonts)"
    )


def class_label(label: int, names: Sequence[str]) -> str:
    """What a picture calls a class: its name, or `#3` where it has none that can be drawn."""
    if 0 <= label < len(names) and font_for(names[label]) is not None:
        return names[label]
    return f"#{label}"


def drawable(text: str) -> str:
    """The text with a `?` for each letter that no font here has."""
    if text.isascii() or font_for(text) is not None:
        return text
    return "".join(letter if font_for(letter) is not None else "?" for letter in text)


def use_fonts_(figure: Figure) -> None:
    """Have a figure's texts drawn in fonts that have their letters; call it when all are there."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    axes = [axis for panel in figure.get_axes() for axis in (panel.xaxis, panel.yaxis)]
    formatters = [axis.get_major_formatter() for axis in axes]
    ticks = [each for each in formatters if isinstance(each, FixedFormatter)]
    shown = {text.get_text() for text in texts} | {label for each in ticks for label in each.seq}
    if all(map(str.isascii, shown)):
        return
    for text in texts:
        text.set_text(drawable(text.get_text()))
    for each in ticks:
        each.seq = [drawable(label) for label in each.seq]
    letters = set("".join(map(drawable, shown)))
    families = [DEFAULT, *sorted({_family(font_for(each)) for each in letters} - {DEFAULT})]
    for text in texts:
        text.set_fontfamily(families)
    for axis in axes:
        axis.set_tick_params(labelfontfamily=families)


@functools.lru_cache(maxsize=1)
def default_font() -> Path:
    """DejaVu Sans, bold, which matplotlib brings."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


@functools.lru_cache(maxsize=1)
def installed() -> tuple[Path, ...]:
    """The machine's fonts, those first that are good to read.

    Looked for in its folders, not in matplotlib's list, which does not know what was installed
    after it was made.
    """
    from matplotlib.font_manager import findSystemFonts

    usable = [
        path
        for path in map(Path, findSystemFonts(fontext="ttf"))
        if not any(word in path.name.lower() for word in UNUSABLE)
    ]
    return tuple(sorted(usable, key=_rank))


def _rank(path: Path) -> tuple[int, bool, str]:
    name = path.name.lower().replace("-", "").replace("_", "")
    preferred = (place for place, start in enumerate(PREFERRED) if name.startswith(start))
    is_odd = any(word in name for word in ("serif", "mono", "italic", "oblique", "light", "thin"))
    return next(preferred, len(PREFERRED)), is_odd, str(path)


@functools.lru_cache(maxsize=1024)
def _letters(path: Path) -> frozenset[int]:
    """The code points that a font file has; none where it cannot be opened."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):  # a font that was removed, or of a kind FreeType lacks
        return frozenset()


@functools.lru_cache(maxsize=1024)
def _family(path: Path | None) -> str:
    """What matplotlib calls a font, which it knows from then on."""
    from matplotlib.font_manager import FontProperties, fontManager

    if path is None or path == default_font():
        return DEFAULT
    fontManager.addfont(path)
    return FontProperties(fname=path).get_name()
