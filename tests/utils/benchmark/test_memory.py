"""Does a network's memory grow with the network?"""

import pytest

from models.darknet import Darknet
from models.netdef import NetDef, parse
from utils.benchmark.latency import make_rows
from utils.benchmark.memory import SMALL, with_memory
from utils.benchmark.networks import Candidate, Key


def network(filters: int) -> NetDef:
    return parse(SMALL.replace("filters=8\nsize=3", f"filters={filters}\nsize=99"), "wide")


@pytest.mark.slow  # it starts processes
def test_the_weights_are_in_what_is_measured() -> None:
    candidates = [
        Candidate(name, Darknet(network(filters)).eval(), (64, 64))
        for name, filters in (("thin", 8), ("wide", 800))
    ]
    times = {Key(c.name, "torch", "fp32", 1): [1.0] for c in candidates}
    thin, wide = with_memory(candidates, make_rows(candidates, times, peak=1e9), 1, {})
    more = wide.memory_mb - thin.memory_mb
    weights = wide.file_mb - thin.file_mb
    assert 0.8 * weights < more < 4 * weights
