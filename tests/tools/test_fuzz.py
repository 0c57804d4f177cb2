"""Are malformed files of every format one clear line, and are faults found and told?"""

import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tools.fuzz import Fuzz, Reader, faults_of, fuzz, input_of, main
from tools.fuzz_targets import TARGETS, Target
from tools.mutations import mutate, mutate_value
from utils.errors import InputError

QUICK = Fuzz(inputs=100)
SLOW_FORMATS = {"flags": 20, "photos": 50, "checkpoint": 50, "checkpoint_values": 50}


@pytest.mark.parametrize("format", TARGETS)
def test_malformed_files_are_one_clear_line(format: str) -> None:
    numbers = range(SLOW_FORMATS.get(format, QUICK.inputs))
    faults = list(faults_of(TARGETS[format], format, numbers, replace(QUICK, slow=60.0)))
    assert not faults, f"{faults[0].detail} {faults[0].data[:300]!r}"


@pytest.mark.slow
@pytest.mark.parametrize("format", TARGETS)
def test_many_malformed_files_are_one_clear_line(format: str) -> None:
    settings = Fuzz(seed=7, inputs=10_000, seconds=8.0, slow=60.0)  # others may use the machine
    faults = fuzz(TARGETS[format], format, settings)
    if format == "photos":  # libtiff prints lines of its own, which threads cannot take back
        faults = [fault for fault in faults if fault.kind != "a library says"]
    assert not faults


@pytest.mark.parametrize("format", TARGETS)
def test_sound_inputs_are_read(format: str, tmp_path: Path) -> None:
    """Else nothing behind the first check would be fuzzed."""
    target = TARGETS[format]()

    def is_read(number: int) -> bool:
        (tmp_path / target.file).write_bytes(input_of(target, format, 0, number))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.use(tmp_path / target.file)
        except InputError:
            return False
        return True

    assert any(map(is_read, range(300)))


def test_an_input_is_always_the_same_and_no_other() -> None:
    target = TARGETS["names"]()
    inputs = [input_of(target, "names", 3, number) for number in range(50)]
    assert inputs == [input_of(target, "names", 3, number) for number in range(50)]
    assert len(set(inputs)) > 40
    assert inputs != [input_of(target, "names", 4, number) for number in range(50)]


def test_values_change_and_the_tree_stays() -> None:
    tree = {"a": [1, 2, {"b": "c"}], "d": None}
    changed = [mutate_value(random.Random(n), tree, [5, "x", []]) for n in range(100)]
    assert tree == {"a": [1, 2, {"b": "c"}], "d": None}
    assert sum(value != tree for value in changed) > 90


def test_mutations_stay_small_enough_to_be_read() -> None:
    rng = random.Random(0)
    assert max(len(mutate(rng, [b"a,b\n" * 500])) for _ in range(2000)) <= 1 << 16


def raises(path: Path) -> None:
    raise KeyError("x")


def warns(path: Path) -> None:
    warnings.warn("no place", stacklevel=1)


def sleeps(path: Path) -> None:
    time.sleep(0.2)


def grows(path: Path) -> None:
    assert len(bytes(100) * 1_000_000) == 10**8


def in_lines(path: Path) -> None:
    raise InputError("fine")


@pytest.mark.parametrize(
    ("use", "kind"),
    [
        (raises, "KeyError at test_fuzz.py:"),
        (warns, "told without a place: no place"),
        (sleeps, "slow"),
        (grows, "large"),
        (in_lines, ""),
    ],
)
def test_what_is_a_fault(use: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    settings = Fuzz(slow=0.1 if use is sleeps else 60.0, memory_mb=50.0)
    reader = Reader(Target(lambda rng: b"", use, "a"), tmp_path, settings)
    fault = reader.fault(5, b"x")
    assert (fault.kind[: len(kind)] if fault else "") == kind and (not fault or fault.number == 5)


def ends_the_process(path: Path) -> None:
    match path.read_bytes()[0] % 8:
        case 0:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 1:
            time.sleep(60)
        case 2:
            os.write(2, b"libx: a damaged file\n")


def make_ending() -> Target:
    return Target(lambda rng: bytes([rng.randrange(8)]), ends_the_process, "a")


def test_the_end_of_a_process_and_a_hang_are_faults_and_the_next_inputs_follow() -> None:
    said: list[str] = []
    settings = Fuzz(inputs=12, hang=1.0, slow=60.0, memory_mb=1e4)
    faults = fuzz(make_ending, "x", settings, said.append)
    kinds = {fault.kind for fault in faults}
    assert kinds == {"the process ended: SIGSEGV", "hang", "a library says"}
    assert said[0].startswith("x: 12 inputs")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="format='x': expected one of cfg, weights"):
        main(["--format", "x"])


def test_faults_are_told_kept_and_end_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--format", "names", "--inputs", "3", "--slow", "1e-9", "--keep", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "names: 3 inputs" in said and "--format names --seed 0 --first 0 --inputs 1" in said
    assert (tmp_path / "names-0-0").read_bytes() == input_of(TARGETS["names"](), "names", 0, 0)
    assert (tmp_path / "names-0-0.txt").read_text().startswith("slow\n")
    main(["--format", "names", "--inputs", "3", "--slow", "60"])
