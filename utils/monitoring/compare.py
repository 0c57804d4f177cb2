"""How do runs compare? Their plots of one title in one window: a colour a run, a stroke a curve."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from utils.visualization.colours import as_hex, series_colour
from utils.visualization.curves import PLOTS

Window = dict[str, Any]  # as Visdom's server keeps and sends it

STROKES = ("solid", "dot", "dash", "dashdot", "longdash")  # of plotly
LEGEND = {"orientation": "h", "x": 0, "y": -0.3, "yanchor": "top"}  # below: runs have long names


def send_comparison(
    state: Mapping[str, Any], runs: Sequence[str], socket: Any, *_: Any, **__: Any
) -> None:
    """Show runs beside each other on the page behind `socket`; in place of Visdom's own function.

    That one needs the runs in alphabetical order, and calls their curves by numbers.
    """
    for window in compared({run: state[run]["jsons"] for run in runs if run in state}):
        socket.write_message(window)
    socket.write_message(json.dumps({"command": "layout"}))
    socket.eid = list(runs)


def compared(runs: Mapping[str, Mapping[str, Window]]) -> list[Window]:
    """A window for each plot that at least two runs have, those that we know first, in order.

    Args:
        runs: of each, its windows by their ids.
    """
    plots: dict[str, dict[str, Window]] = {}
    for run, windows in runs.items():
        for window in windows.values():
            if window.get("type") == "plot" and window.get("title"):
                plots.setdefault(window["title"], {})[run] = window
    order = [title for title, *_ in PLOTS.values()]
    shared = {title: plot for title, plot in plots.items() if len(plot) > 1}
    titles = sorted(shared, key=lambda title: order.index(title) if title in order else len(order))
    return [_together(title, shared[title], tuple(runs), i) for i, title in enumerate(titles)]


def _together(title: str, plot: Mapping[str, Window], runs: Sequence[str], place: int) -> Window:
    window = copy.deepcopy(next(iter(plot.values())))
    curves = list(
        dict.fromkeys(t.get("name", "") for w in plot.values() for t in w["content"]["data"])
    )
    traces = []
    for run, own in plot.items():
        for trace in copy.deepcopy(own["content"]["data"]):
            curve = trace.get("name", "")
            colour = as_hex(series_colour(runs.index(run)))
            trace["name"] = f"{run} {curve}" if len(curves) > 1 else run
            trace["line"] = {
                **(trace.get("line") or {}),
                "color": colour,
                "dash": STROKES[curves.index(curve) % len(STROKES)],
            }
            trace["marker"] = {**(trace.get("marker") or {}), "color": colour}
            traces.append(trace)
    window["content"]["data"] = traces
    window["content"]["layout"] |= {"showlegend": True, "legend": LEGEND}
    name = f"compare-{title}"
    return window | {"id": name, "contentID": f"{name} {runs}", "i": place, "has_compare": True}
