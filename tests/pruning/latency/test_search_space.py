"""Does the search space hold the cuts that there are, and are the important units kept?"""

from dataclasses import replace

import numpy as np
import pytest

from models.netdef import parse
from pruning.latency.options import SearchOptions
from pruning.latency.search_space import (
    Configuration,
    Width,
    find_search_space,
    random_configurations,
    rank_units,
    width_options,
)
from tests.pruning.nets import config

CONV = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=1\nactivation=linear\n"
ADD = "[shortcut]\nfrom={}\nactivation=linear\n"
LAST = "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n"
HEAD = f"{LAST}[yolo]\nmask=0\nanchors=8,8\nclasses=1\nnum=1"
# Layers 1 to 5 are a block with the shortcut 5; layers 2 and 3 are one inside it.
NESTED = f"[net]\nwidth=8\nheight=8\n{CONV}{CONV}{CONV}{ADD.format(-2)}{CONV}{ADD.format(-5)}{HEAD}"


def test_what_is_inside_a_removed_block_takes_no_time() -> None:
    space = find_search_space(parse(NESTED))
    assert space.outer_blocks == {3: 5, 5: -1}

    def latency(removed: tuple[int, ...]) -> float:
        configuration = Configuration(space.uncut.counts, removed)
        return space.latency(lambda layer, reads, writes: 0 * reads + 10**layer, configuration)

    assert latency(()) == 1111111
    assert latency((3,)) == 1110011
    assert latency((5,)) == latency((3, 5)) == 1000001
    assert space.with_inner_blocks([5]) == {3, 5} and space.with_inner_blocks([3]) == {3}
    assert {term.layer for term in space.without((3,)).terms} == {0, 1, 4, 5, 6}
    assert space.without((5,)).outer_blocks == {}


def test_a_width_counts_what_is_fixed_and_what_units_are_kept() -> None:
    assert Width(3, ((0, 2), (2, 1))).channels((5, 100, 7)) == 3 + 2 * 5 + 7


def test_options_are_steps_between_the_least_and_all() -> None:
    space = find_search_space(config("yolov3"))
    for options, group in zip(width_options(space, 0.25, 16), space.groups, strict=True):
        if group.kept_because:
            assert options == [len(group)]
            continue
        assert options[-1] == len(group) and options[0] >= 0.25 * len(group)
        step = min(16, max(1, len(group) // 4))
        assert all(count % step == 0 for count in options[:-1]) and len(options) <= 10


def test_a_narrow_group_keeps_one_step_at_least() -> None:
    space = find_search_space(config("yolov3-tiny", thinner=4))
    for layer_keep, round_to in [(0.0, 0), (0.01, 3), (1.0, 0)]:
        for widths, group in zip(
            width_options(space, layer_keep, 8, round_to), space.groups, strict=True
        ):
            assert widths[0] > 0 and widths[0] >= layer_keep * len(group) - 1e-9
            assert widths == sorted(set(widths)) and widths[-1] == len(group)
            assert not round_to or all(count % round_to == 0 for count in widths[:-1])


def test_widths_rise_by_about_one_factor() -> None:
    space = find_search_space(config("yolov3"))
    number = max(range(len(space.groups)), key=lambda n: space.can_cut(n) * len(space.groups[n]))
    widths = np.array(width_options(space, 0.1, 1, 1, SearchOptions(widths_per_group=6))[number])
    ratios = widths[1:] / widths[:-1]
    assert len(widths) == 6 and np.allclose(ratios, 10 ** (1 / 5), rtol=0.05)


def test_random_cuts_go_from_the_whole_network_to_narrow_ones_without_blocks() -> None:
    space = find_search_space(config("yolov3"))
    widths = width_options(space, 0.1, 8)
    cuts = list(random_configurations(space, widths, 20, np.random.default_rng(0), 0.5))
    assert cuts[0] == space.uncut and len(set(cuts)) == 20
    free = [n for n in range(len(widths)) if space.can_cut(n)]
    shares = [np.mean([cut.counts[n] / space.uncut.counts[n] for n in free]) for cut in cuts]
    assert np.mean(shares[:7]) > np.mean(shares[7:14]) > np.mean(shares[14:])
    assert shares[-1] < 0.4
    for cut in cuts:
        assert all(count in options for count, options in zip(cut.counts, widths, strict=True))
        assert list(cut.removed_blocks) == sorted(cut.removed_blocks)
    narrowest = [len(cut.removed_blocks) / len(space.outer_blocks) for cut in cuts[-4:]]
    assert np.mean(narrowest) == pytest.approx(0.5, abs=0.2)


def test_units_are_kept_by_the_importance_of_all_their_channels() -> None:
    """Layers 0 and 1 meet in a shortcut: unit i is channel i of both."""
    text = f"[net]\nwidth=8\nheight=8\n{CONV}{CONV}{ADD.format(-2)}{HEAD}"
    space = find_search_space(parse(text))
    importance = {0: np.array([4.0, 1, 0, 2]), 1: np.array([0.0, 1, 5, 2])}
    ranking = rank_units(space, importance)
    (number,) = [n for n in range(len(space.groups)) if space.can_cut(n)]
    assert ranking.order[number].tolist() == [2, 0, 3, 1]  # 5, 4 and 4 (the first one first), 2
    assert ranking.cumulative[0][1].tolist() == [0, 0, 4, 6, 7]
    assert ranking.cumulative[1][1].tolist() == [0, 5, 5, 7, 8]
    counts = [1 if space.can_cut(n) else len(group) for n, group in enumerate(space.groups)]
    keep = ranking.keep(space.channels, counts)
    assert keep[space.groups[number].units].tolist() == [False, False, True, False]
    assert keep.sum() == len(keep) - 3


def test_blocks_of_one_trunk_and_equal_layers_are_alike() -> None:
    """Of the five stages of darknet-53; a block that is wider inside is another one."""
    netdef = config("yolov3", thinner=16)
    alike = find_search_space(netdef).alike_blocks()
    assert sorted(map(len, alike)) == [1, 2, 4, 8, 8]
    assert len({block for blocks in alike for block in blocks}) == 23
    layers = list(netdef.layers)
    wider = alike[1][0] - 2
    layers[wider] = layers[wider].with_options(filters=6)
    other = find_search_space(replace(netdef, layers=tuple(layers))).alike_blocks()
    assert sorted(map(len, other)) == [1, 1, 1, 4, 8, 8]
