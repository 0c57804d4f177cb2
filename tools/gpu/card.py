"""Which card is it, and does it compute at all?"""

from __future__ import annotations

import torch

from tools.gpu.findings import Findings
from tools.gpu.task import Task
from utils.devices import has_fast_bfloat16
from utils.timing import clocks, machine

LARGEST_ERROR = 1e-5  # of a small product, as a share


def card(task: Task, findings: Findings) -> None:
    """Its name, driver and libraries; a product computed on it."""
    device = task.device
    if device.type == "cuda":
        findings.figure("name", machine(device))
        properties = torch.cuda.get_device_properties(device)
        findings.figure("compute capability", f"{properties.major}.{properties.minor}")
        findings.figure("memory, GB", properties.total_memory / 1e9)
        findings.figure("cuDNN", str(torch.backends.cudnn.version()))
        findings.figure("clock", clocks(device) or "not told")
    else:
        findings.figure("name", f"no card, {machine(device)}")
    findings.figure("fast bfloat16", has_fast_bfloat16(device))
    left, right = torch.rand(2, 256, 256, dtype=torch.float64)
    product = (left.to(device) @ right.to(device)).cpu()
    error = float((product - left @ right).abs().max() / product.abs().max())
    findings.expect(error <= LARGEST_ERROR, f"a product of matrices is off by {error:.1e}")
