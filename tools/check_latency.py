"""How well does the table of layers predict the time of a whole cut network, on this machine?

    python -m tools.check_latency --engine onnxruntime --count 20
    python -m tools.check_latency --cfg config/yolov3-tiny.cfg --img_size 416

For each network: layers and a few random cuts are measured as latency_prune.py does, then other
random cuts are predicted and measured. A busy machine makes both times and errors larger.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from import_param import TORCH, Count, CsvFile, NetworkLimits, Runtime, Whole
from utils import errors
from utils.console.progress import say
from utils.settings.loader import load

if TYPE_CHECKING:
    from pruning.latency.predictor import PredictionCheck


@dataclass(frozen=True)
class LatencyCheck:
    """How well times are predicted."""

    # the networks, with any weights: these do not change a time
    cfg: tuple[str, ...] = (
        "config/yolov3.cfg",
        "config/yolov3-tiny.cfg",
        "config/yolov3-mobilenet.cfg",
        "config/yolov3-mobilenetv2.cfg",
    )
    img_size: Whole = 320  # input width and height, pixels; 0 = each .cfg's own
    count: Count = 20  # random cuts of each that are predicted and measured
    batch_size: Count = 1  # images at once; milliseconds are those of one of them
    latency_table: CsvFile = ""  # the file of measured layers; empty = one in runs/latency/

    def check(self) -> None:
        """Raises ValueError where there is nothing to do."""
        if not self.cfg:
            raise ValueError("cfg=(): expected at least one network")


@dataclass(frozen=True)
class LatencyCheckSettings:
    """Predict the times of random cuts, and measure them; see README.md."""

    check: LatencyCheck = LatencyCheck()
    runtime: Runtime = TORCH


HEAD = ["network", "cuts", "measured ms", "error, mean", "largest", "within 10 %"]


def row(name: str, check: "PredictionCheck") -> list[str]:
    """A network's row of the table, below `HEAD`."""
    errors = abs(check.errors)
    return [
        name,
        str(len(errors)),
        f"{check.measured.min():.2f} to {check.measured.max():.2f}",
        f"{errors.mean():.1%}",
        f"{errors.max():.1%}",
        f"{(errors <= 0.1).mean():.0%}",
    ]


FIRST_FLAGS = (  # of --help; --help_all has the others
    *("cfg", "img_size", "engine"),
    *("precision", "threads", "batch_size", "count", "latency_table"),
)


def main(argv: list[str] | None = None) -> None:
    """Fit, predict, measure and compare, network by network."""
    settings = load(LatencyCheckSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Here, so that --help and a mistyped flag are answered at once.
    from terminaltables import AsciiTable

    from models import netdef as cfg_files
    from models.darknet import Darknet
    from pruning.latency.meter import open_meter
    from pruning.latency.predictor import check_predictor, fit_predictor
    from utils.checkpoint.network import check_size

    side, networks = settings.check.img_size, []
    for cfg in settings.check.cfg:  # all are read before the first one is timed
        netdef = cfg_files.load(cfg)
        size = (side, side) if side else netdef.size
        check_size(netdef, size, NetworkLimits())
        networks.append((cfg, netdef, size))
    rows = []
    for cfg, netdef, size in networks:
        model = Darknet(netdef).eval()
        meter = open_meter(model, size, settings.runtime, batch=settings.check.batch_size)
        path = Path(settings.check.latency_table or meter.table_path)
        predictor = fit_predictor(model, size, meter, path)
        check = check_predictor(model, size, predictor, meter, settings.check.count)
        rows.append(row(Path(cfg).stem, check))
        say("; ".join(f"{head} {value}" for head, value in zip(HEAD, rows[-1], strict=True)))
    at_once = f"{settings.check.batch_size} at once"
    say(AsciiTable([HEAD, *rows], f"{meter.name}, {at_once}, {meter.conditions.machine}").table)


if __name__ == "__main__":
    sys.exit(errors.run(main))
