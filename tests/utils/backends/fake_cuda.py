"""CUDA graphs played on the CPU: what is captured is computed anew when it is replayed.

As on a card, it then reads and writes the same memory as at the capture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNSEEN = "operation not permitted when stream is capturing\nCUDA kernel errors might be …"


class FakeGraph(TorchDispatchMode):
    """Records the calls of operators, with their tensors, and repeats them.

    Attributes:
        replays: how often it did.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.replays = 0
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # what is made of other operators in inference mode
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError(UNSEEN)  # what waits for a card cannot be captured
        result = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, result))
        return result

    def replay(self) -> None:
        """Compute all of it again, into the tensors of the capture."""
        self.replays += 1
        for func, args, kwargs, result in self._calls:
            pairs = zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True)
            for old, new in pairs:
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def forget(self) -> None:
        """Hold no tensors any more, as a card's graph holds none."""
        self._calls.clear()


class FakeStream:
    """A stream that has nothing to wait for."""

    def __init__(self, device: object = None) -> None: ...

    def wait_stream(self, other: object) -> None: ...


@contextmanager
def _graph(graph: FakeGraph, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
    with graph:
        yield


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    """Let `torch.cuda` play graphs on the CPU; the list gets those that are made."""
    made: list[FakeGraph] = []

    def new_graph() -> FakeGraph:
        made.append(FakeGraph())
        return made[-1]

    names = {
        "CUDAGraph": new_graph,
        "graph": _graph,
        "Stream": FakeStream,
        "stream": lambda stream: nullcontext(),
        "current_stream": FakeStream,
        "device": lambda device: nullcontext(),
    }
    for name, fake in names.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return made
