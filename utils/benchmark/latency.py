"""How fast are networks on engines, in each precision, on this machine? Measured in turns.

What is timed is `engine(images)`: from images in the memory of the device that computes to the raw
maps, without reading photos, resizing, decoding of boxes or NMS. Peers decode boxes as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from import_param import Benchmark
from models.costs import count_operations, count_parameters
from models.weights import to_bytes
from utils.backends.exported import ExportedFile
from utils.benchmark.networks import Candidate, Key, PeerNetwork, Run
from utils.devices import choose_device, wait_for
from utils.timing import interleaved, spread, to_its_end

# What stands for the peak: a 3x3 convolution, as many channels in as out, on a square map.
PEAK_CHANNELS, PEAK_SIDE = 256, 64
PEAK_OPERATIONS = 2 * 9 * PEAK_CHANNELS**2 * PEAK_SIDE**2  # for one image
PEAK_IMAGES = {"cuda": 16}  # at once, else 1; of one, a card would be waiting for Python
UPSTREAM = "pytorchyolo"  # the peer that others are compared with


@dataclass(frozen=True)
class Row:
    """One network on one engine. What was not measured is nan."""

    network: str
    engine: str
    precision: str
    batch: int
    device: str
    ms: float  # median for the whole batch
    ms_low: float  # lower quartile
    ms_high: float  # upper quartile
    images_per_s: float  # at the median
    speedup: float  # against the first network on the same engine and device
    upstream: float  # against the same network, batch and device in UPSTREAM
    of_peak: float  # operations a second, as a share of what `Peak` reaches there in float32
    parameters: int
    operations: int  # for one image
    file_mb: float  # of a Darknet .weights or the exported file, in 10^6 bytes
    memory_mb: float = math.nan  # as `utils.benchmark.memory` measures it, in 10^6 bytes
    mean_ap: float = math.nan  # mAP@.5, by `utils.benchmark.accuracy`

    @property
    def key(self) -> Key:
        """What the row is about."""
        return Key(self.network, self.engine, self.precision, self.batch, self.device)


def measure(
    candidates: Sequence[Candidate],
    opened: Mapping[Key, Run],
    settings: Benchmark,
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Time everything in turns.

    Args:
        candidates: the networks; the first is what others are compared with.
        opened: what is timed.
        settings: its `rounds` and `seconds` count; at least one round is done.
        keep: gets the rows after each round.
    """
    sizes = {candidate.name: candidate.size for candidate in candidates}
    devices = {key.device: choose_device(key.device) for key in opened}
    inputs = {
        key: torch.rand(key.batch, 3, *reversed(sizes[key.network])).to(devices[key.device])
        for key in opened
    }
    names = {str(key): key for key in opened}
    peaks = {name: Peak(device) for name, device in devices.items()}
    runs: dict[str, Callable[[], object]] = {
        f"peak {name}": to_its_end(peak, peak.images) for name, peak in peaks.items()
    }
    runs |= {name: to_its_end(opened[key], inputs[key]) for name, key in names.items()}

    costs = {candidate.name: costs_of(candidate) for candidate in candidates}

    def rows_of(times: Mapping[str, list[float]]) -> list[Row]:
        reached = {
            name: peak.operations / (min(times[f"peak {name}"]) / 1000)
            for name, peak in peaks.items()
        }
        by_key = {key: times[name] for name, key in names.items()}
        rows = make_rows(candidates, by_key, reached, costs)
        return [_with_own_counts(row, opened[row.key]) for row in rows]

    times = interleaved(
        runs,
        settings.rounds,
        seconds=settings.seconds,
        after_round=lambda times: keep(rows_of(times)),
    )
    return rows_of(times)


class Peak:
    """A convolution that reaches a device's peak.

    Not a product of matrices: on an AMD EPYC torch's reaches 99 GFLOP/s a core, this 238.

    Attributes:
        images: to call it with.
        operations: of a call.
    """

    def __init__(self, device: torch.device) -> None:
        """Make its images and its kernel."""
        count = PEAK_IMAGES.get(device.type, 1)
        self.operations = count * PEAK_OPERATIONS
        images = torch.rand(count, PEAK_CHANNELS, PEAK_SIDE, PEAK_SIDE, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        kernel = torch.rand(PEAK_CHANNELS, PEAK_CHANNELS, 3, 3, device=device)
        self._kernel = kernel.contiguous(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """The convolution."""
        return F.conv2d(images, self._kernel, padding=1)

    def synchronize(self) -> None:
        """Wait for the card."""
        wait_for(self.images.device)


def _with_own_counts(row: Row, run: Run) -> Row:
    """A peer's row counts the operations and parameters of its own network."""
    if not isinstance(run, PeerNetwork):
        return row
    return replace(
        row,
        of_peak=row.of_peak * run.operations / row.operations,
        parameters=run.parameters,
        operations=run.operations,
        file_mb=math.nan,
    )


class Costs(NamedTuple):
    """What a network costs on any engine, see `Row`."""

    operations: int
    parameters: int
    file_mb: float


def costs_of(candidate: Candidate) -> Costs:
    """The costs of a network."""
    if isinstance(candidate.model, ExportedFile):
        about, (width, height) = candidate.model.description, candidate.size
        share = width * height / (about.input.width * about.input.height)
        megabytes = candidate.model.bytes / 1e6
        return Costs(round(about.operations * share), about.parameters, megabytes)
    return Costs(
        count_operations(candidate.model.netdef, candidate.size),
        count_parameters(candidate.model),
        len(to_bytes(candidate.model)) / 1e6,
    )


def make_rows(
    candidates: Sequence[Candidate],
    times: Mapping[Key, list[float]],
    peaks: Mapping[str, float],
    costs: Mapping[str, Costs] | None = None,
) -> list[Row]:
    """The table's rows.

    Args:
        candidates: the networks.
        times: milliseconds in each round.
        peaks: operations a second that each device reaches.
        costs: of each network; None to work them out.
    """
    costs = costs or {candidate.name: costs_of(candidate) for candidate in candidates}
    medians = {key: spread(values)[0] for key, values in times.items()}
    rows = []
    for key, values in times.items():
        ms, low, high = spread(values)
        network = costs[key.network]
        first = medians.get(key._replace(network=candidates[0].name), math.nan)
        upstream = medians.get(key._replace(engine=UPSTREAM, precision="fp32"), math.nan)
        rows.append(
            Row(
                *key,
                ms=ms,
                ms_low=low,
                ms_high=high,
                images_per_s=1000 * key.batch / ms,
                speedup=first / ms,
                upstream=upstream / ms,
                of_peak=network.operations * key.batch / (ms / 1000) / peaks[key.device],
                parameters=network.parameters,
                operations=network.operations,
                file_mb=network.file_mb,
            )
        )
    return rows
