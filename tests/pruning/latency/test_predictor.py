"""Is a network's latency the sum that the predictor's formula says, and is it fitted right?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.darknet import Darknet
from models.netdef import parse
from pruning.latency.meter import LatencyMeter, RunImages
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import (
    FAMILIES,
    RATED,
    UNFITTED,
    Coefficients,
    LatencyPredictor,
    check_predictor,
    fit_coefficients,
    fit_predictor,
    measure_cuts,
    sample_cuts,
    width_ranges,
)
from pruning.latency.search_space import Configuration, Floats, SearchSpace, find_search_space
from pruning.latency.table import LatencyTable
from tests.pruning.fake_latency import (
    CONDITIONS,
    METER,
    count_instead_of_timing,
    counted_latency,
)
from tests.pruning.nets import config, trained

ONE_OF_EACH = """
[net]
width=16
height=16
channels=3
[convolutional]
batch_normalize=1
filters=16
size=1
stride=2
activation=leaky
[convolutional]
batch_normalize=1
filters=16
size=3
pad=1
activation=leaky
[shortcut]
from=-2
activation=linear
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=16
groups=16
size=3
pad=1
activation=leaky
[route]
layers=-1,-2
[convolutional]
filters=6
size=1
activation=linear
[yolo]
mask=0
anchors=4,4
classes=1
num=1
"""


def milliseconds(inputs: int, outputs: int, tied: bool) -> float:
    """Of a layer in the table below: linear in each width, so exact between its rows, too."""
    return 0.5 * inputs if tied else inputs * outputs / 100 + inputs


def predictor_of(text: str, vector: Sequence[float]) -> tuple[SearchSpace, LatencyPredictor]:
    netdef = parse(text)
    table = LatencyTable(CONDITIONS)
    space = find_search_space(netdef)
    predictor = LatencyPredictor(netdef, netdef.size, table, Coefficients.of(vector))
    for spec, inputs, outputs in table.missing(width_ranges(space, predictor)):
        table.add(spec, inputs, outputs, milliseconds(inputs, outputs, spec.tied))
    return space, predictor


@pytest.mark.parametrize("kept", [16, 10])
def test_features_are_sums_over_the_layers_as_they_are_cut(kept: int) -> None:
    space, predictor = predictor_of(ONE_OF_EACH, UNFITTED.vector.tolist())
    counts = tuple(kept if space.can_cut(n) else len(g) for n, g in enumerate(space.groups))
    features = predictor.features(space, Configuration(counts))
    expected = {
        "1x1": milliseconds(3, kept, False) + milliseconds(2 * kept, 6, False),
        "kxk": milliseconds(kept, kept, False),
        "grouped": milliseconds(kept, kept, True),
        "pooling": milliseconds(kept, kept, True),
        "read": (3 * 256 + (kept + kept) * 64 + (kept + 2 * kept) * 16) / 1e6,
        "shortcut": kept * 64 / 1e6,
        "route": 2 * kept * 16 / 1e6,
        "joins": 2.0,
        "constant": 1.0,
    }
    assert features == pytest.approx(np.array([*expected.values()]))
    assert [*FAMILIES, *RATED, "constant"] == [*expected]


def test_a_network_takes_what_its_layers_take_and_the_constant() -> None:
    vector = [1.1, 0.9, 2.0, 1.5, 30.0, 50.0, 70.0, 0.2, 0.4]
    space, predictor = predictor_of(ONE_OF_EACH, vector)
    whole = predictor.network(space, space.uncut)
    assert whole == pytest.approx(predictor.features(space, space.uncut) @ vector)
    assert whole == pytest.approx(space.latency(predictor.layer, space.uncut) + 0.4)
    # A layer that reads 16 channels of 8x8 pixels, and one that the table has no row of.
    ms = predictor.layer(1, np.array([16.0]), np.array([16.0]))
    assert ms == pytest.approx(0.9 * milliseconds(16, 16, False) + 30 * 16 * 64 / 1e6)
    ms = predictor.layer(2, np.array([16.0]), np.array([16.0]))
    assert ms == pytest.approx(50 * 16 * 64 / 1e6 + 0.2)


def test_what_coefficients_hold_survives_a_vector() -> None:
    vector = list(range(1, len(FAMILIES) + len(RATED) + 2))
    coefficients = Coefficients.of(vector)
    assert coefficients.vector.tolist() == vector
    assert coefficients.factors["kxk"] == 2 and coefficients.rates["read"] == 5
    assert coefficients.constant == 9


@pytest.mark.parametrize("slower", [1, 100])
def test_a_fit_finds_the_coefficients_that_networks_obey(slower: int) -> None:
    """On a machine as fast as the table's, and where all is slower."""
    rng = np.random.default_rng(0)
    truth = Coefficients.of(
        [slower * value for value in (1.3, 0.8, 2.0, 1.0, 0.5, 0.0, 3.0, 0.1, 4.0)]
    )
    features = rng.uniform(1, 9, (40, len(FAMILIES) + len(RATED) + 1))
    features[:, -1] = 1
    found = fit_coefficients(features, features @ truth.vector)
    assert np.abs(features @ found.vector / (features @ truth.vector) - 1).max() < 0.01
    alone = fit_coefficients(np.zeros((3, 9)) + UNFITTED.vector, np.full(3, UNFITTED.vector.sum()))
    assert np.allclose(alone.vector, UNFITTED.vector, atol=1e-6)


def test_noise_is_not_explained_by_one_part_of_the_network() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(0.5, 1, (20, 9)) * [3, 9, 1, 0.2, 0.3, 0.1, 0.1, 0.1, 1]
    features[:, -1] = 1
    noise = rng.uniform(0.3, 3, 20)
    found = fit_coefficients(features, features @ UNFITTED.vector * noise)
    factors = np.array(list(found.factors.values())) / np.median(noise)
    assert factors.min() >= 0.19 and factors.max() <= 5.01
    assert max(found.rates.values()) <= 10 * np.median(noise)


def test_what_networks_say_nothing_about_stays_as_the_table_says() -> None:
    """The pooling family is in none of them, and its factor 1; the others are twice as slow."""
    features = np.random.default_rng(0).uniform(1, 2, (20, 9)) * [1, 1, 1, *[0] * 6]
    fitted = fit_coefficients(features, 2 * features.sum(1))
    assert list(fitted.factors.values()) == pytest.approx([2, 2, 2, 1], rel=0.01)
    assert [*fitted.rates.values(), fitted.constant] == pytest.approx([0] * 5, abs=1e-6)


def test_each_network_counts_alike_however_long_it_takes() -> None:
    """Two that take 1 and 100 ms, of which one is 20 % slower: the errors are shared by ratio."""
    features = np.array([[1.0, *[0] * 8], [100.0, *[0] * 8]])
    slow_first = fit_coefficients(features, np.array([1.2, 100.0]))
    slow_last = fit_coefficients(features, np.array([1.0, 120.0]))
    assert slow_first.factors["1x1"] == pytest.approx(slow_last.factors["1x1"], rel=1e-3)
    assert 1.05 < slow_last.factors["1x1"] < 1.15


def test_random_cuts_are_measured_a_few_at_a_time_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_instead_of_timing(monkeypatch)
    at_once = []

    class Meter(LatencyMeter):
        def time_runs(
            self, runs: Sequence[RunImages], size: tuple[int, int], rounds: int
        ) -> Floats:
            at_once.append((len(runs), rounds))
            return super().time_runs(runs, size, rounds)

    meter = Meter(METER.name, METER.open, CONDITIONS)
    model = trained(config("yolov3-lite", thinner=8), 0)
    space = find_search_space(model.netdef)
    cuts = sample_cuts(space, 4, 7, seed=0)
    options = SearchOptions(networks_in_memory=3, sample_rounds=2)
    measured = measure_cuts(model, model.netdef.size, space, cuts, meter, options)
    assert at_once == [(3, 2), (3, 2), (1, 2)]
    assert measured[0] == counted_latency(model.netdef) and len(measured) == 7
    alone = [measure_cuts(model, model.netdef.size, space, [c], meter, options)[0] for c in cuts]
    assert measured.tolist() == alone


def test_random_cuts_go_down_to_about_a_tenth_of_a_layer() -> None:
    space = find_search_space(config("yolov3-tiny"))
    free = [n for n in range(len(space.groups)) if space.can_cut(n)]
    shares = [
        [cut.counts[n] / len(space.groups[n]) for n in free] for cut in sample_cuts(space, 4, 20, 0)
    ]
    assert 0.1 <= np.min(shares) < 0.15 and min(shares[0]) == 1


def test_a_fit_under_the_same_conditions_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = Darknet(config("yolov3-lite", thinner=8)).eval()
    size, path = model.netdef.size, tmp_path / "table.csv"
    told: list[str] = []
    first = fit_predictor(model, size, METER, path, told.append)
    assert told[-1].startswith("fitted to 20 random cuts: ") and len(told) == 2
    written = path.read_bytes()

    def time_in_turns(*_: object) -> Floats:
        raise AssertionError("measured again")

    monkeypatch.setattr("pruning.latency.meter.time_in_turns", time_in_turns)
    monkeypatch.setattr("pruning.latency.meter.shortest_time", time_in_turns)
    again = fit_predictor(model, size, METER, path, told.append, 0, first.coefficients)
    assert again.coefficients == first.coefficients and path.read_bytes() == written
    space = find_search_space(model.netdef)
    assert again.network(space, space.uncut) == first.network(space, space.uncut)


def test_a_check_is_made_on_other_cuts_than_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    timed: list[str] = []

    class Meter(LatencyMeter):
        def time_runs(
            self, runs: Sequence[RunImages], size: tuple[int, int], rounds: int
        ) -> Floats:
            timed.extend(run.netdef.text() for run in runs if isinstance(run, Darknet))
            return super().time_runs(runs, size, rounds)

    meter = Meter(METER.name, METER.open, CONDITIONS)
    model = Darknet(config("yolov3-tiny", thinner=4)).eval()
    predictor = fit_predictor(model, model.netdef.size, meter, tmp_path / "table.csv")
    fitted_to = set(timed)
    assert len(timed) == 20
    timed.clear()
    check = check_predictor(model, model.netdef.size, predictor, meter, 20)
    assert len(timed) == 20 and len(set(timed) & fitted_to) <= 2, "the widest may be the same"
    assert check.errors == pytest.approx((check.predicted - check.measured) / check.measured)
    space = find_search_space(model.netdef)
    assert check.predicted[0] == predictor.network(space, space.uncut)
    assert check.measured[0] == counted_latency(model.netdef)
