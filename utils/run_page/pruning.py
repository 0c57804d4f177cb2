"""What of a run's page tells of pruning: scales, shares, channels and milliseconds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from import_param import TrainSettings
from utils.errors import InputError
from utils.files.reading import read_text
from utils.run_page.charts import chart, number
from utils.run_page.folder import CutFigures, LayerFigures, RunFiles, layer_figures, read_json
from utils.run_page.html import Child, table, tag
from utils.settings.schema import structured

SWEEP = "percent.csv"  # mAP against the share cut, of a sparse training
CHANNELS = "channels.json"  # the layers before and after the cuts of a training
DECILES = tuple(f"scales/{n}0 %" for n in range(1, 10))
Sections = list[tuple[str, list[Element]]]


def pruning_sections(run: RunFiles) -> Sections:
    """The sections of a sparse training or a cut; none of other runs."""
    scales = [*_scales(run), *_left(run)]
    parts: list[Element] = [tag("div", *scales, class_="cards")] if scales else []
    parts += _sweep(run)
    parts += _cut(run)
    return [("Pruning", parts)] if parts else []


def _scales(run: RunFiles) -> list[Element]:
    """The sizes of BN scales over time, and the shares of small ones."""
    epochs, median = run.curve(DECILES[4])
    if not epochs:
        return []
    deciles = [run.curve(name)[1] for name in DECILES]
    bands = [(epochs, deciles[i], deciles[8 - i]) for i in range(4)]
    small = {
        name.partition("/")[2]: run.curve(name)
        for name in dict.fromkeys(n for row in run.history.values() for n in row)
        if name.startswith("sparsity/")
    }
    return [
        chart(
            "Size of the penalized scales |γ|",
            {"median": (epochs, median)},
            y_label="bands: the middle 20, 40, 60, 80 %",
            bands=bands,
        ),
        chart("Share of small scales", small, unit=True),
    ]


def _left(run: RunFiles) -> list[Element]:
    """How much of the network is left, where it is cut while it trains."""
    names = {"parameters": "left/parameters", "operations": "left/operations"}
    curves = {title: run.curve(name) for title, name in names.items() if run.curve(name)[0]}
    return [chart("What is left of the network", curves, unit=True)] if curves else []


def _sweep(run: RunFiles) -> list[Element]:
    """How mAP falls with the share that is cut; for a cut, as its sparse training found."""
    source, marks = run.folder, dict[str, float]()
    if not isinstance(run.settings, TrainSettings):
        source = Path("runs") / Path(run.settings.network.weights or "?").parent.name
        if run.settings.pruning.percent_of == "channels" and run.report:
            marks = {"this cut": run.report.reached}
    if not (source / SWEEP).is_file():
        return []
    rows = read_sweep(source / SWEEP)
    shares = [row["percent"] for row in rows]
    curves = {
        "mAP@.5, BN re-estimated": (shares, [row["reestimated"] for row in rows]),
        "mAP@.5 as cut": (shares, [row["as_cut"] for row in rows]),
    }
    for name in ("parameters", "operations"):
        curves[f"{name} left"] = (shares, [row[name] / rows[0][name] for row in rows])
    cards = [chart("mAP against the share cut", curves, x_label="percent: the share that is cut",
                   unit=True, whole=False, marks=marks)]  # fmt: skip
    if timed := sorted((row["ms"], max(row["reestimated"], row["as_cut"])) for row in rows
                       if math.isfinite(row["ms"])):  # fmt: skip
        curve = {"mAP@.5": ([ms for ms, _ in timed], [ap for _, ap in timed])}
        cards.append(chart("mAP against milliseconds", curve, x_label="milliseconds an image",
                           unit=True, whole=False, lines=False))  # fmt: skip
    whose = "" if source == run.folder else f"Of the training {source.name}. "
    return [
        tag("h3", "How much can be cut"),
        tag("p", f"{whose}Cut by a share, not fine-tuned, measured on the validation photos."),
        tag("div", *cards, class_="cards"),
    ]


def read_sweep(path: Path) -> list[dict[str, float]]:
    """The rows of a sweep as `pruning.sweep.sweep_csv` writes them.

    Raises:
        InputError: the file is damaged.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
        names = ("percent", "as_cut", "reestimated", "parameters", "operations", "ms")
        return [{name: float(row[name]) for name in names} for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: expected the table of a sweep: {error}") from error


def _cut(run: RunFiles) -> list[Element]:
    """What a cut took, layer by layer, and what it came to."""
    path = run.folder / CHANNELS
    if run.report:
        parts, layers = _outcome(run.report), run.report.layers
    elif path.is_file():
        content = structured(_Layers, read_json(path), str(path))
        parts, layers = [], layer_figures(content.layers, str(path))
    else:
        return []
    return [*parts, tag("h3", "Channels before and after"), _layers(layers)]


@dataclass(frozen=True)
class _Layers:
    layers: tuple[dict[str, Any], ...]


def _outcome(report: CutFigures) -> list[Element]:
    rows = [
        [stage, *(f"{value:.4f}" for value in values)] for stage, values in report.mean_ap.items()
    ]
    a, b = report.before, report.after
    sizes = [
        [name, number(before), number(after), f"{after / before:.3f}" if before else ""]
        for name, before, after in (
            ("parameters", a.parameters, b.parameters),
            ("operations", a.operations, b.operations),
            (".weights, bytes", a.weights_bytes, b.weights_bytes),
            ("milliseconds an image", a.latency, b.latency),
        )
    ]
    cards = (
        tag("div", table(("validation photos", "mAP@.5", "mAP@.5:.95"), rows), class_="card"),
        tag("div", table(("", "before", "after", "ratio"), sizes), class_="card"),
        _plane(report),
    )
    notes = [tag("p", note, class_="soft") for note in report.notes]
    return [tag("h3", "The cut"), tag("div", *cards, class_="cards"), *notes]


def _plane(report: CutFigures) -> Element:
    """The network before and after in mAP and milliseconds."""
    mean_aps = [mean_ap for mean_ap, _ in report.mean_ap.values()]
    points = ([report.after.latency, report.before.latency], [mean_aps[-1], mean_aps[0]])
    return chart(
        "mAP against milliseconds",
        {"the cut network (left) and the whole one": points},
        x_label="milliseconds an image",
        y_label="mAP@.5",
        unit=True,
        whole=False,
    )


def _layers(layers: Sequence[LayerFigures]) -> Element:
    rows: list[list[Child]] = [
        [
            str(layer.layer),
            layer.kernel,
            str(layer.channels),
            str(layer.channels_now or "gone"),
            _share(layer.channels_now / layer.channels),
        ]
        for layer in layers
    ]
    head = ("layer", "kernel", "channels", "now", "kept")
    return tag("div", table(head, rows), class_="card")


def _share(share: float) -> Element:
    bar = tag("i", style=f"width:{100 * min(share, 1):.1f}%")
    return tag("span", bar, class_="meter", title=f"{share:.0%}")
