"""Which scales are drawn to zero while a network trains, and how far has that come?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.blocks import Convolution
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.channels import Group, channel_groups
from pruning.equalization import equalising_factors, normalized, rescale_
from pruning.residual_blocks import expect_blocks
from pruning.targets import may_cut, savings
from utils.errors import InputError
from utils.training.optimizer import SCALES

Decay = Literal["constant", "global", "local"]

DECAYED = 0.01  # what is left of the pull, after half the training, where it decays
LARGEST = 0.15  # the share of the largest scales, which alone a local decay spares
DEAD = 0.01  # what a scale below this does is nothing beside the usual one, about 1
ADAM_EPSILON = 1e-8
SHIFT_DECAY = 0.95  # of a dying channel's shift, each step

Place = tuple[int, Tensor]  # a layer, and positions [n, m] of its channels, int64


@dataclass(frozen=True, eq=False)
class Bundle:
    """Sets of channels, n of them, alike, each of which dies as one.

    drawn: where the scales are that say what a set is worth, and that are drawn to zero.
    following: channels of other layers that mean nothing once the drawn ones are dead.
    price: how much harder than others a set is drawn.
    """

    drawn: tuple[Place, ...]
    following: tuple[Place, ...] = ()
    price: float = 1.0

    def __len__(self) -> int:
        return len(self.drawn[0][1])


def find_bundles(netdef: NetDef, strategy: str, measure: str = "channels") -> tuple[Bundle, ...]:
    """What a strategy may cut, and so may be drawn to zero.

    - layer: what a residual block adds to its trunk is one set, since the block goes as a whole.
    - normal: each channel that no shortcut combines with others.
    - all others: those too, and the channels that a shortcut adds up as one set.

    A channel before a depthwise convolution is drawn by the scale behind that alone, which says
    what it is worth: the scale before is undone by batch normalisation, so it only follows.

    Raises InputError where there is nothing that the strategy could cut, or no residual block for
    one that removes some.
    """
    name = f"pruned_id={strategy!r}"
    units, blocks = savings(netdef, measure) if measure != "channels" else ({}, {})
    if strategy in ("layer", "layer_channel"):
        found = [
            _of_block(netdef, block.writers, blocks.get(block.shortcut, 1.0))
            for block in expect_blocks(netdef, name)
        ]
        if not any(bundle.drawn for bundle in found):
            raise InputError(f"{name}: expected batch normalisation at the end of a residual block")
    if strategy != "layer":
        found = [
            _of_group(netdef, group, units.get(int(group.units[0]), 1.0))
            for group in channel_groups(netdef).groups
            if may_cut(strategy, group)
        ]
    bundles = [bundle for bundle in found if bundle.drawn]
    if not bundles:
        raise InputError(f"{name}: the network has nothing that it may cut")
    mean = sum(len(b) * b.price for b in bundles) / sum(map(len, bundles))
    return tuple(replace(bundle, price=bundle.price / mean) for bundle in bundles)


def _of_block(netdef: NetDef, writers: tuple[int, ...], price: float) -> Bundle:
    layers = [(index, netdef.layers[index]) for index in writers]
    return Bundle(
        tuple(
            (index, torch.arange(section.integer("filters"))[None])
            for index, section in layers
            if section.flag("batch_normalize")
        ),
        price=price,
    )


def _of_group(netdef: NetDef, group: Group, price: float) -> Bundle:
    return Bundle(
        tuple((m.layer, torch.from_numpy(m.positions)) for m in group.deciding_members),
        tuple(
            (member.layer, torch.from_numpy(member.positions))
            for member in group.members
            if not member.decides and netdef.layers[member.layer].flag("batch_normalize")
        ),
        price,
    )


@dataclass(frozen=True, eq=False)
class Sparsity:
    """The pull on the scales of batch normalisation, after Network Slimming (Liu et al., ICCV
    2017): an L1 penalty, and a group lasso on scales that must die together.

    A set of w scales γ pays price · rate · √w · ‖γ‖ of loss, which for a single scale of the usual
    price is rate · |γ|; so scales of coupled layers reach zero together. (Prices that are in
    proportion to operations are those of MorphNet, Gordon et al., CVPR 2018.) There are two ways
    to follow it, each once a step of the optimizer:

    - subgradient: its derivative is added to the gradient, after clipping. Scales come near zero.
    - proximal: the optimizer's step is followed by the penalty's own, a soft threshold, in the
      optimizer's metric: where AdamW divides gradients by their root mean square, so is the rate
      (Yun et al., NeurIPS 2021, "Adaptive proximal gradient methods"). Then a scale dies, exactly,
      if the loss rises by less than price · rate for each unit of scale that is lost, however small
      or noisy its gradients are.

    A layer's scales are only worth anything beside each other: as long as nothing else is done, a
    penalty shrinks them all, at no cost. So `settle_` brings every layer back to its size.

    bundles: what is drawn. rate: the strength, for a price of 1. steps: of the whole training.
    decay: after half of it the pull on all scales (`global`), or on the largest alone (`local`), is
    nearly let go.
    """

    model: Darknet
    bundles: tuple[Bundle, ...]
    rate: float
    steps: int
    decay: Decay = "constant"
    proximal: bool = True

    @staticmethod
    def of(
        model: Darknet,
        strategy: str,
        rate: float,
        steps: int,
        decay: Decay,
        proximal: bool,
        measure: str = "channels",
    ) -> Sparsity:
        """The pull on what a strategy may cut. Frozen layers are left as they are, those too that
        mean nothing once a layer that is not frozen is dead.

        Raises InputError where nothing is left to be drawn.
        """
        found = find_bundles(model.netdef, strategy, measure)
        free = tuple(b for b in found if all(_trains(model, layer) for layer, _ in b.drawn))
        if not free:
            raise InputError(f"freeze: no layer that pruned_id={strategy!r} may cut is trained")
        bundles = tuple(
            replace(b, following=tuple(place for place in b.following if _trains(model, place[0])))
            for b in free
        )
        return Sparsity(model, bundles, rate, steps, decay, proximal)

    @torch.no_grad()
    def add_gradient_(self, step: int) -> None:
        """Where the pull is a subgradient: add it to the scales' gradients, before the step."""
        if self.proximal:
            return
        for bundle, strength in zip(self.bundles, self._strengths(step), strict=True):
            scales = read(self.model, bundle.drawn)
            pull = strength[:, None] * scales / size(scales)[:, None].clamp(min=1e-12)
            _add_gradient_(self.model, bundle.drawn, pull)

    @torch.no_grad()
    def shrink_(self, step: int, optimizer: Optimizer) -> None:
        """Where the pull is proximal: the soft threshold, after the optimizer's step.

        In either case, what dies takes its shift along (see `_let_die_`).
        """
        lr = optimizer.param_groups[SCALES]["lr"]
        for bundle, strength in zip(self.bundles, self._strengths(step), strict=True):
            scales = read(self.model, bundle.drawn)
            if self.proximal:
                threshold = lr * self._paced(bundle, strength, optimizer)
                left = (1 - threshold / size(scales).clamp(min=1e-12)).clamp(min=0)
                scales = scales * left[:, None]
                write_(self.model, bundle.drawn, scales)
            self._let_die_(bundle, size(scales), lr)

    def _paced(self, bundle: Bundle, strength: Tensor, optimizer: Optimizer) -> Tensor:
        """How far the optimizer goes for a gradient of `strength`, [n], as a multiple of lr."""
        if isinstance(optimizer, torch.optim.AdamW):
            squares = [
                _mean_square(optimizer, _norm(self.model, layer).weight)[positions]
                for layer, positions in bundle.drawn
            ]
            # Not further than AdamW's own longest step.
            return (strength / (size_of_squares(squares) + ADAM_EPSILON)).clamp(max=1.0)
        return strength / (1 - optimizer.param_groups[SCALES]["momentum"])

    def _let_die_(self, bundle: Bundle, sizes: Tensor, lr: float) -> None:
        """Draw the shifts of sets that are dying to zero, and whatever follows dead ones.

        A dead channel still emits a constant, the activation of its shift, which no cut can carry
        over exactly to the zero-padded border of what reads it. The threshold of `lr` is as long
        as a step of AdamW, so that a shift stays at zero once it is there.
        """
        dying = (sizes < DEAD)[:, None]
        shifts = read(self.model, bundle.drawn, "bias")
        drawn = nn.functional.softshrink(shifts * SHIFT_DECAY, lr)
        write_(self.model, bundle.drawn, torch.where(dying, drawn, shifts), "bias")
        dead = (sizes == 0)[:, None]
        for what in ("weight", "bias"):
            followers = read(self.model, bundle.following, what)
            write_(self.model, bundle.following, followers.masked_fill(dead, 0), what)

    def settle_(self, averaged: Darknet) -> None:
        """Bring the scales of each layer back to one size; see `equalise_`.

        To be called now and then, such as once an epoch: sizes change by some per cent then, and
        what the optimizer remembers still fits.
        """
        equalise_(self.model, averaged)

    @torch.no_grad()
    def keep_zeros_(self, averaged: Darknet) -> None:
        """Let what is dead be dead in the running mean too, which else would forget a scale only
        after some thousand steps."""
        for bundle in self.bundles:
            dead = (size(read(self.model, bundle.drawn)) == 0)[:, None]
            for places in (bundle.drawn, bundle.following):
                for what in ("weight", "bias"):
                    now, mean = read(self.model, places, what), read(averaged, places, what)
                    write_(averaged, places, torch.where(dead, now, mean), what)

    @torch.no_grad()
    def sizes(self) -> Tensor:
        """How large each set still is: [sets]."""
        return torch.cat([size(read(self.model, bundle.drawn)) for bundle in self.bundles])

    @property
    def dead(self) -> float:
        """The share of sets whose scales are near zero."""
        return float((self.sizes() < DEAD).float().mean())

    def figures(self) -> dict[str, float]:
        """The deciles of the sets' sizes, and the shares of small ones."""
        found = self.sizes()
        deciles = torch.quantile(found, torch.arange(1, 10, device=found.device) / 10)
        values = {f"scales/{n}0 %": value for n, value in enumerate(deciles.tolist(), start=1)}
        shares = {
            f"sparsity/below {at:g}": float((found < at).float().mean()) for at in (DEAD, 0.1)
        }
        return values | shares

    def _strengths(self, step: int) -> list[Tensor]:
        """By bundle, the pull on each of its sets, [n]."""
        sizes = [size(read(self.model, bundle.drawn)) for bundle in self.bundles]
        full = [
            torch.full_like(sets, self.rate * bundle.price)
            for bundle, sets in zip(self.bundles, sizes, strict=True)
        ]
        if self.decay == "constant" or step < self.steps / 2:
            return full
        if self.decay == "global":
            return [rate * DECAYED for rate in full]
        largest = torch.quantile(torch.cat(sizes), 1 - LARGEST)
        return [
            torch.where(sets >= largest, rate * DECAYED, rate)
            for sets, rate in zip(sizes, full, strict=True)
        ]


@torch.no_grad()
def near_zero(model: Darknet) -> dict[int, float]:
    """By convolution with batch normalisation, the share of its scales that are near zero."""
    sizes = {n: _norm(model, n).weight.abs() for n, _ in normalized(model)}
    return {n: float((layer < DEAD).float().mean()) for n, layer in sizes.items()}


@torch.no_grad()
def equalise_(model: Darknet, *like: Darknet) -> None:
    """Bring the scales of all layers to one size, about 1, so that one pull means the same to all.

    The network computes what it did. Kernels before batch normalisation, to which their size means
    nothing (where the variance is well over BN's epsilon), keep the one that they had, since the
    optimizer's steps are made for that. like: networks that are changed by the same factors, such
    as a running mean of this one.
    """
    factors = equalising_factors(model)
    before = {index: layer.conv.weight.norm() for index, layer in normalized(model)}
    for network in (model, *like):
        rescale_(network, factors)
    kernels = {
        n: before[n] / layer.conv.weight.norm() for n, layer in normalized(model) if before[n]
    }
    for network in (model, *like):
        for index, layer in normalized(network):
            if index in kernels:
                assert layer.bn is not None
                layer.conv.weight *= kernels[index]
                layer.bn.running_mean *= kernels[index]
                layer.bn.running_var *= kernels[index] ** 2


def _mean_square(optimizer: torch.optim.AdamW, weight: Tensor) -> Tensor:
    """The running mean of a parameter's squared gradients; 0 where no loss depends on it."""
    state = optimizer.state[weight]
    if "exp_avg_sq" not in state:
        return torch.zeros_like(weight)
    beta = optimizer.param_groups[SCALES]["betas"][1]
    return state["exp_avg_sq"] / (1 - beta ** state["step"])


def size_of_squares(squares: list[Tensor]) -> Tensor:
    """[n, m] of each member → [n]: the root mean square of each set."""
    return torch.cat(squares, 1).mean(1).sqrt()


def size(scales: Tensor) -> Tensor:
    """[n, w] → [n]: the root mean square of each set, which for a single scale is |γ|."""
    return scales.square().mean(1).sqrt()


def read(model: Darknet, places: tuple[Place, ...], what: str = "weight") -> Tensor:
    """The scales (or `bias`, the shifts) at `places`: [n, all m]."""
    parts = [getattr(_norm(model, layer), what)[positions] for layer, positions in places]
    return torch.cat(parts, 1) if parts else next(model.parameters()).new_zeros(1, 0)


def write_(model: Darknet, places: tuple[Place, ...], values: Tensor, what: str = "weight") -> None:
    """Set the scales (or shifts) at `places` to `values`, [n, all m]."""
    widths = [positions.shape[1] for _, positions in places]
    for (layer, positions), part in zip(places, values.split(widths, 1), strict=True):
        getattr(_norm(model, layer), what)[positions] = part


def _add_gradient_(model: Darknet, places: tuple[Place, ...], pull: Tensor) -> None:
    widths = [positions.shape[1] for _, positions in places]
    for (layer, positions), part in zip(places, pull.split(widths, 1), strict=True):
        gradient = _norm(model, layer).weight.grad
        if gradient is not None:  # of a frozen layer there is none
            gradient[positions] += part


def _trains(model: Darknet, layer: int) -> bool:
    return _norm(model, layer).weight.requires_grad


def _norm(model: Darknet, layer: int) -> nn.BatchNorm2d:
    convolution = model.layers[layer]
    assert isinstance(convolution, Convolution) and convolution.bn is not None
    return convolution.bn
