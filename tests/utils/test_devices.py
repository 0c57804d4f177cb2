"""Where is computed, and what is kept there?"""

import pytest
import torch
from torch import Tensor

from utils.devices import CPU, choose_device, constant, on_device, to_device, wait_for
from utils.errors import InputError


def test_devices_are_chosen_or_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(InputError, match="device='gpu'"):
        choose_device("gpu")
    with pytest.raises(InputError, match="device='cuda:99': expected one that torch has here"):
        choose_device("cuda:99")


def test_a_card_that_torch_has_no_kernels_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory can be had of such a card; its first kernel fails."""

    def ones(*size: int, device: torch.device) -> Tensor:
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might be")

    monkeypatch.setattr(torch, "empty", lambda *size, device: Tensor())
    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(InputError, match=r"device='cuda:0': .*: CUDA error: no kernel image is .*"):
        choose_device("cuda:0")


def test_a_constant_is_made_once_for_each_type_and_fits_where_there_are_gradients() -> None:
    like = torch.zeros(1)
    with torch.inference_mode():
        first = constant(((1.5, 2.0), (3.0, 4.0)), like)
    assert constant(((1.5, 2.0), (3.0, 4.0)), like) is first
    assert first.dtype == torch.float32 and first.tolist() == [[1.5, 2.0], [3.0, 4.0]]
    assert constant(((1.5, 2.0), (3.0, 4.0)), like.double()).dtype == torch.float64
    (torch.ones(2, 2, requires_grad=True) * first).sum().backward()


def test_a_tensor_that_is_there_already_is_not_copied() -> None:
    tensor = torch.zeros(3)
    assert to_device(tensor, torch.device("cpu")) is tensor


def test_a_module_that_is_elsewhere_is_copied() -> None:
    module = torch.nn.Linear(2, 2)
    assert on_device(module, CPU) is module
    moved = on_device(module, torch.device("meta"))
    assert moved.weight.is_meta and module.weight.device == CPU


def test_cards_of_all_makers_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: waited.append(str(device)))
    for name in ("cpu", "cuda:1", "mps"):
        wait_for(torch.device(name))
    assert waited == ["cuda:1", "mps"]
