"""How are a network's milliseconds predicted? The one formula, and how its rates are fitted.

    network = constant + sum over its layers of
              factor[family] · table(layer, channels read, channels written)
              + rate["read"] · million values read
              + rate["shortcut"] or rate["route"] · million values that such a layer writes
              + rate["joins"] · the number of such layers

The table says what a layer takes alone, where what it reads is in the cache. In a network it is
not, and the layers around the convolutions have no rows; the rates say what that costs, on a
graphics card mostly to launch them. All of them are fitted to random cuts of the network that were
measured whole.

Example: of a network of one 1x1 convolution with a table's 2 ms that reads 3 million values, at
factor 1.1, 0.2 ms a million values read and a constant of 0.5 ms: 1.1 · 2 + 0.2 · 3 + 0.5 = 3.3 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.darknet import Darknet, shapes
from models.netdef import NetDef
from pruning.latency.meter import LatencyMeter, fill_table_, measure_channel_step
from pruning.latency.options import DEFAULTS, SearchOptions
from pruning.latency.search_space import (
    Configuration,
    Floats,
    RankedUnits,
    SearchSpace,
    find_search_space,
    random_configurations,
    width_options,
)
from pruning.latency.table import LatencyTable, WidthRange, layer_spec, read_table
from pruning.surgeon import Plan, cut
from utils.console.progress import say, track
from utils.errors import InputError
from utils.files.writing import alone

FAMILIES = ("1x1", "kxk", "grouped", "pooling")  # of layers in the table, see `LayerSpec.family`
# Million values that layers in the table read and that others write, and how many those others are.
JOINS = ("shortcut", "route")
RATED = ("read", *JOINS, "joins")


@dataclass(frozen=True)
class Coefficients:
    """What the predictor is fitted in.

    Attributes:
        factors: by family of layers, of the table's milliseconds.
        rates: by `RATED`, milliseconds for a million values that move, and for a join.
        constant: milliseconds of all else.
    """

    factors: Mapping[str, float]
    rates: Mapping[str, float]
    constant: float

    @property
    def vector(self) -> Floats:
        """In the order of `LatencyPredictor.features`: [features]."""
        return np.array([*self.factors.values(), *self.rates.values(), self.constant])

    @staticmethod
    def of(vector: Sequence[float]) -> Coefficients:
        """Of what `vector` holds."""
        count = len(FAMILIES)
        return Coefficients(
            dict(zip(FAMILIES, vector[:count], strict=True)),
            dict(zip(RATED, vector[count:-1], strict=True)),
            vector[-1],
        )


# A network that takes the sum of its layers' times in the table.
UNFITTED = Coefficients.of([*[1.0] * len(FAMILIES), *[0.0] * len(RATED), 0.0])


class LatencyPredictor:
    """Predicts the milliseconds of a network's cuts from its layers' widths."""

    def __init__(
        self,
        netdef: NetDef,
        size: tuple[int, int],
        table: LatencyTable,
        coefficients: Coefficients = UNFITTED,
    ) -> None:
        self.table, self.coefficients = table, coefficients
        self._maps = input_shapes(netdef, size)
        self._sections = [section.kind for section in netdef.layers]
        self.specs = [layer_spec(netdef, n, read[0]) for n, read in enumerate(self._maps)]

    def network(self, space: SearchSpace, configuration: Configuration) -> float:
        """Milliseconds of a whole network."""
        return float(self.features(space, configuration) @ self.coefficients.vector)

    def layer(self, layer: int, reads: Floats, writes: Floats) -> Floats:
        """Milliseconds of a layer by the channels that it reads and writes, arrays of one shape."""
        per_unit = {**self.coefficients.factors, **self.coefficients.rates}
        amounts = self._amounts(layer, reads, writes)
        return sum((per_unit[name] * amount for name, amount in amounts.items()), 0.0 * reads)

    def features(self, space: SearchSpace, configuration: Configuration) -> Floats:
        """What each coefficient is multiplied by: the sums over the layers, and 1: [features]."""
        totals = dict.fromkeys((*FAMILIES, *RATED), 0.0)
        for layer in space.layers(configuration):
            for name, amount in self._amounts(*layer).items():
                totals[name] += float(amount[0])
        return np.array([*totals.values(), 1.0])

    def _amounts(self, layer: int, reads: Floats, writes: Floats) -> dict[str, Floats]:
        """Of a layer, by family, milliseconds in the table, and what rates are multiplied by."""
        spec, (_, height, width) = self.specs[layer], self._maps[layer][0]
        millions = height * width / 1e6  # of values, for a channel
        if spec:
            alone = self.table.query(spec, reads, writes)
            return {spec.family: alone, "read": reads * millions}
        section = self._sections[layer]
        if section in JOINS:
            return {section: writes * millions, "joins": np.ones_like(writes)}
        return {}


def input_shapes(netdef: NetDef, size: tuple[int, int]) -> list[list[tuple[int, int, int]]]:
    """By layer, the shapes (channels, height, width) of the maps that it reads."""
    outputs = shapes(netdef, size)
    image = (netdef.channels, size[1], size[0])
    return [
        [outputs[source] if source >= 0 else image for source in netdef.sources(index)]
        for index in range(len(netdef.layers))
    ]


def fit_coefficients(
    features: Floats, measured: Floats, options: SearchOptions = DEFAULTS
) -> Coefficients:
    """What predicts measured networks best, by the mean square of the relative error.

    What these networks say little about is held near the table as it is, and all within what can
    be: else, where a busy machine disturbed the times, a fit would explain them by one part of the
    network alone.

    Args:
        features: [networks, features], see `LatencyPredictor.features`.
        measured: milliseconds, [networks].
        options: the prior and the bounds.
    """
    from scipy.optimize import lsq_linear

    relative = features / measured[:, None]
    # At least a little, for what no network has any of.
    prior = np.maximum(options.prior * np.sqrt((relative**2).sum(0)), 1e-9)
    rows = np.vstack([relative, np.diag(prior)])
    wanted = np.append(np.ones(len(measured)), prior * UNFITTED.vector)
    whole = float(np.median(measured / (features @ UNFITTED.vector)))
    families, rated = len(FAMILIES), len(RATED)
    low = [*[options.least_factor * whole] * families, *[0.0] * rated, 0.0]
    high = [
        *[options.most_factor * whole] * families,
        *[options.slowest_traffic * whole] * rated,
        np.inf,
    ]
    return Coefficients.of(lsq_linear(rows, wanted, bounds=(low, high)).x.tolist())


def fit_predictor(
    model: Darknet,
    size: tuple[int, int],
    meter: LatencyMeter,
    path: Path,
    tell: Callable[[str], None] = say,
    round_to: int = 0,
    coefficients: Coefficients | None = None,
    options: SearchOptions = DEFAULTS,
) -> LatencyPredictor:
    """Measure what is needed to predict a network's cuts, and fit the predictor to it.

    Measured are its layers, as far as the table lacks them, and some random cuts as a whole.

    Args:
        model: the network before it is cut.
        size: (width, height) of its images in pixels.
        meter: what times are measured with.
        path: the table's file, read and added to.
        tell: gets a line now and then.
        round_to: of the cuts to come: widths that are multiples of it are measured, too.
        coefficients: from an earlier fit under the same conditions, which spares the random cuts.
        options: how carefully.

    Raises:
        InputError: the file's table was measured under other conditions.
    """
    space = find_search_space(model.netdef)

    def ranges(table: LatencyTable) -> list[WidthRange]:
        return width_ranges(space, LatencyPredictor(model.netdef, size, table), round_to)

    table, count = measured_layers(path, ranges, meter, tell, options)
    predictor, step = LatencyPredictor(model.netdef, size, table), table.channel_step
    tell(f"{path}: {count} layers measured, the others known; channels in steps of {step}")
    if coefficients:
        return LatencyPredictor(model.netdef, size, table, coefficients)
    cuts = sample_cuts(space, step, options.sampled_cuts, 0, options)
    measured = measure_cuts(model, size, space, cuts, meter, options)
    features = np.array([predictor.features(space, configuration) for configuration in cuts])
    coefficients = fit_coefficients(features, measured, options)
    errors = np.abs(features @ coefficients.vector / measured - 1)
    tell(f"fitted to {len(cuts)} random cuts: {errors.mean():.1%} off on average")
    return LatencyPredictor(model.netdef, size, table, coefficients)


def expect_table_fits(path: Path, meter: LatencyMeter) -> None:
    """Refuse a file of a latency table that `measured_layers` could not add to, before any work.

    Raises:
        InputError: its table was measured under other conditions, or is none.
    """
    if path.exists():
        read_table(path, meter.conditions)


def measured_layers(
    path: Path,
    ranges: Callable[[LatencyTable], list[WidthRange]],
    meter: LatencyMeter,
    tell: Callable[[str], None],
    options: SearchOptions = DEFAULTS,
) -> tuple[LatencyTable, int]:
    """The table in a file or a new one, with all that it lacks; how many layers that were.

    Each layer is in the file once it is measured, so work that is stopped goes on from there. Of
    several processes one measures at a time: two would disturb each other, and the second one finds
    what the first one measured.

    Args:
        path: the table's file, read and added to.
        ranges: from the table, which knows the step, to the widths that layers may come to.
        meter: what times are measured with.
        tell: gets a line now and then.
        options: how carefully.

    Raises:
        InputError: the file's table was measured under other conditions, is none, or cannot be
            written.
    """
    if path.exists():
        table = read_table(path, meter.conditions)
        if not table.unchecked and not table.missing(ranges(table)):
            return table, 0
    with alone(path, lambda: tell(f"{path}: another process measures into it: waiting for that")):
        if path.exists():
            table = read_table(path, meter.conditions)
        else:
            table = LatencyTable(meter.conditions, measure_channel_step(meter, options))
        table.write(path)  # refused before the work, if it is
        return table, fill_table_(
            table, ranges(table), meter, options, keep=_Keeper(table, path, tell)
        )


@dataclass
class _Keeper:
    """Writes a table whenever it is called; what cannot be written for a moment stays in memory."""

    table: LatencyTable
    path: Path
    tell: Callable[[str], None]
    refused: bool = False

    def __call__(self) -> None:
        try:
            self.table.write(self.path)
        except InputError as error:
            if not self.refused:
                self.tell(f"note: {error}; what is measured is kept in memory, and tried again")
            self.refused = True
        else:
            self.refused = False


def width_ranges(
    space: SearchSpace, predictor: LatencyPredictor, round_to: int = 0
) -> list[WidthRange]:
    """The widths that layers may come to, down to one step of the latency.

    Args:
        space: the layers and groups.
        predictor: knows the layers' specs and the step.
        round_to: of the cuts to come; where it is less than the step, widths go down to it.
    """
    step = predictor.table.channel_step
    options = [width_options(space, 0.0, step, rounding) for rounding in {0, round_to}]
    by_group = list(zip(*options, strict=True))
    least = [min(map(min, widths)) for widths in by_group]
    most = [max(map(max, widths)) for widths in by_group]
    ranges = []
    for term in space.terms:
        if spec := predictor.specs[term.layer]:
            reads, writes = (
                (width.channels(least), width.channels(most)) for width in (term.reads, term.writes)
            )
            ranges.append(WidthRange(spec, reads, writes))
    return ranges


def sample_cuts(
    space: SearchSpace,
    channel_step: int,
    count: int,
    seed: int,
    options: SearchOptions = DEFAULTS,
) -> list[Configuration]:
    """Random cuts to measure, the same for a seed."""
    widths = width_options(space, 0.1, channel_step, options=options)
    rng = np.random.default_rng(seed)
    return list(random_configurations(space, widths, count, rng, options.block_removal))


def measure_cuts(
    model: Darknet,
    size: tuple[int, int],
    space: SearchSpace,
    cuts: Sequence[Configuration],
    meter: LatencyMeter,
    options: SearchOptions = DEFAULTS,
) -> Floats:
    """Milliseconds of a network's cuts, measured whole: [cuts]."""
    measured: list[float] = []
    firsts = range(0, len(cuts), options.networks_in_memory)
    for first in track(firsts, "timing random cuts"):
        networks = [
            cut(model, any_plan(space, configuration))
            for configuration in cuts[first : first + options.networks_in_memory]
        ]
        measured += meter.time_networks(networks, size, options.sample_rounds).tolist()
    return np.array(measured)


def any_plan(space: SearchSpace, configuration: Configuration) -> Plan:
    """A plan of a configuration's widths, whichever units these are: its time is the same."""
    unordered = RankedUnits(tuple(np.arange(len(group)) for group in space.groups), {})
    keep = unordered.keep(space.channels, configuration.counts)
    return Plan(space.netdef, keep, configuration.removed_blocks)


@dataclass(frozen=True, eq=False)
class PredictionCheck:
    """Predictions beside measurements of random cuts.

    Attributes:
        predicted: milliseconds, [networks].
        measured: milliseconds, [networks].
    """

    predicted: Floats
    measured: Floats

    @property
    def errors(self) -> Floats:
        """The predictions' errors as shares of the measured times: [networks]."""
        return self.predicted / self.measured - 1


def check_predictor(
    model: Darknet,
    size: tuple[int, int],
    predictor: LatencyPredictor,
    meter: LatencyMeter,
    count: int,
) -> PredictionCheck:
    """Predict and measure random cuts that the predictor was not fitted to."""
    space = find_search_space(model.netdef)
    cuts = sample_cuts(space, predictor.table.channel_step, count, 1)
    measured = measure_cuts(model, size, space, cuts, meter)
    predicted = [predictor.network(space, configuration) for configuration in cuts]
    return PredictionCheck(np.array(predicted), measured)
