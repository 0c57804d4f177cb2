"""How does Visdom 0.2.4 build with tools that still fit it? A PEP 517 backend around pip."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

VISDOM = "visdom==0.2.4"


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, str] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build Visdom's wheel into `wheel_directory` and return its file name.

    pip calls this in the isolated environment that pyproject.toml asks for, so the nested build
    needs no isolation of its own: it must see exactly these tools.
    """
    # These name *this* backend to the process that imports it; the nested one has its own.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("_PYPROJECT_HOOKS_")
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        subprocess.run([*command, "--wheel-dir", folder, VISDOM], env=environment, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        (Path(wheel_directory) / wheel.name).write_bytes(wheel.read_bytes())
    return wheel.name
