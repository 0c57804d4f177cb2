"""Does a network run on a card at all, and is the card waited for no more often than must be?

There is no card here. That tensors are on one device and no number of them is read shows with
torch's fake tensors, which know their device and shape but hold no numbers; how often a program
would wait, in what it calls on the CPU.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from import_param import Nms
from models import head
from models.darknet import Darknet
from models.head import decode
from tests import pretended_card
from tests.operators import Calls
from tests.pretended_card import CardTensor
from tests.pruning.nets import config
from utils.errors import InputError
from utils.evaluation import nms
from utils.evaluation.nms import non_maximum_suppression
from utils.structures import Detections, Predictions

CARD = torch.device("cuda", 0)


@pytest.mark.parametrize(
    "name",
    [
        "yolov3-lite",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("yolov3-spp", "yolov3-tiny", "yolov3-mobilenetv2")
        ),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_forward_and_decode_stay_on_a_card_and_read_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype
) -> None:
    def constant(values: Any, like: Tensor) -> Tensor:  # the true one asks for a driver
        return torch.zeros_like(torch.tensor(values), dtype=like.dtype, device=like.device)

    monkeypatch.setattr(head, "constant", constant)
    model = Darknet(config(name)).eval()
    size, state = (64, 64), model.state_dict()
    with FakeTensorMode(), torch.inference_mode():
        on_card = {
            name: torch.empty(value.shape, dtype=dtype, device=CARD)
            for name, value in state.items()
        }
        images = torch.empty(1, 3, *size, dtype=dtype, device=CARD)
        maps = torch.func.functional_call(model, on_card, (images,))
        predictions = decode(maps, model.heads, size)
    assert {each.device for each in (*maps, *vars(predictions).values())} == {CARD}


pretended = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")


@pytest.fixture
def waits() -> Iterator[Counter[str]]:
    """How often which function waited for the card; see pretended_card.py."""
    torch._C._ensureCUDADeviceGuardSet()
    pretended_card.waits.clear()
    yield pretended_card.waits
    pretended_card.waits.clear()


def proposals(photos: int) -> Predictions:
    """Random ones, of which the last photo has none that is likely."""
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(photos, 300, 2, generator=random) * 100
    sides = 5 + 20 * torch.rand(photos, 300, 2, generator=random)
    objectness = torch.rand(photos, 300, generator=random)
    objectness[-1] = 0
    classes = torch.rand(photos, 300, 4, generator=random)
    return Predictions(torch.cat([corners, corners + sides], 2), objectness, classes)


def on_card(predictions: Predictions) -> Predictions:
    boxes, objectness, classes = map(CardTensor, vars(predictions).values())
    return Predictions(boxes, objectness, classes)


@pretended
@pytest.mark.parametrize("power", [None, 0.6])
@pytest.mark.parametrize("photos", [1, 2, 20])
def test_nms_waits_once_however_many_photos_there_are(
    waits: Counter[str], photos: int, power: float | None
) -> None:
    predictions, settings = proposals(photos), Nms(0.5, 0.45, 100)
    detections = non_maximum_suppression(on_card(predictions), settings, power)
    assert waits.total() == 1
    expected = non_maximum_suppression(predictions, settings, power)
    assert list(map(as_lists, detections)) == list(map(as_lists, expected))
    assert all(len(each) for each in detections[:-1])


@pretended
def test_nms_waits_once_more_for_candidates_that_were_not_looked_at_first(
    waits: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nms, "FIRST_CANDIDATES", 80)
    predictions, settings = proposals(20), Nms(0.001, 0.1, 60)
    detections = non_maximum_suppression(on_card(predictions), settings)
    assert waits.total() == 2
    expected = non_maximum_suppression(predictions, settings)
    assert list(map(as_lists, detections)) == list(map(as_lists, expected))


def as_lists(detections: Detections) -> list[object]:
    assert all(each.device.type == "cpu" for each in vars(detections).values())
    return [each.tolist() for each in vars(detections).values()]


def test_the_finite_are_told_from_the_others_map_by_map() -> None:
    maps = [torch.ones(1, 2, 2, 2), torch.ones(1, 2, 4, 4)]
    with Calls() as calls:
        head.expect_finite(maps, "it")
    assert calls.waits == {"_local_scalar_dense": 1}
    maps[1][0, 0, 0, 0] = math.inf
    with pytest.raises(InputError, match="computes inf \\(map 1\\)"):
        head.expect_finite(maps, "it")
