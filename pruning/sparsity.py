"""Which scales does sparse training shrink to zero, by which penalty, and how many are dead?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import import_param
from models.blocks import Convolution
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.channels import Group, channel_groups
from pruning.equalization import equalising_factors, normalized, rescale_
from pruning.residual_blocks import expect_blocks
from pruning.targets import Measure, may_cut, savings
from utils.errors import InputError
from utils.training.optimizer import SCALES

DECAYED = 0.01  # what is left of the penalty, after half the training, where it decays
LARGEST = 0.15  # the share of the largest scales, for which alone a local decay eases the penalty
DEAD = 0.01  # what a scale below this does is nothing beside the usual one, about 1
ADAM_EPSILON = 1e-8
SHIFT_DECAY = 0.95  # of a dead channel's shift, each step

Place = tuple[int, Tensor]  # a layer, and positions [n, m] of its channels, int64


@dataclass(frozen=True, eq=False)
class PenaltyGroup:
    """Units that are alike, n of them: the scales of each shrink together and die together.

    Example: convs 0 and 3 (4 filters each) meet in a shortcut. Their group has 4 units; unit i
    pays for the two scales γ of filter i of both layers together, rate · √2 · ‖(γ₀ᵢ, γ₃ᵢ)‖, so
    that the sum of both maps loses whole channels.

    Attributes:
        penalized: where the scales are that say how important a unit is, and that are shrunk.
        followers: channels of other layers that mean nothing once the penalized ones are dead.
        cost: how much harder than others a unit is penalized; 1 on average.
    """

    penalized: tuple[Place, ...]
    followers: tuple[Place, ...] = ()
    cost: float = 1.0

    def __len__(self) -> int:
        """How many units it has."""
        return len(self.penalized[0][1])

    def to(self, device: torch.device) -> PenaltyGroup:
        """The same with its positions on the device of the scales, which they are to index."""
        penalized, followers = (
            tuple((layer, positions.to(device)) for layer, positions in places)
            for places in (self.penalized, self.followers)
        )
        return replace(self, penalized=penalized, followers=followers)


def penalty_groups(
    netdef: NetDef, strategy: str, measure: Measure = "channels"
) -> tuple[PenaltyGroup, ...]:
    """What a strategy may cut, and so may be shrunk to zero.

    - layer: what a residual block adds to its trunk is one unit, since the block goes as a whole.
    - normal: each channel that no shortcut combines with others.
    - all others: those too, and the channels that a shortcut adds up as one unit.

    A channel before a depthwise convolution is shrunk by the scale behind that alone, which says
    how important it is: batch normalisation undoes the scale before, so that one only follows.

    Args:
        netdef: the network.
        strategy: its name.
        measure: what a unit's cost is in proportion to; for `channels`, all cost the same.

    Raises:
        InputError: there is nothing that the strategy could cut, or no residual block for one that
            removes some.
    """
    name = f"pruned_id={strategy!r}"
    units, blocks = savings(netdef, measure) if measure != "channels" else ({}, {})
    if strategy in ("layer", "layer_channel"):
        groups = [
            _of_block(netdef, block.writers, blocks.get(block.shortcut, 1.0))
            for block in expect_blocks(netdef, name)
        ]
        if not any(group.penalized for group in groups):
            raise InputError(f"{name}: expected batch normalisation at the end of a residual block")
    if strategy != "layer":
        groups = [
            _of_group(netdef, group, units.get(group.number, 1.0))
            for group in channel_groups(netdef).groups
            if may_cut(strategy, group)
        ]
    groups = [group for group in groups if group.penalized]
    if not groups:
        raise InputError(f"{name}: the network has nothing that it may cut")
    mean = sum(len(group) * group.cost for group in groups) / sum(map(len, groups))
    return tuple(replace(group, cost=group.cost / mean) for group in groups)


def _of_block(netdef: NetDef, writers: tuple[int, ...], cost: float) -> PenaltyGroup:
    layers = [(index, netdef.layers[index]) for index in writers]
    return PenaltyGroup(
        tuple(
            (index, torch.arange(section.integer("filters"))[None])
            for index, section in layers
            if section.flag("batch_normalize")
        ),
        cost=cost,
    )


def _of_group(netdef: NetDef, group: Group, cost: float) -> PenaltyGroup:
    return PenaltyGroup(
        tuple((m.layer, torch.from_numpy(m.positions)) for m in group.deciding_members),
        tuple(
            (member.layer, torch.from_numpy(member.positions))
            for member in group.members
            if not member.decides and netdef.layers[member.layer].flag("batch_normalize")
        ),
        cost,
    )


@dataclass(frozen=True, eq=False)
class SparsityPenalty:
    """The penalty on the scales of batch normalisation: L1, and a group lasso on coupled scales.

    L1 is Network Slimming's (Liu et al., ICCV 2017); the group lasso is for scales that must die
    together.

    A unit of w scales γ pays cost · rate · √w · ‖γ‖ of loss, which for a single scale of the usual
    cost is rate · |γ|; so scales of coupled layers reach zero together. (Costs in proportion to
    operations are those of MorphNet, Gordon et al., CVPR 2018.) There are two ways to follow it,
    each once a step of the optimizer:

    - subgradient: its derivative is added to the gradient, after clipping. Scales come near zero.
    - proximal: the optimizer's step is followed by the penalty's own, a soft threshold, in the
      optimizer's metric: where AdamW divides gradients by their root mean square, so is the rate
      (Yun et al., NeurIPS 2021, "Adaptive proximal gradient methods"). Then a scale dies, exactly,
      if the loss rises by less than cost · rate for each unit of scale that is lost, however small
      or noisy its gradients are.

    Example: rate 0.5, plain SGD without momentum at lr 0.1, cost 1. A proximal step moves a scale
    of 0.3 by 0.1 · 0.5 to 0.25, and one of 0.04 to exactly 0.

    A layer's scales only mean something beside each other: as long as nothing else is done, a
    penalty shrinks them all, at no cost. So `settle_` brings every layer back to its size.

    Attributes:
        model: the network that trains.
        groups: what is penalized.
        settings: the rate for a cost of 1, the way, and how the penalty decays: after half the
            training it nearly ends for all scales (`global`), or for the largest alone (`local`).
        steps: of the whole training.
    """

    model: Darknet
    groups: tuple[PenaltyGroup, ...]
    settings: import_param.Sparsity
    steps: int

    @staticmethod
    def of(
        model: Darknet, settings: import_param.Sparsity, strategy: str, steps: int
    ) -> SparsityPenalty:
        """The penalty on what a strategy may cut.

        Frozen layers are left as they are, those too that mean nothing once a layer that is not
        frozen is dead.

        Raises:
            InputError: nothing is left to be penalized.
        """
        groups = tuple(
            replace(group, followers=tuple(p for p in group.followers if _trains(model, p[0])))
            for group in penalty_groups(model.netdef, strategy, settings.sparse_by)
            if all(_trains(model, layer) for layer, _ in group.penalized)
        )
        if not groups:
            raise InputError(f"freeze: no layer that pruned_id={strategy!r} may cut is trained")
        device = next(model.parameters()).device
        on_device = tuple(group.to(device) for group in groups)
        return SparsityPenalty(model, on_device, settings, steps)

    @property
    def _proximal(self) -> bool:
        return self.settings.sparse_step == "proximal"

    @torch.no_grad()
    def add_gradient_(self, step: int) -> None:
        """Where the way is the subgradient: add it to the scales' gradients, before the step."""
        if self._proximal:
            return
        for group, strength in zip(self.groups, self._strengths(step), strict=True):
            scales = read(self.model, group.penalized)
            penalty = strength[:, None] * scales / size(scales)[:, None].clamp(min=1e-12)
            _add_gradient_(self.model, group.penalized, penalty)

    @torch.no_grad()
    def shrink_(self, step: int, optimizer: Optimizer, taken: Tensor | None = None) -> None:
        """Where the way is proximal: the soft threshold, after the optimizer's step.

        In either case, a dead unit takes its shift along (see `_shrink_shifts_`).

        Args:
            step: of the optimizer, counted from 0.
            optimizer: with the scales as its group `SCALES`.
            taken: a bool [], whether its step was taken: one whose gradients overflowed is not,
                and then nothing shrinks. None for yes.
        """
        lr = optimizer.param_groups[SCALES]["lr"]
        for group, strength in zip(self.groups, self._strengths(step), strict=True):
            scales = read(self.model, group.penalized)
            if self._proximal:
                threshold = lr * self._paced(group, strength, optimizer)
                if taken is not None:
                    threshold = threshold * taken
                left = (1 - threshold / size(scales).clamp(min=1e-12)).clamp(min=0)
                scales = scales * left[:, None]
                write_(self.model, group.penalized, scales)
            self._shrink_shifts_(group, size(scales), lr, taken)

    def _paced(self, group: PenaltyGroup, strength: Tensor, optimizer: Optimizer) -> Tensor:
        """How far the optimizer goes for a gradient of `strength`, [n], as a multiple of lr."""
        if isinstance(optimizer, torch.optim.AdamW):
            squares = [
                _mean_square(optimizer, _norm(self.model, layer).weight)[positions]
                for layer, positions in group.penalized
            ]
            # Not further than AdamW's own longest step.
            return (strength / (size_of_squares(squares) + ADAM_EPSILON)).clamp(max=1.0)
        momentum: float = optimizer.param_groups[SCALES]["momentum"]
        return strength / (1 - momentum)

    def _shrink_shifts_(
        self, group: PenaltyGroup, sizes: Tensor, lr: float, taken: Tensor | None
    ) -> None:
        """Shrink the shifts of dead units to zero, and whatever follows those at exactly zero.

        A dead channel still emits a constant, the activation of its shift, which no cut can carry
        over exactly to the zero-padded border of what reads it. The threshold of `lr` is as long
        as a step of AdamW, so that a shift stays at zero once it is there.
        """
        dead = (sizes < DEAD)[:, None]
        if taken is not None:
            dead = dead & taken
        shifts = read(self.model, group.penalized, "bias")
        threshold = min(lr, torch.finfo(shifts.dtype).max)  # torch refuses a larger one
        shrunk = nn.functional.softshrink(shifts * SHIFT_DECAY, threshold)
        write_(self.model, group.penalized, torch.where(dead, shrunk, shifts), "bias")
        zero = (sizes == 0)[:, None]
        for name in ("weight", "bias"):
            followers = read(self.model, group.followers, name)
            write_(self.model, group.followers, followers.masked_fill(zero, 0), name)

    def settle_(self, averaged: Darknet) -> None:
        """Bring the scales of each layer back to one size; see `equalise_`.

        To be called now and then, such as once an epoch: sizes change by some per cent then, and
        what the optimizer remembers still fits.
        """
        equalise_(self.model, averaged)

    @torch.no_grad()
    def keep_zeros_(self, averaged: Darknet) -> None:
        """Let what is dead be dead in the running mean too.

        It would else forget a scale only after some thousand steps.
        """
        for group in self.groups:
            dead = (size(read(self.model, group.penalized)) == 0)[:, None]
            for places in (group.penalized, group.followers):
                for name in ("weight", "bias"):
                    now, mean = read(self.model, places, name), read(averaged, places, name)
                    write_(averaged, places, torch.where(dead, now, mean), name)

    @torch.no_grad()
    def sizes(self) -> Tensor:
        """[units of all groups], how large each still is."""
        return torch.cat([size(read(self.model, group.penalized)) for group in self.groups])

    @property
    def dead(self) -> float:
        """The share of units whose scales are near zero."""
        return float((self.sizes() < DEAD).float().mean())

    def figures(self) -> dict[str, float]:
        """The deciles of the units' sizes, and the shares of small ones."""
        sizes = self.sizes()
        deciles = torch.quantile(sizes, torch.arange(1, 10).to(sizes) / 10)
        values = {f"scales/{n}0 %": value for n, value in enumerate(deciles.tolist(), start=1)}
        shares = {
            f"sparsity/below {at:g}": float((sizes < at).float().mean()) for at in (DEAD, 0.1)
        }
        return values | shares

    def _strengths(self, step: int) -> list[Tensor]:
        """By group, the penalty on each of its units, [n]."""
        sizes = [size(read(self.model, group.penalized)) for group in self.groups]
        full = [
            torch.full_like(units, self.settings.sparse_rate * group.cost)
            for group, units in zip(self.groups, sizes, strict=True)
        ]
        if self.settings.sparse_decay == "constant" or step < self.steps / 2:
            return full
        if self.settings.sparse_decay == "global":
            return [rate * DECAYED for rate in full]
        largest = torch.quantile(torch.cat(sizes), 1 - LARGEST)
        return [
            torch.where(units >= largest, rate * DECAYED, rate)
            for units, rate in zip(sizes, full, strict=True)
        ]


@torch.no_grad()
def near_zero(model: Darknet) -> dict[int, float]:
    """By convolution with batch normalisation, the share of its scales that are near zero."""
    sizes = {n: _norm(model, n).weight.abs() for n, _ in normalized(model)}
    return {n: float((layer < DEAD).float().mean()) for n, layer in sizes.items()}


@torch.no_grad()
def equalise_(model: Darknet, *like: Darknet) -> None:
    """Bring the scales of all layers to one size, about 1, so that a penalty means the same to all.

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
    # Before the first step that is taken, both are 0.
    mean: Tensor = state["exp_avg_sq"] / (1 - beta ** state["step"]).clamp(min=ADAM_EPSILON)
    return mean


def size_of_squares(squares: list[Tensor]) -> Tensor:
    """[n, m] of each member → [n]: the root mean square of each unit."""
    return torch.cat(squares, 1).mean(1).sqrt()


def size(scales: Tensor) -> Tensor:
    """[n, w] → [n]: the root mean square of each unit, which for a single scale is |γ|."""
    return scales.square().mean(1).sqrt()


def read(model: Darknet, places: tuple[Place, ...], name: str = "weight") -> Tensor:
    """The scales (or `bias`, the shifts) at `places`: [n, all m]."""
    parts = [getattr(_norm(model, layer), name)[positions] for layer, positions in places]
    return torch.cat(parts, 1) if parts else next(model.parameters()).new_zeros(1, 0)


def write_(model: Darknet, places: tuple[Place, ...], values: Tensor, name: str = "weight") -> None:
    """Set the scales (or shifts) at `places` to `values`, [n, all m]."""
    widths = [positions.shape[1] for _, positions in places]
    for (layer, positions), part in zip(places, values.split(widths, 1), strict=True):
        getattr(_norm(model, layer), name)[positions] = part


def _add_gradient_(model: Darknet, places: tuple[Place, ...], penalty: Tensor) -> None:
    widths = [positions.shape[1] for _, positions in places]
    for (layer, positions), part in zip(places, penalty.split(widths, 1), strict=True):
        gradient = _norm(model, layer).weight.grad
        if gradient is not None:  # of a frozen layer there is none
            gradient[positions] += part


def _trains(model: Darknet, layer: int) -> bool:
    return _norm(model, layer).weight.requires_grad


def _norm(model: Darknet, layer: int) -> nn.BatchNorm2d:
    convolution = model.layers[layer]
    assert isinstance(convolution, Convolution) and convolution.bn is not None
    return convolution.bn
