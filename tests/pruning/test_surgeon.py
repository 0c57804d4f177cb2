"""Does a cut network compute what the whole one computes without the channels and blocks?"""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.darknet import Darknet
from models.netdef import parse
from pruning.channels import find_channels
from pruning.surgeon import Plan, cut, keep_everything, masked, remove_blocks
from tests.pruning.nets import (
    CONFIGS,
    config,
    error,
    forward_padding_constants,
    hush_,
    photos,
    random_net,
    random_plan,
    trained,
)

seeds = st.randoms(use_true_random=False)


@torch.no_grad()
def compare(model: Darknet, plan: Plan) -> None:
    """Cut against masked, both ways of padding that are exact."""
    model = model.double()
    images = photos(model.netdef).double()
    whole = masked(model, plan)
    wanted = forward_padding_constants(whole, images, plan.keep)
    assert error(cut(model, plan)(images), wanted) < 1e-9


@settings(max_examples=60, deadline=None)
@given(rng=seeds)
def test_any_cut_is_the_mask(rng: random.Random) -> None:
    netdef = random_net(rng)
    compare(trained(netdef, rng.randrange(1000)), random_plan(netdef, rng))
