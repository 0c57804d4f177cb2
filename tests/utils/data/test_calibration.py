"""Are photos taken from all over a set, in the network's size?"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from import_param import DataSet, Runtime, TrainedNetwork
from utils.backends.runtime import (
    calibration_photos,
    calibration_source,
    check_runnable,
    open_runtime,
)
from utils.checkpoint.network import load_network
from utils.data.calibration import sample_images
from utils.errors import InputError
from utils.visualization.draw import write_image


def test_photos_are_spread_over_the_set(tmp_path: Path) -> None:
    for number in range(9):
        write_image(tmp_path / f"{number}.png", np.full((10, 20, 3), 20 * number, np.uint8))
    images = sample_images(DataSet(str(tmp_path)), (32, 16), False, 3).images
    assert images.shape == (3, 3, 16, 32)
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0.0, 80.0, 160.0]
    assert len(sample_images(DataSet(str(tmp_path)), (32, 16), True, 99).images) == 9
    with pytest.raises(InputError, match="no such file"):
        sample_images(DataSet(str(tmp_path / "none")), (32, 16), False, 3)


def test_a_runtime_is_what_was_asked_for(colour_weights: str) -> None:
    network = load_network(TrainedNetwork(weights=colour_weights, device="cpu"))
    engine = open_runtime(network, 2, Runtime(engine="torch"))
    assert (engine.name, engine.size) == ("torch", (64, 64))
    with pytest.raises(InputError, match="expected one of fp32"):
        open_runtime(network, 2, Runtime(engine="opencv", precision="bf16"))


def test_int8_is_calibrated_on_what_is_named_or_else_on_the_data_set(tmp_path: Path) -> None:
    own, data = Runtime(precision="int8", calibration="own"), DataSet("mine", bad_labels="refuse")
    assert calibration_source(own, data) == replace(data, data="own")
    assert calibration_source(replace(own, calibration=""), data) == data
    check_runnable(replace(own, engine="torch", calibration=""), data)
    for without in (None, DataSet("")):
        with pytest.raises(InputError, match="calibration='': expected photos to calibrate on"):
            check_runnable(Runtime(precision="int8"), without)


def test_photos_of_a_data_set_are_those_of_its_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, grey in (("train", 40), ("valid", 80)):
        for number in range(3):
            write_image(tmp_path / split / f"{number}.png", np.full((8, 8, 3), grey, np.uint8))
            (tmp_path / split / f"{number}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "a.names").write_text("cat\n")
    (tmp_path / "a.data").write_text("names=a.names\ntrain=train\nvalid=valid\n")
    data = DataSet(str(tmp_path / "a.data"))
    for images, grey in (
        (sample_images(data, (8, 8), False, 2).images, 40),
        (sample_images(data, (8, 8), False, 2, "valid").images, 80),
    ):
        assert images.shape == (2, 3, 8, 8)
        assert ((images * 255).round() == grey).all()
    assert "train: 3 photos, 3 objects" in capsys.readouterr().out
    folder = replace(data, data=str(tmp_path))  # photos alone, or a data set, as it is asked for
    assert len(sample_images(folder, (8, 8), False, 9).images) == 6
    photos = sample_images(folder, (8, 8), False, 9, is_data_set=True).images
    assert len(photos) == 3 and ((photos * 255).round() == 40).all()
    runtime = Runtime(precision="int8")
    assert torch.equal(calibration_photos(runtime, folder, (8, 8), False, 9), photos)
