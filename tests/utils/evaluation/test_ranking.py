"""The order of detections, and where scores are equal."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.ranking import best_first, top

scores = st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75]), max_size=12)


@given(scores)
def test_the_higher_score_goes_first_and_of_equal_ones_the_earlier(values: list[float]) -> None:
    order = best_first(torch.tensor(values)).tolist()
    assert order == sorted(range(len(values)), key=lambda index: (-values[index], index))


@given(scores, st.integers(1, 12))
def test_the_top_ends_with_all_that_tie_with_the_last(values: list[float], count: int) -> None:
    order = best_first(torch.tensor(values)).tolist()
    lowest = values[order[min(count, len(order)) - 1]] if order else 0
    assert top(torch.tensor(values), count).tolist() == [i for i in order if values[i] >= lowest]
