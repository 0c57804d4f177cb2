"""Do processes that train together come to what one does with as many times the batch?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.netdef import parse
from tests.processes import finish, start
from tests.pruning.test_sparsity import BLOCK
from tests.utils.training.together import CASES
from utils.training.loop import has_idle_layers

SCRIPT = ("-m", "tests.utils.training.together")
Results = dict[str, dict[str, torch.Tensor | float]]  # by case


def trained(world: int, folder: Path) -> list[Results]:
    """What each of so many processes came to."""
    for code, _, errors in finish(
        start(world, ["-m", "tests.utils.training.together", "."], folder)
    ):
        assert code == 0, errors
    return [torch.load(folder / f"{rank} of {world}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Results]]:
    """Of one process alone, and of two."""
    folder = tmp_path_factory.mktemp("together")
    return trained(1, folder)[0], trained(2, folder)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "own statistics"])
def test_two_processes_come_to_what_one_does_with_twice_the_batch(
    results: tuple[Results, list[Results]], case: str
) -> None:
    """Losses, weights and BN statistics after 20 batches, of the network and its running mean."""
    alone, (main, _) = results
    assert len(alone[case]) > 100
    torch.testing.assert_close(main[case], alone[case], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_processes_keep_the_same_networks_to_the_bit(
    results: tuple[Results, list[Results]], case: str
) -> None:
    main, other = (result[case] for result in results[1])
    torch.testing.assert_close(main, other, rtol=0, atol=0)


def test_layers_that_no_head_depends_on_are_known() -> None:
    idle = "[convolutional]\nbatch_normalize=1\nfilters=5\nactivation=leaky\n[route]\nlayers=-2\n"
    last = BLOCK.rindex("[convolutional]")
    assert not has_idle_layers(parse(BLOCK))
    assert has_idle_layers(parse(BLOCK[:last] + idle + BLOCK[last:]))
