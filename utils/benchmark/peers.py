"""How fast are other projects' YOLOv3? Where a user has installed them, they can be timed.

    pip install --no-deps pytorchyolo imgaug imageio scikit-image lazy-loader shapely six "numpy<2"
    pip install --no-deps ultralytics ultralytics-thop ultralytics-platform polars \
        polars-runtime-32 nvidia-ml-py pyyaml

best in an environment of its own: pytorchyolo asks for older versions of torch and numpy, and runs
with today's torch, but not with numpy 2. Nothing else here needs them.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.costs import count_parameters
from models.darknet import Darknet
from models.weights import to_bytes
from utils.errors import InputError


@dataclass(frozen=True)
class Peer:
    """The module that holds its networks, and what makes theirs of one of ours and its name."""

    module: str
    opener: Callable[[Darknet, str], nn.Module]


class PeerNetwork:
    """Another project's network in eager PyTorch, in float32. Unlike an engine of ours it decodes
    the raw maps to boxes, as its `forward` does in inference."""

    precision = "fp32"

    def __init__(self, name: str, module: nn.Module, size: tuple[int, int]) -> None:
        self.name, self.size, self._module = name, size, module.eval()
        self.parameters = count_parameters(module)
        counter = FlopCounterMode(display=False)
        with counter:
            self(torch.rand(1, 3, size[1], size[0]))
        self.operations = counter.get_total_flops()  # for one image

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> object:
        return self._module(images)


def open_peer(name: str, model: Darknet, network: str, size: tuple[int, int]) -> PeerNetwork:
    """A network as a peer, one of PEERS, has it. network: the name of `model`.

    Raises InputError where it is not installed or does not have the network.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(f"{name} is not installed, see utils/benchmark/peers.py")
    return PeerNetwork(name, PEERS[name].opener(model, network), size)


def open_pytorchyolo(model: Darknet, network: str) -> nn.Module:
    """eriklindernoren's PyTorch-YOLOv3, from the same .cfg and with the same weights."""
    with TemporaryDirectory() as folder:
        cfg, weights = Path(folder) / "network.cfg", Path(folder) / "network.weights"
        cfg.write_text(model.netdef.text(), encoding="utf-8")
        weights.write_bytes(to_bytes(model))
        try:
            peer: nn.Module = importlib.import_module(PEERS["pytorchyolo"].module).Darknet(str(cfg))
            # It overlooks `groups=` in a convolution, which then is another one.
            if count_parameters(peer) != count_parameters(model):
                raise InputError(
                    f"pytorchyolo makes {count_parameters(peer)} parameters of it, "
                    f"expected {count_parameters(model)}"
                )
            peer.load_darknet_weights(str(weights))  # type: ignore[operator]
        except (ImportError, AttributeError, KeyError, ValueError, AssertionError) as error:
            raise InputError(f"pytorchyolo cannot open it: {error!r}") from error
    return peer


def open_ultralytics(model: Darknet, network: str) -> nn.Module:
    """Ultralytics' network of that name, fused as it is to predict; its heads have no anchors."""
    try:
        tasks = importlib.import_module(PEERS["ultralytics"].module)
        peer: nn.Module = tasks.DetectionModel(
            f"{network}.yaml", nc=model.heads[0].classes, verbose=False
        )
        fused: nn.Module = peer.eval().fuse(verbose=False)  # type: ignore[operator]
    except (ImportError, FileNotFoundError) as error:
        raise InputError(f"ultralytics cannot open {network}.yaml: {error}") from error
    return fused


PEERS = {
    "pytorchyolo": Peer("pytorchyolo.models", open_pytorchyolo),
    "ultralytics": Peer("ultralytics.nn.tasks", open_ultralytics),
}
