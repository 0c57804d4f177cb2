"""Is what was found kept, and found anew where the file is not what was written?"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.darknet import Darknet
from tests.utils.backends.test_backends import trained
from utils.backends import installed, open_engine
from utils.backends import quantization as quantize
from utils.backends.cache import MOST, cache_folder, identity, kept


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return []


def ask(made: list[bytes], name: str = "a", content: bytes = b"found") -> bytes:
    def make() -> bytes:
        made.append(content)
        return content

    return kept("things", name, make)


def test_it_is_made_once(made: list[bytes]) -> None:
    assert ask(made) == ask(made) == b"found" and len(made) == 1
    assert ask(made, "b", b"") == ask(made, "b") == b"" and len(made) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:5], lambda b: b"?" + b[1:]])
def test_a_damaged_file_is_made_anew(made: list[bytes], damage: Callable[[bytes], bytes]) -> None:
    ask(made)
    path = cache_folder() / "things" / "a"
    path.write_bytes(damage(path.read_bytes()))
    assert ask(made) == b"found" and len(made) == 2
    assert ask(made) == b"found" and len(made) == 2


def test_where_nothing_can_be_kept_it_is_told(made: list[bytes]) -> None:
    cache_folder().parent.mkdir(exist_ok=True)
    cache_folder().write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="not kept for the next time"):
        assert ask(made) == b"found"


def test_the_longest_unused_goes(made: list[bytes]) -> None:
    for number in range(MOST):
        ask(made, str(number))
        os.utime(cache_folder() / "things" / str(number), (number, number))
    ask(made, "0")  # used again
    ask(made, "new")
    left = {path.name for path in (cache_folder() / "things").iterdir()}
    assert left == {"new", *map(str, range(MOST))} - {"1"}


def test_a_name_is_for_these_parts_alone() -> None:
    parts = [[b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"c", b"ab"]]
    assert len({identity(part) for part in parts}) == len(parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_is_calibrated_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how := installed(name, "int8"):
        pytest.skip(f"{name} is not installed: {how}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[Darknet] = []
    before = quantize.float_layers

    def float_layers(model: Darknet, images: quantize.Images) -> list[str]:
        calls.append(model)
        return before(model, images)

    monkeypatch.setattr(quantize, "float_layers", float_layers)
    photos = torch.rand(4, 3, 64, 64)

    def maps(seed: int = 0, shift: float = 0.0, keep: bool = True) -> torch.Tensor:
        engine = open_engine(
            name, trained(seed=seed), (64, 64), precision="int8",
            calibration=[photos + shift], keep=keep,
        )  # fmt: skip
        return engine(photos[:1])[0]

    assert maps().equal(maps()) and len(calls) == 1
    maps(seed=1)
    maps(shift=0.1)
    assert len(calls) == 3
    maps(keep=False)
    assert len(calls) == 4 and len(list((tmp_path / "yolov3" / "int8").iterdir())) == 3
