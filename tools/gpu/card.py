"""Which card is it, and does it compute at all?"""

from __future__ import annotations

import subprocess

import torch

from tools.gpu.findings import Findings
from tools.gpu.task import Task
from utils.devices import has_fast_bfloat16
from utils.timing import machine

QUERY = ("driver_version", "pstate", "clocks.sm", "clocks.max.sm", "power.limit", "temperature.gpu")
NVIDIA_SMI_SECONDS = 20.0  # that the driver's own tool may take
LARGEST_ERROR = 1e-5  # of a small product, as a share


def card(task: Task, found: Findings) -> None:
    """Its name and kind, driver and libraries; a product computed on it."""
    device = task.device
    if device.type != "cuda":
        found.figure("name", f"none: {machine(device)}")
    else:
        properties = torch.cuda.get_device_properties(device)
        found.figure("name", properties.name)
        found.figure("compute capability", f"{properties.major}.{properties.minor}")
        found.figure("memory, GB", properties.total_memory / 1e9)
        found.figure("CUDA", str(torch.version.cuda))
        found.figure("cuDNN", str(torch.backends.cudnn.version()))
        for name, value in driver(str(properties.uuid)).items():
            found.figure(name, value)
    found.figure("fast bfloat16", has_fast_bfloat16(device))
    left, right = torch.rand(2, 256, 256, dtype=torch.float64)
    product = (left.to(device) @ right.to(device)).cpu()
    error = float((product - left @ right).abs().max() / product.abs().max())
    found.expect(error < LARGEST_ERROR, f"a product of matrices is off by {error:.1e}")


def driver(uuid: str) -> dict[str, str]:
    """What the driver's own tool tells of a card."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader",
               f"--id=GPU-{uuid.removeprefix('GPU-')}"]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=NVIDIA_SMI_SECONDS, check=True, encoding="utf-8"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"driver": f"not told by nvidia-smi ({type(error).__name__})"}
    values = done.stdout.strip().split("\n")[0].split(", ")
    return dict(zip(("driver", *QUERY[1:]), values, strict=False))
