"""Are layers brought to one scale without a change in what the network computes?"""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.darknet import Darknet
from pruning.equalization import equalising_factors, inverse, rescale_, typical_scales
from tests.pruning.nets import config, error, photos, random_net, trained
from tests.pruning.test_channels import conv, net


@settings(max_examples=50, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_any_network_computes_the_same_and_comes_back(rng: random.Random) -> None:
    netdef = random_net(rng, 25)
    model = trained(netdef, rng.randrange(1000)).double()
    images = photos(netdef).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        wanted = model(images)
        factors = equalising_factors(model)
        rescale_(model, factors)
        assert error(model(images), wanted) < 1e-9
        assert {n: s for n, s in typical_scales(model).items() if n in factors} == pytest.approx(
            dict.fromkeys(factors, 1.0)
        )
        rescale_(model, inverse(factors))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-9, atol=1e-12)


def test_training_sees_the_same_network_too() -> None:
    netdef = config("yolov3-mobilenetv2", thinner=16)
    model = trained(netdef, 0).double().train()
    images = photos(netdef, 4).double()
    with torch.no_grad():
        wanted = model(images)
        rescale_(model, equalising_factors(model))
        assert error(model(images), wanted) < 1e-4  # BN's epsilon weighs more on smaller inputs


def test_all_of_a_plain_network_but_its_heads_is_equalised() -> None:
    netdef = config("yolov3-tiny", thinner=8)
    assert sorted(equalising_factors(Darknet(netdef))) == [0, 2, 4, 6, 8, 10, 12, 13, 14, 18, 21]


def test_what_size_matters_to_keeps_its_scale() -> None:
    mish = conv(4).replace("leaky", "mish")
    tied = net(conv(4), mish, "[shortcut]\nfrom=-2\n", conv(6), "[route]\nlayers=-2\n", conv(4),
               "[sam]\nfrom=-2\n", conv(5))  # fmt: skip
    assert sorted(equalising_factors(trained(tied, 0))) == [3, 7]


@pytest.mark.parametrize("activation", ["linear", "leaky", "relu", "relu6", "logistic", "swish"])
def test_a_layer_is_equalised_if_its_activation_is_homogeneous(activation: str) -> None:
    netdef = net(conv(4).replace("leaky", activation), conv(5))
    assert (0 in equalising_factors(trained(netdef, 0))) == (
        activation in ("linear", "leaky", "relu")
    )


def test_added_layers_have_one_factor() -> None:
    netdef = net(conv(4), conv(4), "[shortcut]\nfrom=-2\n", conv(4))
    factors = equalising_factors(trained(netdef, 1))
    assert factors[0] == factors[1] != factors[3]


def test_a_typical_scale_hardly_sees_zeros() -> None:
    model = trained(net(conv(100)), 0)
    gamma = model.layers[0].bn.weight.data
    gamma.fill_(3.0)
    assert typical_scales(model)[0] == pytest.approx(3)
    gamma[:90] = 0
    assert typical_scales(model)[0] == pytest.approx(3)
    gamma.zero_()
    assert typical_scales(model)[0] == 1
