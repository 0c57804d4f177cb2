"""Curves of several runs in one window."""

import json
from typing import Any

from utils.monitoring.compare import compared, send_comparison


def plot(title: str, *curves: str) -> dict[str, Any]:
    traces = [{"name": name, "x": [1], "y": [2], "line": {}} for name in curves]
    content = {"data": traces, "layout": {"title": title}}
    return {"id": title, "title": title, "type": "plot", "content": content, "i": 9, "width": 520}


MAP, LOSS = "Mean average precision", "Loss"
RUNS = {
    "z": {"l": plot(LOSS, "box", "class"), "m": plot(MAP, "mAP"), "t": {"type": "text"}},
    "a": {"m": plot(MAP, "mAP"), "l": plot(LOSS, "class"), "s": plot("Sparsity", "dead")},
}


def names(window: dict[str, Any]) -> list[str]:
    return [trace["name"] for trace in window["content"]["data"]]


def test_what_runs_share_is_shown_together_mean_ap_first() -> None:
    windows = compared(RUNS)
    assert [window["title"] for window in windows] == [MAP, LOSS]
    assert names(windows[0]) == ["z", "a"]  # a curve a run needs no other name
    assert names(windows[1]) == ["z box", "z class", "a class"]
    assert [window["i"] for window in windows] == [0, 1]


def test_a_run_has_a_colour_and_a_curve_a_stroke() -> None:
    for window in compared(RUNS):
        lines = {trace["name"]: trace["line"] for trace in window["content"]["data"]}
        colours = {name.split()[0]: line["color"] for name, line in lines.items()}
        assert len(set(colours.values())) == 2
    assert lines["z class"]["dash"] == lines["a class"]["dash"] != lines["z box"]["dash"]


def test_windows_of_the_runs_stay_as_they_are() -> None:
    before = json.dumps(RUNS)
    compared(RUNS)
    assert json.dumps(RUNS) == before


def test_runs_that_are_gone_are_left_out() -> None:
    class Socket:
        eid: object = None

        def __init__(self) -> None:
            self.messages: list[Any] = []

        def write_message(self, message: object) -> None:
            self.messages.append(message)

    socket = Socket()
    state = {name: {"jsons": windows} for name, windows in RUNS.items()}
    send_comparison(state, ["a", "gone", "z"], socket, "more", show_all=True)
    assert [m["title"] for m in socket.messages[:-1]] == [MAP, LOSS]
    assert json.loads(socket.messages[-1]) == {"command": "layout"}
