"""Run a script on a graphics card that is only pretended: `pretended_card.py WAITS SCRIPT …`.

Its tensors say that they are on `cuda:0`, and torch's arithmetic on the CPU computes them. As on a
card, an operation refuses tensors of both devices, and what needs a value on the CPU has to wait:
WAITS, a .json file, takes how often which function of the project did. Neither speed nor
backward passes can be tried (tests/utils/training/test_loop.py tries those without values), and a
CUDA graph cannot be captured. It changes insides of torch, so a script runs in a process of its
own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401  whose operators are among the readers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).parents[1]
CARD, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
READERS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.masked_select.default,
    torch.ops.torchvision.nms.default,
}
# What a CPU's tensor may be an index of, and what takes not even a CPU's number.
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
ONE_DEVICE = {aten.cat.default, aten.stack.default, aten.gather.default, aten.scatter_reduce.two}
waits: Counter[str] = Counter()


class CardTensor(torch.Tensor):
    """A tensor on the card; `on_cpu` holds its values."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> CardTensor:
        tensor: CardTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=CARD,
        )
        tensor.on_cpu = values
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch types it as a method
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied: torch.Tensor = CardTensor(_values(self.detach()).clone())
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied


class Card(TorchDispatchMode):
    """In the block, torch has the card."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


@contextlib.contextmanager
def card() -> Iterator[None]:
    """In the block, this thread has the card."""
    torch._C._set_only_lift_cpu_tensors(True)
    with Card():  # type: ignore[no-untyped-call]
        yield


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation of torch comes to, on the device where it belongs."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_card = [tensor for tensor in tensors if isinstance(tensor, CardTensor)]
    on_cpu = [
        tensor
        for tensor in tensors
        if not isinstance(tensor, CardTensor) and (tensor.ndim or func in ONE_DEVICE)
    ]
    if func is aten.copy_.default:
        _values(args[0]).copy_(_values(args[1]))
        return args[0]
    asked, copies = kwargs.get("device"), func is aten._to_copy.default
    goes_to_card = torch.device(asked).type == "cuda" if asked is not None else bool(on_card)
    if on_card and on_cpu and not _are_indices(on_cpu, func, args):
        raise RuntimeError(f"{func}: expected all tensors on one device")
    leaves_card = copies and not goes_to_card and not kwargs.get("non_blocking")
    if on_card and (func in READERS or leaves_card or on_cpu):
        waits[_place(func)] += 1
    kwargs = {name: _values(value) for name, value in kwargs.items()}
    if asked is not None:
        kwargs["device"] = CPU
    if copies:
        kwargs.pop("pin_memory", None)
    result = func(*tree_map(_values, args), **kwargs)
    if copies and result.data_ptr() == _values(args[0]).data_ptr():
        result = result.clone()
    if not goes_to_card:
        return result
    same = {id(tensor.on_cpu): tensor for tensor in on_card}  # that were changed in place
    return tree_map(lambda x: same[id(x)] if id(x) in same else _wrapped(x), result)


def _are_indices(tensors: Sequence[torch.Tensor], func: Any, args: tuple[Any, ...]) -> bool:
    """Whether tensors of the CPU only say which elements of one on the card are meant."""
    if func not in INDEXING or not isinstance(args[0], CardTensor):
        return False
    return all(any(tensor is index for index in args[1]) for tensor in tensors)


def _values(x: Any) -> Any:
    return x.on_cpu if isinstance(x, CardTensor) else x


def _wrapped(x: Any) -> Any:
    return CardTensor(x) if type(x) in (torch.Tensor, torch.nn.Parameter) else x


def _place(func: Any) -> str:
    """The function of the project that asked for it."""
    own = [
        frame
        for frame in traceback.extract_stack()
        if Path(frame.filename).is_relative_to(ROOT) and frame.filename != __file__
    ]
    place = Path(own[-1].filename).relative_to(ROOT).as_posix() if own else "nowhere"
    return f"{place} {own[-1].name}" if own else place


def pretend() -> None:
    """Let torch tell of a card."""
    library: Any = torch
    library.__future__.set_overwrite_module_params_on_conversion(True)
    library._C._ensureCUDADeviceGuardSet()
    library.backends.cudnn.enabled = False

    def inference_mode(mode: bool = True) -> Any:  # whose tensors cannot be wrapped
        return torch.no_grad() if mode else contextlib.nullcontext()

    library.inference_mode = inference_mode
    library.Tensor.pin_memory = lambda tensor, device=None: tensor
    library.accelerator.synchronize = lambda device=None: None
    library.cuda._lazy_init = lambda: None
    library.cuda.is_available = lambda: True
    library.cuda.device_count = lambda: 1
    library.cuda.get_device_name = lambda device=None: "pretended card"
    library.cuda.is_bf16_supported = lambda including_emulation=True: True
    thread: Any = threading.Thread
    run = thread.run

    def run_with_card(started: threading.Thread) -> None:
        with card():
            run(started)

    thread.run = run_with_card


def main(waits_file: Path, script: str, flags: list[str]) -> int:
    """Run a script; its exit code."""
    pretend()
    from utils import errors

    with card():
        code = errors.run(lambda: importlib.import_module(script).main(flags))
    waits_file.write_text(json.dumps(waits), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
