"""Is a network as a CUDA graph the network? Played on the CPU, see `fake_cuda`."""

import gc
import time
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.darknet import Darknet
from tests.pruning.nets import config
from tests.utils.backends.fake_cuda import FakeGraph, graphs
from utils.backends import EngineOptions, open_engine, torch_engine
from utils.backends.base import maps_agree
from utils.backends.cuda_graph import Run, captured
from utils.backends.fold import folded
from utils.backends.torch_engine import faster_on_card

__all__ = ["graphs"]
SHAPE = (2, 3, 64, 64)


def network(name: str = "yolov3-lite") -> Darknet:
    torch.manual_seed(0)
    return folded(Darknet(config(name, thinner=4)).eval())


@pytest.mark.parametrize("name", ["yolov3-lite", "yolov3-tiny", "yolov3"])
@torch.inference_mode()
def test_each_call_gives_the_networks_maps_and_leaves_earlier_ones_alone(
    graphs: list[FakeGraph], name: str
) -> None:
    model = network(name)
    run = captured(model, torch.rand(SHAPE))
    first, second = torch.rand(SHAPE), torch.rand(SHAPE)
    maps, others = run(first), run(second)
    assert graphs[0].replays == 2
    for given, expected in ((maps, model(first)), (others, model(second))):
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    for one, other in zip(maps, others, strict=True):
        assert not torch.equal(one, other)


def test_a_graph_runs_outside_inference_mode_too(graphs: list[FakeGraph]) -> None:
    run = captured(lambda images: [images + 1], torch.zeros(1))
    assert run(torch.ones(1))[0].item() == 2


def test_a_graph_keeps_the_weights_that_it_reads(graphs: list[FakeGraph]) -> None:
    """A card's graph knows addresses only: what lies there must not be given to others."""
    model = network()
    weights = weakref.ref(model.layers[0].conv.weight)
    run = captured(model, torch.rand(SHAPE))
    graphs[0].forget()
    del model
    gc.collect()
    assert weights() is not None
    del run
    gc.collect()
    assert weights() is None


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 0.02), ("bf16", 0.1)]
)
def test_the_engine_of_a_card_gives_the_networks_maps(
    graphs: list[FakeGraph], monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    """All of it but the card; also a batch that is smaller, and the end of cuDNN's trials."""
    monkeypatch.setattr(torch_engine, "is_card", lambda device: True)
    monkeypatch.setattr(torch_engine, "has_fast_bfloat16", lambda device: True)
    monkeypatch.setattr(torch_engine, "_quicker", lambda graph, *_, **__: graph)
    model, images = network(), torch.rand(3, *SHAPE[1:])
    engine = open_engine("torch", model, EngineOptions((64, 64), precision, batch=2))
    replays = graphs[0].replays
    with torch.inference_mode():
        assert maps_agree(engine(images), model(images), tolerance)
    assert graphs[0].replays == replays + 2
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_tried_for_the_engine_alone(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    """torch shares the chosen ones between all calls of a shape that are as deterministic."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "deterministic", deterministic)
    monkeypatch.setattr(cudnn, "benchmark", not deterministic)
    monkeypatch.setattr(torch_engine, "is_card", lambda device: True)
    seen: list[tuple[bool, bool]] = []

    def run(images: Tensor) -> list[Tensor]:
        seen.append((cudnn.benchmark, cudnn.deterministic))
        return [images]

    monkeypatch.setattr(torch_engine, "faster_on_card", lambda model, images, wait: run)
    engine = open_engine("torch", network(), EngineOptions((64, 64)))
    engine(torch.rand(1, 3, 64, 64))
    assert set(seen) == {(True, False)}
    assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)


@pytest.mark.parametrize(("slow", "replays"), [("layers", True), ("graph", False)])
def test_the_faster_way_is_taken(monkeypatch: pytest.MonkeyPatch, slow: str, replays: bool) -> None:
    """The time until the card is done counts: calls return at once."""
    busy_until = 0.0

    def takes(seconds: float) -> Run:
        def run(images: Tensor) -> list[Tensor]:
            nonlocal busy_until
            busy_until = max(busy_until, time.perf_counter()) + seconds
            return [images]

        return run

    def wait() -> None:
        time.sleep(max(0.0, busy_until - time.perf_counter()))

    layers, graph = (takes(0.01 if slow == name else 0.001) for name in ("layers", "graph"))
    monkeypatch.setattr(torch_engine, "captured", lambda run, images: graph)
    assert faster_on_card(layers, torch.rand(1), wait) is (graph if replays else layers)


def test_what_cannot_be_captured_is_told_once_and_runs_layer_by_layer(
    graphs: list[FakeGraph], capsys: pytest.CaptureFixture[str]
) -> None:
    torch_engine._tell.cache_clear()

    def waits(images: Tensor) -> list[Tensor]:
        return [images * images.sum().item()]

    waited: list[int] = []
    for _ in range(2):
        assert faster_on_card(waits, torch.rand(1), lambda: waited.append(1)) is waits
    assert capsys.readouterr().err == (
        "note: no CUDA graph, so layer after layer: "
        "operation not permitted when stream is capturing\n"
    )
    assert waited  # a card that has failed altogether says so here


def test_a_graph_with_other_maps_is_told_and_not_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch_engine._tell.cache_clear()
    wrong: Callable[[Run, Tensor], Run] = lambda run, images: lambda images: [images + 1]  # noqa: E731
    monkeypatch.setattr(torch_engine, "captured", wrong)
    run: Run = lambda images: [images]  # noqa: E731
    assert faster_on_card(run, torch.rand(1), lambda: None) is run
    assert "other maps" in capsys.readouterr().err
