"""How well does the table of layers predict the time of a whole cut network, on this machine?

    python -m tools.check_latency --backend onnxruntime --count 20
    python -m tools.check_latency --cfgs config/yolov3-tiny.cfg --img_size 416

For each network: layers and a few random cuts are measured as latency_prune.py does, then other
random cuts are predicted and measured. A busy machine makes both times and errors larger.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from terminaltables import AsciiTable

from import_param import TORCH, Count, CsvFile, Runtime, Whole
from models import netdef as cfg_files
from models.darknet import Darknet
from pruning.latency.search import Check, check_clock, learn_clock
from pruning.latency.table import timer
from utils import errors
from utils.checkpoint import check_size
from utils.settings import load


@dataclass(frozen=True)
class LatencyCheck:
    """How well times are predicted."""

    # the networks, with any weights: these do not change a time
    cfgs: tuple[str, ...] = (
        "config/yolov3.cfg",
        "config/yolov3-tiny.cfg",
        "config/yolov3-mobilenet.cfg",
        "config/yolov3-mobilenetv2.cfg",
    )
    img_size: Whole = 320  # input width and height, pixels; 0 = each .cfg's own
    count: Count = 20  # random cuts of each that are predicted and measured
    latency_table: CsvFile = ""  # the file of measured layers; empty = one in runs/latency/

    def check(self) -> None:
        if not self.cfgs:
            raise ValueError("cfgs=(): expected at least one network")


@dataclass(frozen=True)
class LatencyCheckSettings:
    """Predict the times of random cuts, and measure them; see README.md."""

    check: LatencyCheck = LatencyCheck()
    runtime: Runtime = TORCH


def row(name: str, check: Check) -> list[str]:
    wrong = np.abs(check.errors)
    return [
        name,
        str(len(wrong)),
        f"{check.measured.min():.2f} to {check.measured.max():.2f}",
        f"{wrong.mean():.1%}",
        f"{wrong.max():.1%}",
        f"{(wrong <= 0.1).mean():.0%}",
    ]


def main(argv: list[str] | None = None) -> None:
    p = load(LatencyCheckSettings, argv)
    rows = [["network", "cuts", "measured ms", "error, mean", "largest", "within 10 %"]]
    for cfg in p.check.cfgs:
        netdef = cfg_files.load(cfg)
        side = p.check.img_size
        size = (side, side) if side else netdef.size
        check_size(netdef, size)
        model = Darknet(netdef).eval()
        engine = timer(model, size, dataclasses.asdict(p.runtime))
        path = Path(p.check.latency_table) if p.check.latency_table else engine.table
        clock = learn_clock(model, size, path, engine.about, engine.open, print)
        check = check_clock(model, size, clock, engine.open, p.check.count)
        rows.append(row(Path(cfg).stem, check))
        print("; ".join(f"{head} {value}" for head, value in zip(*rows[:1], rows[-1], strict=True)))
    print(AsciiTable(rows, f"{engine.name}, {engine.about['machine']}").table)


if __name__ == "__main__":
    sys.exit(errors.run(main))
