"""Do processes that train together come to what one does with as many times the batch?"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from models.netdef import parse
from tests.processes import finish, small_data_set, start
from tests.pruning.test_sparsity import BLOCK
from tests.utils.training.together import CASES
from utils.data.datasets import EpochSampler, PartsOfBatches, SharedBatches
from utils.processes import distributed
from utils.training.loop import has_idle_layers

pytestmark = pytest.mark.xdist_group("together")  # `results` take a minute

SCRIPT = ("-m", "tests.utils.training.together")
Results = dict[str, dict[str, torch.Tensor | float]]  # by case


def trained(world: int, folder: Path) -> list[Results]:
    """What each of so many processes came to."""
    for code, _, errors in finish(start(world, [*SCRIPT, "."], folder)):
        assert code == 0, errors
    return [torch.load(folder / f"{rank} of {world}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Results]]:
    """Of one process alone, and of two."""
    folder = tmp_path_factory.mktemp("together")
    small_data_set(folder, train=1, valid=71)
    small_data_set(folder / "one", train=1, valid=1)
    return trained(1, folder)[0], trained(2, folder)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "own statistics"])
def test_two_processes_come_to_what_one_does_with_twice_the_batch(
    results: tuple[Results, list[Results]], case: str
) -> None:
    """Losses, weights and BN statistics after 20 batches, of the network and its running mean."""
    alone, (main, _) = results
    assert len(alone[case]) > 80
    torch.testing.assert_close(main[case], alone[case], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_processes_keep_the_same_networks_to_the_bit(
    results: tuple[Results, list[Results]], case: str
) -> None:
    main, other = (result[case] for result in results[1])
    torch.testing.assert_close(main, other, rtol=0, atol=0)


@pytest.mark.slow
def test_figures_of_71_photos_are_those_of_one_process_to_the_digit(
    results: tuple[Results, list[Results]],
) -> None:
    alone, (main, other) = results
    assert alone["evaluated"]["photos"] == 71
    torch.testing.assert_close(main["evaluated"], alone["evaluated"], rtol=0, atol=0)
    torch.testing.assert_close(other["evaluated"], alone["evaluated"], rtol=0, atol=0)


@pytest.mark.slow
def test_a_process_without_any_photo_has_the_figures_of_the_other(
    results: tuple[Results, list[Results]],
) -> None:
    alone, both = results
    assert alone["one photo"]["photos"] == 1
    for result in both:
        torch.testing.assert_close(
            result["one photo"], alone["one photo"], rtol=0, atol=0, equal_nan=True
        )


def as_one_of(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world", lambda: world)


@pytest.mark.parametrize(("photos", "world"), [(10, 2), (71, 2), (7, 3), (9, 4), (40, 3)])
def test_processes_see_each_photo_once_in_the_batches_of_one(
    monkeypatch: pytest.MonkeyPatch, photos: int, world: int
) -> None:
    order = [index for _, index in EpochSampler(photos, seed=1)]
    parts = []
    for rank in range(world):
        as_one_of(monkeypatch, rank, world)
        batches = PartsOfBatches(EpochSampler(photos, seed=1), batch_size=2)
        parts.append([[index for _, index in batch] for batch in batches])
        assert len(batches) == len(parts[-1]) and all(parts[-1])
    together = [list(chain(*parts_of_one)) for parts_of_one in zip(*parts, strict=True)]
    assert list(chain(*together)) == order
    assert all(len(batch) == 2 * world for batch in together[:-1])


def test_evaluation_shares_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(2):
        as_one_of(monkeypatch, rank, 2)
        batches = SharedBatches(71, batch_size=8)
        shares.append(list(batches))
        assert len(batches) == len(shares[-1]) and sorted(batches.order()) == list(range(71))
    assert [len(share) for share in shares] == [5, 4]
    assert shares[0][-1] == list(range(64, 71))


def test_layers_that_no_head_depends_on_are_known() -> None:
    idle = "[convolutional]\nbatch_normalize=1\nfilters=5\nactivation=leaky\n[route]\nlayers=-2\n"
    last = BLOCK.rindex("[convolutional]")
    assert not has_idle_layers(parse(BLOCK))
    assert has_idle_layers(parse(BLOCK[:last] + idle + BLOCK[last:]))
