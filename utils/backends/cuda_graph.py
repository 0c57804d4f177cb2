"""A network as a CUDA graph: a card gets all of its kernels by one launch.

To launch a kernel takes longer than to compute it where a network is narrow or a batch small: of
one photo, a card waits for Python most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Run = Callable[[Tensor], list[Tensor]]
WARM_UP = 3  # calls before the capture, in which libraries choose their kernels and take memory


@torch.inference_mode()
def captured(run: Run, images: Tensor) -> Run:
    """A run that is replayed as a graph; for images of this shape and type.

    A graph reads and writes the same memory each time. So images are copied into it, and the maps
    out of it: those of an earlier call stay as they are.

    Args:
        run: what computes on the card and never waits for it.
        images: on the card, of the shape and type of those to come.

    Raises:
        RuntimeError: of torch's, where the run cannot be captured.
    """
    device = images.device
    with torch.cuda.device(device):
        read = images.clone()
        before, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        side.wait_stream(before)
        # This puts the stream back even where the capture fails, which torch's own does not.
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run(read)
            graph = torch.cuda.CUDAGraph()
            # Threads that load photos may take memory of the card meanwhile.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                written = run(read)
        before.wait_stream(side)

    return _Replay(run, graph, read, written)


@dataclass(frozen=True, eq=False)
class _Replay:
    """Replays a graph.

    Attributes:
        run: what was captured. A graph knows the addresses of its weights, and does not keep them.
        graph: of its kernels.
        read: the images that they read.
        written: the maps that they write.
    """

    run: Run
    graph: torch.cuda.CUDAGraph
    read: Tensor
    written: list[Tensor]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Tensor]:
        self.read.copy_(images, non_blocking=True)
        self.graph.replay()
        return [raw.clone() for raw in self.written]
