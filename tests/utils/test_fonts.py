"""Letters of any script in pictures and figures, with and without a font that has them."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure

from import_param import DataSet
from utils import fonts
from utils.data.splits import open_definition
from utils.visualization.draw import draw_boxes, draw_counts
from utils.visualization.figures import write_figure

NAMES = ("电阻", "电容", "chip")
LETTERS = "".join(sorted(set("".join(NAMES[:2]) + fonts.SCORE_LETTERS)))


def make_font(path: Path) -> Path:
    """A font with a few letters, each a box."""
    pen = TTGlyphPen(None)
    for place in ((0, 0), (0, 700), (600, 700), (600, 0)):
        (pen.lineTo if pen.points else pen.moveTo)(place)
    pen.closePath()
    box = pen.glyph()
    names = {letter: f"uni{ord(letter):04X}" for letter in LETTERS}
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names.values()])
    font.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    font.setupGlyf(dict.fromkeys([".notdef", *names.values()], box))
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (700, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Boxes for Tests", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine without fonts but matplotlib's; what was found before is forgotten."""
    fonts.font_for.cache_clear()
    monkeypatch.setattr(fonts, "installed", lambda: ())
    yield monkeypatch
    fonts.font_for.cache_clear()


@pytest.fixture
def chinese(machine: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = make_font(tmp_path / "boxes.ttf")
    machine.setattr(fonts, "installed", lambda: (path,))
    return path


def draw_figure(path: Path) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    axes.barh(range(3), [1, 2, 3], label=NAMES[0])
    axes.set_yticks(range(3), [fonts.class_label(label, NAMES) for label in range(3)])
    axes.set_title(f"{NAMES[1]} 7")
    axes.legend()
    write_figure(figure, path)
    return figure


def test_without_a_font_numbers_are_shown_and_one_line_says_so(
    machine: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [fonts.class_label(label, NAMES) for label in range(3)] == ["#0", "#1", "chip"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_figure(tmp_path / "a.png")
    assert figure.axes[0].get_title() == "?? 7"
    (tmp_path / "a.names").write_text("\n".join(NAMES), encoding="utf-8")
    (tmp_path / "a.png").rename(tmp_path / "1.png")
    (tmp_path / "a.data").write_text("names = a.names\ntrain = .\nvalid = .\n")
    open_definition(DataSet(data=str(tmp_path / "a.data")))
    told = capsys.readouterr().out
    assert told.count("no font here has the letters of 电阻, 电容: ") == 1
    assert fonts.missing_letters(("chip", "Füße")) == ""


def test_with_a_font_names_are_shown_in_pictures_and_figures(chinese: Path, tmp_path: Path) -> None:
    assert fonts.font_for(NAMES[0]) == chinese
    assert [fonts.class_label(label, NAMES) for label in range(3)] == list(NAMES)
    assert fonts.missing_letters(NAMES) == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_figure(tmp_path / "a.png")
    assert figure.axes[0].get_title() == "电容 7"
    grey = np.full((200, 200, 3), 128, np.uint8)
    named, numbered = (draw_boxes(grey, [[20, 60, 180, 180]], [0], n) for n in (NAMES, ()))
    assert (named != numbered).any()
    assert (draw_counts(grey, "9 FPS", [0, 0], NAMES) != grey).any()


def test_a_font_that_is_installed_later_is_found_and_good_ones_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("zz.ttf", "NotoSerifCJK-Bold.ttc", "NotoSansCJK-Regular.ttc", "NotoColorEmoji.ttf")
    files = [str(tmp_path / name) for name in names]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda fontext: files)
    fonts.installed.cache_clear()
    assert [path.name for path in fonts.installed()] == [names[2], names[0], names[1]]
    fonts.installed.cache_clear()
