"""Where does torch compute: on which device, in which types, and how do numbers get there?"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import socket
from functools import lru_cache
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from utils.errors import InputError
from utils.processes import distributed

Numbers: TypeAlias = "tuple[float | Numbers, ...]"
Module = TypeVar("Module", bound=nn.Module)
CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """The device of a name such as `cuda:1`; `auto` is the graphics card where there is one.

    Raises:
        InputError: torch has no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.world() > 1:  # each process has a card of its own
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
        torch.ones(1, device=device)  # to have memory is not to have kernels for the card
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device={name!r}: expected one that torch has here: {reason}") from error
    return device


def choose_algorithms(deterministic: bool) -> None:
    """Of cuDNN's, those that come to the same bits each time, or the fastest, which may not."""
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def join(name: str) -> None:
    """Work with the other processes that torchrun has started, each on a device of its own.

    name: of the device, as `choose_device` takes it.

    Raises:
        InputError: there is no device for each of them. All of them raise it.
    """
    if distributed.launched() > 1 and (problem := distributed.join(*_own_card(name))):
        raise InputError(problem)


def _own_card(name: str) -> tuple[int | None, str]:
    """The number of the card that this process is to have, if any, and what is wrong with that."""
    number, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    kind, _, asked = name.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind != "cuda":
        return None, ""
    if asked and here > 1:
        return None, (
            f"device={name!r}: {here} processes on this machine: expected cuda, of which each "
            "takes a card of its own, or cpu"
        )
    cards = torch.cuda.device_count()
    if here > cards:
        return None, (
            f"torchrun: {here} processes and {cards} graphics cards on {socket.gethostname()}: "
            f"expected a card for each, so at most --nproc_per_node={cards}, or --device cpu"
        )
    return int(asked) if asked.isdecimal() else number, ""


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively, where it is faster than float32."""
    if device.type == "cuda":  # torch asks the card that is in use
        with torch.cuda.device(device) if device.index else contextlib.nullcontext():
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return False


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; on the way to a card, the program goes on at once.

    It would wait if the memory that is read were not pinned.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    # From a card, its values would be read before they have come.
    return tensor.to(device, non_blocking=device.type == "cuda")


def wait_for(device: torch.device) -> None:
    """Wait until a card has computed all that it was given; a CPU has when its calls return."""
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)


def give_memory_back() -> None:
    """Leave to other processes what torch keeps of cards' memory for later."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def on_device(module: Module, device: torch.device) -> Module:
    """A module on a device: itself, or where it is elsewhere, a copy."""
    if all(parameter.device == device for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).to(device)


def constant(values: Numbers, like: Tensor) -> Tensor:
    """Numbers as a tensor of the type of another one and on its device; not to be written to.

    They are sent to the device once: to send them anew at each call is to wait for a card each
    time.
    """
    return _constant(values, like.dtype, like.device)


@lru_cache(maxsize=1024)
def _constant(values: Numbers, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept beyond the call: a tensor of inference mode is of no use where there are gradients.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
