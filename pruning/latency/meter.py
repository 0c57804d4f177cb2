"""How long does a network, or a layer alone, take on an engine of this machine?"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from import_param import DataSet, Runtime
from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.latency.options import DEFAULTS, SearchOptions
from pruning.latency.table import Conditions, Floats, LatencyTable, LayerSpec, WidthRange
from utils.backends import ENGINES, EngineOptions, engine_device, open_engine
from utils.backends.base import Engine
from utils.backends.float_layers import OPTIONS as FLOAT_LAYERS
from utils.backends.runtime import calibration_photos, check_runnable
from utils.console.progress import track
from utils.devices import CPU, on_device
from utils.timing import cpu_name, interleaved, machine, spread, to_its_end, version

RunImages = Callable[[Tensor], object]  # runs a network on images, [B, 3, height, width]
OpenNetwork = Callable[[Darknet, tuple[int, int]], RunImages]  # for images of (width, height)


@dataclass(frozen=True)
class LatencyMeter:
    """An engine of this machine, on which networks are timed, all with as many images at once.

    Attributes:
        name: the engine and its precision, in words.
        open: makes a network ready to run.
        conditions: what its measurements hold for.
        device: where it computes.
    """

    name: str
    open: OpenNetwork
    conditions: Conditions
    device: torch.device = CPU

    @property
    def table_path(self) -> Path:
        """Where its latency table is kept if the user names no other file."""
        by = self.conditions
        card = re.sub(r"[^\w.]+", "-", by.machine.partition(",")[0]).strip("-")
        where = by.threads if self.device.type == "cpu" else card
        at_once = f"-batch{by.batch}" if by.batch > 1 else ""
        return Path("runs/latency") / f"{by.engine}-{by.precision}-{where}{at_once}.csv"

    def images(self, size: tuple[int, int]) -> Tensor:
        """What networks are timed on: noise of (width, height), where it is computed."""
        return noise_images(size, self.conditions.batch).to(self.device)

    def time_networks(
        self, networks: Sequence[Darknet], size: tuple[int, int], rounds: int
    ) -> Floats:
        """Milliseconds an image of (width, height) of networks that take turns: [networks]."""
        return self.time_runs([self.open(network, size) for network in networks], size, rounds)

    def time_runs(self, runs: Sequence[RunImages], size: tuple[int, int], rounds: int) -> Floats:
        """The same of networks that are open."""
        return time_in_turns(runs, self.images(size), rounds)


def open_meter(
    model: Darknet,
    size: tuple[int, int],
    runtime: Runtime,
    data: DataSet | None = None,
    batch: int = 1,
) -> LatencyMeter:
    """The engine and precision that a user asked for; "auto" is the fastest for this network.

    In int8, networks of this size are calibrated on a few of the user's photos, which also decide
    which layers stay in float; single layers on noise, since their times do not depend on it.
    Only the network as it is is compared with itself in float: one that was just cut detects less.

    All networks are timed where this one is: on the CPU, or on its graphics card if the engine
    computes there.

    Args:
        model: the network.
        size: (width, height) of its input in pixels.
        runtime: the engine.
        data: a data set whose photos int8 is calibrated on, where `runtime` names none.
        batch: images at once.

    Raises:
        InputError: the engine cannot run the network, or loses too much of it in int8.
    """
    check_runnable(runtime, data)
    device = engine_device(runtime.engine, model.device)
    photos = None
    if runtime.precision == "int8":
        photos = [calibration_photos(runtime, data, size, False, FLOAT_LAYERS.photos)]

    def open_as(
        engine: str,
        precision: str,
        model: Darknet,
        inputs: tuple[int, int],
        int8_loss: float | None = None,
    ) -> Engine:
        options = EngineOptions(
            inputs,
            precision,
            batch,
            runtime.threads,
            calibration=photos if photos is None or inputs == size else [noise_images(inputs)],
            int8_loss=int8_loss,
            use_cache=False,
        )
        return open_engine(engine, on_device(model, device), options)

    engine: str = runtime.engine
    precision: str = runtime.precision
    if "auto" in (engine, precision) or photos:  # int8 is to be worth its time before it is timed
        opened = open_as(engine, precision, model, size, runtime.int8_loss)
        engine, precision = opened.name, opened.precision
    threads = f", threads: {runtime.threads}" if runtime.threads else ""
    return LatencyMeter(
        f"{engine} {precision}{threads}",
        partial(open_as, engine, precision),
        _conditions(engine, precision, runtime.threads, device, batch),
        device,
    )


def _conditions(
    engine: str, precision: str, threads: int, device: torch.device, batch: int
) -> Conditions:
    packages = ENGINES[engine].required_packages(precision)
    return Conditions(
        engine=engine,
        precision=precision,
        versions=" ".join(f"{name}-{version(name)}" for name in packages),
        machine=cpu_name() if device.type == "cpu" else machine(device),
        threads=(threads or torch.get_num_threads()) if device.type == "cpu" else 0,
        batch=batch,
    )


def noise_images(size: tuple[int, int], count: int = 1) -> Tensor:
    """Images of (width, height) as networks get them, the same each time: [count, 3, H, W]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size[1], size[0], generator=generator)


def time_in_turns(runs: Sequence[RunImages], images: Tensor, rounds: int) -> Floats:
    """Milliseconds an image of networks that take turns: [runs].

    They are the lower quartile of the rounds, the median of their better half, which a machine
    that is busy with other things disturbs least.
    """
    calls = {str(n): to_its_end(run, images) for n, run in enumerate(runs)}
    times = interleaved(calls, rounds, clock=time.perf_counter)
    return np.array([spread(times[str(n)])[1] for n in range(len(runs))]) / len(images)


def shortest_time(run: RunImages, images: Tensor, options: SearchOptions = DEFAULTS) -> float:
    """The least milliseconds an image that a network took: all that disturbs it adds to them."""
    times: list[float] = []
    call = to_its_end(run, images)
    call()
    end = time.perf_counter() + options.least_seconds
    while len(times) < options.least_runs or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return min(times) / len(images)


class LayerMeter:
    """Measures layers alone; of each network that it runs, the shortest time so far counts.

    A layer is over before the time can be taken, and a network's ends cost more than it. So
    several copies of it, each with weights of its own, read one map, and only a pixel of what they
    write is read; what the network takes that reads as many pixels without them is subtracted: to
    launch what reads a pixel takes a graphics card as long as to launch a layer.
    """

    def __init__(self, meter: LatencyMeter, options: SearchOptions = DEFAULTS) -> None:
        self._meter, self._options = meter, options
        self._times: dict[object, tuple[int, float]] = {}  # network → last attempt, milliseconds

    def layer(self, spec: LayerSpec, inputs: int, outputs: int, attempt: int = 0) -> float:
        """Milliseconds an image of a layer; what this attempt measured already is not run again."""
        shape = (inputs, spec.height, spec.width)
        around = self._shortest(None, shape, 0, attempt)
        with_layers = self._shortest(spec, shape, outputs, attempt)
        return max(0.0, with_layers - around) / self._options.layer_copies

    def _shortest(
        self, spec: LayerSpec | None, shape: tuple[int, int, int], outputs: int, attempt: int
    ) -> float:
        key = (spec, shape, outputs)
        last_attempt, least = self._times.get(key, (-1, np.inf))
        if last_attempt < attempt:
            netdef = layer_net(spec, shape, outputs, self._options.layer_copies)
            run, images = self._open(netdef), self._meter.images(netdef.size)
            least = min(least, shortest_time(run, images, self._options))
            self._times[key] = (attempt, least)
        return least

    def _open(self, netdef: NetDef) -> RunImages:
        return self._meter.open(Darknet(netdef).eval(), netdef.size)


def layer_net(
    spec: LayerSpec | None,
    shape: tuple[int, int, int],
    outputs: int,
    copies: int = DEFAULTS.layer_copies,
) -> NetDef:
    """A network of copies of one layer that read one map.

    Args:
        spec: the layer; None for the map in its place.
        shape: (channels, height, width) of the map.
        outputs: the channels that the layer writes.
        copies: how many.
    """
    channels, height, width = shape
    lines = [f"[net]\nwidth={width}\nheight={height}\nchannels=3"]
    lines.append(f"[convolutional]\nfilters={channels}\nsize=1\nactivation=linear")
    lines.append(_one_pixel(height, width))
    layer, end = list[str](), _one_pixel(height, width)
    if spec is not None:
        name, *options = spec.text.split()
        layer = [f"[{name}]", *options]
        scale = 64 if name == "upsample" else 2  # more than any window makes of a map
        padding = 2 * sum(int(o.partition("=")[2]) for o in options if o.startswith("padding="))
        end = _one_pixel(scale * height + padding, scale * width + padding)
        if name == "convolutional":
            layer.append(f"filters={outputs}")
            layer.append(f"groups={channels // spec.group_inputs if spec.group_inputs else 1}")
    pixels = [1]
    for _ in range(copies):
        lines += ["[route]\nlayers=0", *layer, end]
        pixels.append(pixels[-1] + (3 if layer else 2))
    lines.append(f"[route]\nlayers={','.join(map(str, pixels))}")
    lines.append("[convolutional]\nfilters=6\nsize=1\nactivation=linear")
    lines.append("[yolo]\nmask=0\nanchors=8,8\nclasses=1\nnum=1")
    return parse("\n".join(lines))


def _one_pixel(height: int, width: int) -> str:
    return f"[maxpool]\nsize=1\nstride={max(height, width)}"


def fill_table_(
    table: LatencyTable,
    ranges: Iterable[WidthRange],
    meter: LatencyMeter,
    options: SearchOptions = DEFAULTS,
    keep: Callable[[], None] = lambda: None,
) -> int:
    """Measure what a table lacks for these widths, and again what was disturbed.

    Args:
        table: what is measured is added to it.
        ranges: the widths that layers may come to.
        meter: what they are measured with.
        options: its fields of layers alone.
        keep: called after each layer, to write the table.

    Returns:
        How many layers were measured.
    """
    missing = table.missing(ranges)
    if not missing and not table.unchecked:
        return 0
    earlier = table.keys() if table.unchecked else []
    new, specs = {*earlier, *missing}, {spec for spec, *_ in (*earlier, *missing)}
    table.unchecked = True
    waiting, layers = missing, LayerMeter(meter, options)
    for attempt in range(options.layer_attempts):
        title = "timing disturbed layers" if attempt else "timing layers"
        for spec, inputs, outputs in track(waiting, title):
            table.add(spec, inputs, outputs, layers.layer(spec, inputs, outputs, attempt))
            keep()
        waiting = [key for key in noisy(table, specs, options) if key in new]
    table.unchecked = False
    keep()
    return len(missing)


def noisy(
    table: LatencyTable, specs: Iterable[LayerSpec], options: SearchOptions = DEFAULTS
) -> list[tuple[LayerSpec, int, int]]:
    """Neighbours in the table of which the narrower layer takes clearly more time.

    While one of them was measured, something else ran.

    Returns:
        (spec, inputs, outputs), both of each pair.
    """
    doubtful: dict[tuple[LayerSpec, int, int], None] = {}
    for spec in sorted(specs):
        points = table.points[spec]
        for widths, ms in points.items():
            for wider in _next_wider(spec, widths, points):
                if ms > options.noise * points[wider]:
                    doubtful |= {(spec, *widths): None, (spec, *wider): None}
    return list(doubtful)


def _next_wider(
    spec: LayerSpec, widths: tuple[int, int], points: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The next wider points: along both widths where these are tied, else along each."""
    i, o = widths
    if spec.tied:
        lines = [[key for key in points if key != widths and key[0] >= i and key[1] >= o]]
    else:
        lines = [
            [key for key in points if key[0] == i and key[1] > o],
            [key for key in points if key[1] == o and key[0] > i],
        ]
    return [min(line) for line in lines if line]


def measure_channel_step(meter: LatencyMeter, options: SearchOptions = DEFAULTS) -> int:
    """In how many channels latency rises.

    This is the largest step to which the inputs and outputs of a 3x3 convolution can be rounded up
    at hardly any cost.
    """
    side = options.step_map
    spec = LayerSpec("convolutional activation=leaky pad=1 size=3 stride=1", 0, 0, side, side)
    layers = LayerMeter(meter, options)
    times = {
        width: max(layers.layer(spec, width, width), 1e-9)
        for width in track(range(68, 129, 4), "timing widths")
    }
    for step in options.channel_steps:
        rounded = {width: -(-width // step) * step for width in times if width % step}
        longer = sum(np.log(times[up] / times[width]) for width, up in rounded.items())
        # Twice: the operations grow with inputs and with outputs.
        more_operations = sum(2 * np.log(up / width) for width, up in rounded.items())
        if longer <= options.step_cost * more_operations:
            return step
    return min(options.channel_steps)
