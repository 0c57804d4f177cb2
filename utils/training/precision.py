"""In which type does training compute, and how do gradients in fp16 not vanish?

bfloat16 has float32's range. fp16 has not: a gradient below 6e-8 is 0 in it. So where fp16 is used,
the loss is multiplied by a scale before the backward pass and gradients are divided by it after;
steps whose gradients were too large for fp16 are left out, and the scale is lowered (Micikevicius
et al., "Mixed precision training", ICLR 2018). torch's GradScaler does that, without waiting for
the card.
"""

from __future__ import annotations

import contextlib

import torch
from torch.amp import GradScaler

from import_param import Training
from utils.devices import has_fast_bfloat16

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def training_dtype(settings: Training, device: torch.device) -> torch.dtype:
    """The type that convolutions compute in: the one asked for, or the one that suits the device.

    That is bfloat16 where the device is fast with it, else fp16 on a card (GTX 16, RTX 20,
    T4), else float32.
    """
    if not settings.amp:
        return torch.float32
    if settings.amp_dtype != "auto":
        return DTYPES[settings.amp_dtype]
    if has_fast_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def type_name(dtype: torch.dtype) -> str:
    """What a type is called, such as `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """In the block, convolutions compute in this type."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def loss_scaler(device: torch.device, dtype: torch.dtype) -> GradScaler:
    """What scales the loss where `dtype` is fp16, and else does nothing."""
    return GradScaler(device.type, enabled=dtype == torch.float16)
