"""Does a network run on a card at all, and is the card waited for no more often than must be?

There is no card here. That tensors are on one device and no number of them is read shows with
torch's fake tensors, which know their device and shape but hold no numbers; how often a program
would wait, in what it calls on the CPU.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from import_param import Nms
from models import head
from models.darknet import Darknet
from models.head import decode
from tests.operators import FROM_PYTHON, Calls
from tests.pruning.nets import config
from utils.errors import InputError
from utils.evaluation.evaluate import predict
from utils.structures import Detections

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


@pytest.mark.parametrize("photos", [1, 3])
def test_a_batch_waits_once_for_the_network_and_thrice_a_photo(photos: int) -> None:
    """NMS asks how many candidates there are: of objectness, of scores, and torchvision inside."""
    torch.manual_seed(0)
    model = Darknet(config("yolov3-lite", thinner=4)).eval()
    images = torch.rand(photos, 3, 64, 64)
    nms = Nms(conf_thres=0.2, max_detections=10)
    sizes = [(64, 64)] * photos
    predict(model, images, sizes, nms, letterbox=False)  # constants go to the card once
    forward: list[dict[str, int]] = []
    with Calls() as calls:
        detections = predict(
            model, images, sizes, nms, letterbox=False,
            on_network_done=lambda: forward.append(calls.waits),
        )  # fmt: skip
    assert all(len(each) for each in detections)
    assert forward == [{}]
    waits = calls.waits
    # Three of a photo's transform, on the CPU, where the detections are by then; torchvision's one.
    assert waits.pop(FROM_PYTHON) == 4 * photos
    assert waits == {"_local_scalar_dense": 1, "nonzero": 2 * photos}


def test_the_detections_of_a_batch_come_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.evaluation import evaluate

    many = [
        Detections(torch.rand(n, 4) * 1e4, torch.rand(n), torch.randint(80, (n,)))
        for n in (3, 0, 2)
    ]
    with FakeTensorMode():
        fake = [
            Detections(
                torch.empty(n, 4, device=CARD),
                torch.empty(n, device=CARD),
                torch.empty(n, dtype=torch.int64, device=CARD),
            )
            for n in (3, 0, 2)
        ]
        with Calls() as calls:
            copied = evaluate._on_cpu(fake)
    assert calls.names["_to_copy"] == 1 + len(fake)  # and the labels, which are whole numbers
    assert [each.boxes.shape for each in copied] == [(3, 4), (0, 4), (2, 4)]
    assert {value.device.type for each in copied for value in vars(each).values()} == {"cpu"}
    assert evaluate._on_cpu(many) is many


def test_the_finite_are_told_from_the_others_map_by_map() -> None:
    maps = [torch.ones(1, 2, 2, 2), torch.ones(1, 2, 4, 4)]
    with Calls() as calls:
        head.expect_finite(maps, "it")
    assert calls.waits == {"_local_scalar_dense": 1}
    maps[1][0, 0, 0, 0] = math.inf
    with pytest.raises(InputError, match="computes inf \\(map 1\\)"):
        head.expect_finite(maps, "it")
