"""What was asked of a run, and what came of it? `runs/<name>/index.html`.

The page is made of the files in the run's folders alone, so it can be written at any time, and it
is the same for a run that was interrupted, resumed or made by an older version. All that it shows
lies beside it: it opens without a server and without a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element

from import_param import TrainSettings
from utils.errors import InputError
from utils.files.writing import write_text
from utils.run_page.charts import chart, number
from utils.run_page.folder import CutFigures, RunFiles, Start, flat, read_json
from utils.run_page.html import Child, document, table, tag
from utils.run_page.photos import LIST, PHOTOS
from utils.run_page.pruning import pruning_sections
from utils.run_page.style import STYLE
from utils.visualization.colours import as_hex, colour

PAGE = "index.html"
RELOAD = 60  # seconds, while the run trains
MOST_STARTS = 5  # of a run that went on, the last ones
MOST_CURVES = 12  # classes with a curve each; of more there are bars alone

# title, what its figures begin with, the words at its axis, whether that is from 0 to 1
CHARTS = (
    ("Mean average precision", "mAP/", "", True),
    ("Precision and recall", "metrics/", "validation photos", True),
    ("Loss", "loss/", "", False),
    ("Learning rate", "lr/", "", False),
    ("Precision and recall in training", "training/", "cell by cell", True),
    ("Speed", "speed/", "images a second", False),
)
PICTURES = (
    ("precision_recall.png", "Precision over recall, and the AP of each class"),
    ("confusion.png", "Confusions: rows are the ground truth, columns the predictions"),
)
Sections = list[tuple[str, list[Element]]]


def write_page(folder: Path, weights: Path, trains: bool = False) -> None:
    """Write a run's page from what its folders hold.

    Args:
        folder: runs/<name>.
        weights: weights/<name>.
        trains: the run goes on, so the page is to be fetched again now and then.

    Raises:
        InputError: a file of the run is damaged, or the page cannot be written.
    """
    write_text(folder / PAGE, page_text(RunFiles.read(folder, weights), trains))


def page_text(run: RunFiles, trains: bool = False) -> str:
    """The page of a run as HTML; see `write_page`."""
    sections: Sections = [
        ("What was asked", _asked(run)),
        ("Curves", _curves(run)),
        ("Classes", _classes(run)),
        ("Labels", _labels(run)),
        *_photos(run),
        *pruning_sections(run),
        ("Files", _files(run)),
    ]
    shown = [(title, content) for title, content in sections if content]
    links = [tag("a", title, href=f"#{_anchor(title)}") for title, _ in shown]
    body = [
        tag("header", tag("h1", run.name), *_state(run, trains), _tiles(run), tag("nav", *links)),
        tag(
            "main",
            *(
                tag("section", tag("h2", title), *content, id=_anchor(title))
                for title, content in shown
            ),
        ),
        tag(
            "footer", f"Written {datetime.now():%Y-%m-%d %H:%M}. All that it shows lies beside it."
        ),
    ]
    return document(run.name, STYLE, body, RELOAD if trains else 0)


def count(number: int, what: str) -> str:
    """How many there are, in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _state(run: RunFiles, trains: bool) -> list[Element]:
    """What kind of run it is, and how far it has come."""
    settings = run.settings
    data = settings.data.data
    if not isinstance(settings, TrainSettings):
        strategy = settings.pruning.strategy
        return [tag("p", f"A cut of {settings.network.weights or 'a network'} by {strategy}, "
                         f"on {data}", class_="soft")]  # fmt: skip
    epochs, done = settings.training.epochs, run.epochs
    kind = "Sparse training" if settings.sparsity.is_pruned else "Training"
    if settings.sparsity.prune_while_training:
        kind = "Training with cuts on the way"
    if done >= epochs:
        state = count(epochs, "epoch") + ("" if trains else ", finished")
    else:
        state = f"{done} of {epochs} epochs" + (", in training" if trains else ", then stopped")
    return [tag("p", f"{kind} of {settings.model.cfg} on {data}: {state}", class_="soft")]


def _tiles(run: RunFiles) -> Element:
    """The figures that one looks for first."""
    tiles: list[tuple[str, str, str]] = []
    last = run.last
    best = run.best_epoch
    if best is not None and "mAP/mAP@.5" in (row := run.history.get(best, {})):
        tiles.append(("mAP@.5", f"{row['mAP/mAP@.5']:.3f}", f"best, epoch {best:g}"))
        if "mAP/mAP@.5:.95" in row:
            tiles.append(("mAP@.5:.95", f"{row['mAP/mAP@.5:.95']:.3f}", f"epoch {best:g}"))
        tiles.append(("mAP@.5", f"{last['mAP/mAP@.5']:.3f}", "last epoch that was evaluated"))
    tiles += _cut_tiles(run.report) if run.report else []
    if run.costs and not run.report:
        width, height = run.costs.size
        tiles.append(("parameters", number(run.costs.parameters), "of the best network"))
        size = f"for {width}×{height} pixels"
        tiles.append(("operations", number(run.costs.operations), size))
    if speed := last.get("speed/images_per_second"):
        tiles.append(("images a second", number(speed), "in training, last epoch"))
    items = (
        tag("li", tag("span", name), tag("b", value), tag("small", note))
        for name, value, note in tiles
    )
    return tag("ul", *items, class_="tiles")


def _cut_tiles(report: CutFigures) -> list[tuple[str, str, str]]:
    """What a cut has changed."""
    stage, (mean_ap, _) = list(report.mean_ap.items())[-1]
    whole = next(iter(report.mean_ap.values()))[0]
    tiles = [("mAP@.5", f"{mean_ap:.3f}", f"{stage}; {whole:.3f} before")]
    for title, before, after in (
        ("milliseconds an image", report.before.latency, report.after.latency),
        ("parameters", report.before.parameters, report.after.parameters),
        ("operations", report.before.operations, report.after.operations),
    ):
        tiles.append((title, number(after), f"{number(before)} before"))
    return tiles


def _asked(run: RunFiles) -> list[Element]:
    """The command, the settings that are not the defaults, the machine; all settings to unfold."""
    parts: list[Element] = []
    for start in run.starts[-MOST_STARTS:]:
        when = start.time[:16].replace("T", " ")
        parts.append(tag("pre", tag("code", start.command), title=when))
    changed = [
        (name, _value(own), _value(default)) for name, (own, default) in run.changed().items()
    ]
    if changed:
        rows: list[list[Child]] = [
            [_setting(name), tag("b", own), default] for name, own, default in changed
        ]
        parts.append(tag("h3", "Settings that are not the defaults"))
        parts.append(table(("setting", "here", "default"), rows, numbers=False))
    else:
        parts.append(tag("p", "All settings are the defaults."))
    every: list[list[Child]] = [
        [_setting(name), _value(value)] for name, value in flat(run.settings).items()
    ]
    whole = table(("setting", "value"), every, numbers=False)
    parts.append(tag("details", tag("summary", f"All {len(every)} settings"), whole))
    if run.starts or run.version:
        parts.append(tag("h3", "Where it ran"))
        parts.append(table(("", ""), _machine(run), numbers=False))
    return parts


def _machine(run: RunFiles) -> list[list[str]]:
    start = run.starts[-1] if run.starts else Start()
    known = {
        "started": start.time.replace("T", " "),
        "started, or gone on with": f"{len(run.starts)} times" if len(run.starts) > 1 else "",
        "version": start.version or run.version,
        "machine": start.machine,
        "system": start.system,
        "packages": ", ".join(f"{name} {number}" for name, number in start.packages.items()),
        "folder": start.folder,
        **start.photos,
    }
    return [[name, value] for name, value in known.items() if value]


def _setting(name: str) -> Element:
    group, _, own = name.partition(".")
    return tag("span", tag("small", f"{group}."), own)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "—"


def _curves(run: RunFiles) -> list[Element]:
    cards = [
        chart(
            title,
            {name.replace("_", " "): curve for name, curve in curves.items()},
            y_label=label,
            unit=unit,
        )
        for title, start, label, unit in CHARTS
        if (curves := _figures(run, start))
    ]
    return [tag("div", *cards, class_="cards")] if cards else []


def _figures(run: RunFiles, start: str) -> dict[str, tuple[list[float], list[float]]]:
    """The curves whose names begin so, by the rest of their names."""
    names = dict.fromkeys(name for row in run.history.values() for name in row)
    return {name.removeprefix(start): run.curve(name) for name in names if name.startswith(start)}


def _classes(run: RunFiles) -> list[Element]:
    """AP of each class, precision over recall, and confusions."""
    parts: list[Element] = []
    curves = _figures(run, "AP/")
    paint = {name: as_hex(colour(label)) for label, name in enumerate(curves)}
    if 1 < len(curves) <= MOST_CURVES:
        title = "Average precision of each class"
        parts.append(chart(title, curves, unit=True, colours=list(paint.values())))
    if curves:
        last = {name: values[-1] for name, (_, values) in curves.items()}
        ranked = sorted(last.items(), key=lambda item: -item[1] if item[1] == item[1] else 1)
        rows: list[list[Child]] = [
            [name, "-" if math.isnan(ap) else f"{ap:.3f}", _bar(ap, paint[name])]
            for name, ap in ranked
        ]
        bars = table(("class", "AP", ""), rows, numbers=False)
        parts.append(_card(f"Average precision, epoch {max(run.history):g}", bars))
    content = [tag("div", *parts, class_="cards")] if parts else []
    return [*content, *_pictures(_picture(run, name, title) for name, title in PICTURES)]


def _bar(share: float, paint: str) -> Element:
    """A bar as long as a share; none for what is not defined."""
    width = 0.0 if math.isnan(share) else 100 * min(max(share, 0.0), 1.0)
    return tag("span", tag("i", style=f"width:{width:.1f}%;background:{paint}"), class_="meter")


def _labels(run: RunFiles) -> list[Element]:
    overview = _picture(run, "labels.png", "What is labelled")
    batch = _picture(run, "augmented_batch.jpg", "The first photos as the network sees them", False)
    return _pictures((overview, batch))


def _picture(run: RunFiles, name: str, title: str, is_chart: bool = True) -> Element | None:
    """A picture of the run's folder, which opens alone where it is touched."""
    if not (run.folder / name).is_file():
        return None
    kind = {"class_": "chart"} if is_chart else {}
    image = tag("img", src=quote(name), alt=title, loading="lazy", **kind)
    return _card(title, tag("div", tag("a", image, href=quote(name)), class_="scroll"))


def _pictures(pictures: Iterable[Element | None]) -> list[Element]:
    shown = [picture for picture in pictures if picture is not None]
    return [tag("div", *shown, class_="pictures")] if shown else []


def _card(title: str, content: Element) -> Element:
    return tag("figure", tag("figcaption", title), content, class_="card")


def _photos(run: RunFiles) -> Sections:
    """Pairs of pictures of validation photos; see `utils.run_page.photos`."""
    if not (run.folder / PHOTOS / LIST).is_file():
        return []
    listed = read_json(run.folder / PHOTOS / LIST)
    try:
        epoch = listed["epoch"]
        whose = "the best network" if epoch is None else f"the network after epoch {epoch:g}"
        how = (
            f"By {whose}; predictions of a confidence above {listed['confidence']:.3f}, where "
            f"mean F1 is highest; a hit overlaps its object by an IoU of {listed['iou']:g}."
        )
        intros = {"examples": "The ground truth (left) beside what was predicted (right). ",
                  "worst": "Only what is wrong: objects that were missed (left), predictions "
                           "of nothing or of another class (right). "}  # fmt: skip
        titles = {"examples": "Photos", "worst": "Worst misses"}
        sections: Sections = []
        for kind, title in titles.items():
            pairs = [_photo_pair(entry, kind) for entry in listed[kind]]
            content = [tag("p", intros[kind] + how), tag("div", *pairs, class_="pairs")]
            if not pairs:
                content = [tag("p", f"None: nothing is missed or false. {how}")]
            sections.append((title, content))
    except (KeyError, TypeError, ValueError) as error:
        place = run.folder / PHOTOS / LIST
        raise InputError(f"{place}: expected what a run of this version writes") from error
    return sections


def _photo_pair(entry: Mapping[str, Any], kind: str) -> Element:
    missed, false = int(entry["missed"]), int(entry["false"])
    name = Path(str(entry["photo"])).name
    objects = int(entry["objects"])
    sides = (
        (f"{missed} missed of {objects}", f"{false} false")
        if kind == "worst"
        else (count(objects, "object"), count(int(entry["predictions"]), "prediction"))
    )
    wrong = f"{missed} missed, {false} false" if missed or false else "all found"
    pictures = []
    for side, words in zip(("left", "right"), sides, strict=True):
        file = quote(f"{PHOTOS}/{entry['file']}-{side}.jpg")
        image = tag("img", src=file, alt=f"{name}: {words}", loading="lazy")
        pictures.append(tag("div", tag("a", image, href=file), tag("span", words)))
    caption = tag("figcaption", name, tag("small", f" {wrong}"))
    return tag("figure", caption, tag("div", *pictures, class_="pair"), class_="card")


def _files(run: RunFiles) -> list[Element]:
    """What else the run has left."""
    names = sorted(path.name for path in _visible(run.folder) if path.name != PAGE)
    links = [tag("li", tag("a", name, href=quote(name))) for name in names]
    weights = [path.as_posix() for path in _visible(run.weights)]
    parts = [tag("ul", *links)]
    if weights:
        parts.append(tag("p", f"The networks: {', '.join(sorted(weights))}"))
    return parts


def _visible(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
