"""Does OpenVINO leave the process as it was, in whatever order networks are opened and closed?"""

import ctypes
import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch

from tests.utils.backends.test_backends import trained
from utils.backends import EngineOptions, install_command, open_engine


class SignalStack(ctypes.Structure):
    """C's `stack_t`, as Linux has it."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack() -> int:
    """Where signals of this thread are handled; 0 where it has no stack of its own for them."""
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address or 0


def is_in_memory(address: int) -> bool:
    """Whether it belongs to this process; a freed stack mostly does not."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    ranges = (line.split()[0].split("-") for line in maps)
    return any(int(low, 16) <= address < int(high, 16) for low, high in ranges)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_networks_closed_in_any_order_leave_the_stack_of_signals(precision: str) -> None:
    """A signal on a stack that was freed, as from a loader process that ends, kills the process."""
    if command := install_command("openvino", precision):
        pytest.skip(f"openvino is not installed: {command}")
    photos = [torch.rand(1, 3, 64, 64)]
    options = EngineOptions((64, 64), precision, calibration=photos, use_cache=False)
    model = trained()
    open_engine("openvino", model, options)
    before = signal_stack()
    for order in permutations(range(3)) if precision == "fp32" else [(0, 2, 1)]:
        engines = {number: open_engine("openvino", model, options) for number in range(3)}
        for number in order:
            del engines[number]
            assert signal_stack() == before
            assert not before or is_in_memory(before)
