"""A user's own importance and strategy: are they used, and are their mistakes told by line?"""

from __future__ import annotations

from pathlib import Path

import pytest

from import_param import Pruning
from models.darknet import Darknet
from models.netdef import parse
from pruning.channels import channel_groups
from pruning.importance import gamma, importance_named
from pruning.own_functions import own_function
from pruning.strategies import strategy_named
from pruning.surgeon import cut
from tests.conftest import ROOT
from tests.pruning.test_sparsity import BLOCK
from utils.errors import InputError

EXAMPLE = ROOT / "docs/examples/own_pruning.py"


@pytest.fixture
def model() -> Darknet:
    return Darknet(parse(BLOCK))


def written(folder: Path, text: str) -> str:
    own_function.cache_clear()
    (folder / "my.py").write_text(text)
    return str(folder / "my.py")


def test_the_example_is_an_importance_and_a_strategy(model: Darknet) -> None:
    measure, needs_batches = importance_named(f"{EXAMPLE}:kernel_l2")
    assert not needs_batches and importance_named(f"{EXAMPLE}:entropy")[1]
    importance = measure(model)
    assert importance.keys() == gamma(model).keys()
    plan = strategy_named(f"{EXAMPLE}:even")(model.netdef, importance, Pruning(percent=0.5))
    small = cut(model, plan)
    for group in channel_groups(model.netdef).groups:
        left = int(plan.keep[group.units].sum())
        assert left == (len(group) if group.kept_because else round(len(group) / 2))
    assert small.netdef != model.netdef


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(model):\n  return {\n", r"my\.py:2: '{' was never closed"),
        ("import nowhere\n", r"my\.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("def g(model): pass\n", r"my\.py:f': expected a function 'f'; it has g"),
        ("def f(model):\n\n    return {}[3]\n", r"my\.py:3: f: KeyError: 3"),
        (
            "def f(model): return 5\n",
            r"my\.py:1: f: expected a dict of numbers by layer, found int",
        ),
        ("def f(model): return {0: [1]}\n", r"my\.py:1: f: layer 0: expected \d+ numbers, found"),
        ("def f(model): return {0: 'a'}\n", r"my\.py:1: f: layer 0: expected \d+ numbers"),
        ("def f(a, b): pass\n", r"my\.py:1: f: expected the arguments \(model\), or"),
        ("def f(model):\n    g()\ndef g():\n    h\n", r"my\.py:4: f: NameError: name 'h'"),
    ],
)
def test_a_mistake_in_an_importance_is_one_line_with_its_place(
    text: str, message: str, tmp_path: Path, model: Darknet
) -> None:
    name = f"{written(tmp_path, text)}:f"
    with pytest.raises(InputError, match=message) as error:
        importance_named(name)[0](model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(n, i, t): return None\n", r"my\.py:1: f: expected a Plan, found NoneType"),
        (
            "from pruning.surgeon import Plan\nimport numpy as np\n"
            "def f(n, i, t): return Plan(n, np.zeros(9999, bool))\n",
            r"my\.py:3: f: expected a mask of \d+ units",
        ),
        (
            "from pruning.surgeon import *\n"
            "def f(n, i, t): return Plan(n, ~keep_everything(n).keep)\n",
            r"my\.py:2: f: cuts channels of layer",
        ),
        (
            "from pruning.surgeon import *\n"
            "def f(n, i, t): return Plan(n, keep_everything(n).keep, (1,))\n",
            r"my\.py:2: f: blocks=\[1\]: no shortcuts",
        ),
        ("def f(n, i): pass\n", r"my\.py:1: f: TypeError: f\(\) takes 2 positional"),
    ],
)
def test_a_mistake_in_a_strategy_is_one_line_with_its_place(
    text: str, message: str, tmp_path: Path, model: Darknet
) -> None:
    name = f"{written(tmp_path, text)}:f"
    with pytest.raises(InputError, match=message):
        strategy_named(name)(model.netdef, gamma(model), Pruning())


def test_a_file_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"importance='no\.py:f': no\.py: no such file"):
        importance_named("no.py:f")


def test_an_own_strategy_cannot_cut_what_is_protected(tmp_path: Path, model: Darknet) -> None:
    netdef = model.netdef.with_protected([0])
    group = next(g for g in channel_groups(netdef).groups if g.members[0].layer == 0)
    assert group.kept_because == "layer 0 is protected"
    even = strategy_named(f"{EXAMPLE}:even")
    assert even(netdef, gamma(model), Pruning()).keep[group.units].all()
    text = (
        "from pruning.surgeon import *\n"
        f"def f(n, i, t):\n    keep = keep_everything(n).keep\n    keep[{group.units[0]}] = False\n"
        "    return Plan(n, keep)\n"
    )
    with pytest.raises(InputError, match="cuts channels of layer 0, but layer 0 is protected"):
        strategy_named(f"{written(tmp_path, text)}:f")(netdef, gamma(model), Pruning())
