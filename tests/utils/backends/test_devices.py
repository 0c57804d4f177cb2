"""Does each engine compute where it can, whatever the network is on?"""

import pytest
import torch

from import_param import Runtime, TrainedNetwork
from tests.utils.backends.test_backends import trained
from utils.backends import ENGINES, EngineOptions, engine_device, open_engine, registry, runtime
from utils.checkpoint.network import Network
from utils.devices import CPU
from utils.errors import InputError

CARD = torch.device("cuda")
ON_CPUS = [name for name in ENGINES if name != "torch"]


def test_torch_computes_on_cards_and_the_others_on_cpus() -> None:
    assert [engine_device(name, CARD) for name in ("auto", "torch")] == [CARD, CARD]
    assert {engine_device(name, CARD) for name in ON_CPUS} == {CPU}


def test_a_network_on_a_card_is_copied_for_an_engine_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here one that is nowhere plays the part of one on a card."""
    copied: list[torch.device] = []

    def on_device(model: object, device: torch.device) -> object:
        copied.append(device)
        return trained()

    monkeypatch.setattr(registry, "on_device", on_device)
    open_engine("opencv", trained().to("meta"), EngineOptions((64, 64)))
    assert copied == [CPU]


@pytest.mark.parametrize(
    ("engine", "device", "expected"),
    [
        ("opencv", "auto", "cpu"),
        ("opencv", "cpu", "cpu"),
        ("torch", "auto", "auto"),
        ("torch", "cuda:1", "cuda:1"),
        ("auto", "auto", "auto"),
    ],
)
def test_a_network_is_loaded_to_where_its_engine_computes(
    monkeypatch: pytest.MonkeyPatch, engine: str, device: str, expected: str
) -> None:
    opened: list[str] = []

    def load_network(settings: TrainedNetwork) -> Network:
        opened.append(settings.device)
        return Network(trained(), ("a",), (64, 64), False)

    monkeypatch.setattr(runtime, "load_network", load_network)
    chosen = Runtime(engine=engine)  # type: ignore[arg-type]
    runtime.load_any_network(TrainedNetwork(weights="a.pt", device=device), chosen)
    assert opened == [expected]


def test_a_card_is_refused_for_an_engine_on_the_cpu() -> None:
    wanted = TrainedNetwork(weights="a.pt", device="cuda")
    with pytest.raises(InputError, match=r"device='cuda': expected auto or cpu: opencv computes"):
        runtime.load_any_network(wanted, Runtime(engine="opencv"))
