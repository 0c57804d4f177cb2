"""Are networks opened as they are asked for, and called so that they can be told apart?"""

from pathlib import Path

import pytest
import torch

from import_param import Benchmark, DataSet
from utils.benchmark.networks import NOISE_IMAGES, open_candidates, short_name
from utils.errors import InputError


def test_a_network_has_as_much_of_its_path_for_a_name_as_it_needs() -> None:
    paths = ("a/x/best.pt", "b/x/best.pt", "b/y/best.pt", "z.pt")
    names = [short_name(path, paths) for path in paths]
    assert names == ["a/x/best.pt", "b/x/best.pt", "y/best", "z"]
    with pytest.raises(InputError, match=r"weights='z.pt': expected each network once"):
        short_name("z.pt", ("z.pt", "z.pt"))


def test_a_cfg_has_random_weights_and_its_own_or_the_asked_size(colour_weights: str) -> None:
    paths = (colour_weights, "config/yolov3-lite.cfg")
    for img_size, sizes in ((0, [(64, 64), (224, 224)]), (96, [(96, 96)] * 2)):
        candidates = open_candidates(Benchmark(paths, img_size=img_size), DataSet(data=""))
        assert [candidate.name for candidate in candidates] == ["colours", "yolov3-lite"]
        assert [candidate.trained for candidate in candidates] == [True, False]
        assert [candidate.size for candidate in candidates] == sizes
        assert all(candidate.calibration is None for candidate in candidates)


def test_int8_is_calibrated_on_photos_or_on_noise(colour_weights: str, tmp_path: Path) -> None:
    from utils.visualization.draw import write_image

    noise = Benchmark((colour_weights,), precision=("int8",))
    (candidate,) = open_candidates(noise, DataSet(data=""))
    assert candidate.calibration is not None
    assert candidate.calibration.shape == (NOISE_IMAGES, 3, 320, 320)
    pixels = torch.full((8, 8, 3), 51, dtype=torch.uint8).numpy()
    for number in range(3):
        photo = tmp_path / ("valid" if number else "train") / f"{number}.png"
        write_image(photo, pixels)
        photo.with_suffix(".txt").write_text("0 .5 .5 .5 .5\n")
    named = Benchmark((colour_weights,), precision=("int8",), calibration=str(tmp_path))
    for settings, data, photos in ((named, "", 3), (noise, str(tmp_path), 1)):
        (candidate,) = open_candidates(settings, DataSet(data=data))
        assert candidate.calibration is not None and len(candidate.calibration) == photos
        assert (candidate.calibration - 0.2).abs().max() < 1e-4
