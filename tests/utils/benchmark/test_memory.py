"""Does a network's memory grow with the network?"""

import pytest

from models.darknet import Darknet
from models.netdef import NetDef, parse
from utils.benchmark.latency import Candidate, Row, rows
from utils.benchmark.memory import SMALL, STATUS, with_memory

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="this system tells no memory")


def wide(filters: int) -> NetDef:
    return parse(SMALL.replace("filters=8\nsize=3", f"filters={filters}\nsize=99"), "wide")


@pytest.mark.slow  # it starts processes
def test_the_weights_are_in_what_is_measured() -> None:
    candidates = [
        Candidate(name, Darknet(wide(filters)).eval(), (64, 64))
        for name, filters in (("thin", 8), ("wide", 800))
    ]
    times = {(c.name, "torch", "fp32", 1): [1.0] for c in candidates}
    found: list[Row] = with_memory(candidates, rows(candidates, times, peak=1e9), threads=1)
    more = found[1].memory_mb - found[0].memory_mb
    weights = found[1].file_mb - found[0].file_mb
    assert 0.8 * weights < more < 4 * weights
