"""Does a script end with one line and its exit code, whatever went wrong?"""

import pytest
import torch

from utils.errors import InputError, run


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("x.cfg:1: no"), 2, "error: x.cfg:1: no\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (MemoryError(), 2, "error: not enough memory here; smaller images (img_size)"),
        (RuntimeError("CUDA out of memory. Tried"), 2, "error: not enough memory here"),
    ],
)
def test_what_is_told_in_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: raising(error)) == code
    told = capsys.readouterr().err
    assert told.startswith(line) and told.count("\n") == 1


def test_a_tensor_larger_than_memory_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(lambda: print(torch.empty(10**17).sum())) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: not enough memory here") and told.count("\n") == 1


def test_faults_of_our_own_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run(lambda: raising(RuntimeError("shapes differ")))
