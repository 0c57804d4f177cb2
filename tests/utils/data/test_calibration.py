"""Are photos taken from all over a set, in the network's size?"""

from pathlib import Path

import numpy as np
import pytest

from import_param import DataSet, Runtime, TrainedNetwork
from utils.backends.runtime import open_runtime
from utils.checkpoint import load_network
from utils.data.calibration import sample_images
from utils.errors import InputError
from utils.visualization.draw import write_image


def test_photos_are_spread_over_the_set(tmp_path: Path) -> None:
    for number in range(9):
        write_image(tmp_path / f"{number}.png", np.full((10, 20, 3), 20 * number, np.uint8))
    images = sample_images(DataSet(str(tmp_path)), (32, 16), False, 3)
    assert images.shape == (3, 3, 16, 32)
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0.0, 80.0, 160.0]
    assert len(sample_images(DataSet(str(tmp_path)), (32, 16), True, 99)) == 9
    with pytest.raises(InputError, match="no such file"):
        sample_images(DataSet(str(tmp_path / "none")), (32, 16), False, 3)


def test_a_runtime_is_what_was_asked_for(colour_weights: str) -> None:
    network = load_network(TrainedNetwork(weights=colour_weights, device="cpu"))
    engine = open_runtime(network, 2, Runtime(backend="torch"))
    assert (engine.name, engine.size) == ("torch", (64, 64))
    with pytest.raises(InputError, match="expected one of fp32"):
        open_runtime(network, 2, Runtime(backend="opencv", precision="bf16"))
