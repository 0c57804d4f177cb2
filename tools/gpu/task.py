"""What is a step asked to do?"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from import_param import Count, Positive, Share

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
SIDE, SMALL_SIDE = 320, 64  # pixels, of networks' inputs


@dataclass(frozen=True)
class GpuCheck:
    """What is checked, on which card, and for how long."""

    steps: tuple[str, ...] = ()  # which, by name; none = all
    device: str = "cuda"  # cuda, cuda:1, ...; cpu = the same in small, to try this script
    minutes: Positive = 10.0  # for all together; what has not begun by then is not started
    data: str = ""  # a data set to train on as well, such as BCCD; empty = none
    cfg: str = "config/yolov3-tiny.cfg"  # the network that is trained on it,
    weights: str = ""  # from these; empty = the published ones
    epochs: Count = 25  # of that training
    mean_ap: Share = 0.0  # mAP@.5 that it came to on a CPU, such as 0.869; 0 = not known
    output: str = "runs/check_gpu"  # folder for check_gpu.md, .json and .log

    def with_absolute_paths(self) -> GpuCheck:
        """The same for a process that works in another folder."""
        data, cfg, weights = (
            os.path.abspath(path) if path else ""  # noqa: PTH100  links stay
            for path in (self.data, self.cfg, self.weights)
        )
        return replace(self, data=data, cfg=cfg, weights=weights)


@dataclass(frozen=True)
class Task:
    """What a step works with, in a folder that the steps share and leave networks in.

    Attributes:
        check: what the user asked for, its paths absolute.
    """

    check: GpuCheck

    @property
    def small(self) -> bool:
        """Whether it is only tried, on the CPU."""
        return self.check.device == "cpu"

    @property
    def side(self) -> int:
        """Of the networks' inputs, in pixels."""
        return self.of(SIDE, SMALL_SIDE)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        from utils.devices import choose_device

        return choose_device(self.check.device)

    def of(self, on_card: T, in_small: T) -> T:
        """How much is done: by the check itself, and where it is only tried on the CPU."""
        return in_small if self.small else on_card
