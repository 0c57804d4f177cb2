"""Which scales does sparse training shrink to zero, by which penalty, and how many are dead?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

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
        return SparsityPenalty(model, groups, settings, steps)

    @property
    def _proximal(self) -> bool:
        return self.settings.sparse_step == "proximal"

    @cached_property
    def _units(self) -> _Units:
        return _Units.of(self.model, self.groups)

    @torch.no_grad()
    def add_gradient_(self, step: int) -> None:
        """Where the way is the subgradient: add it to the scales' gradients, before the step."""
        if self._proximal:
            return
        units, scales = self._units, self._units.read(self.model)
        sizes = units.sizes(scales)
        strengths = self._strengths(step, sizes)
        of_scale = strengths[units.owners] * scales[units.places]
        of_scale = of_scale / sizes[units.owners].clamp(min=1e-12)
        penalty = torch.zeros_like(scales).index_put((units.places,), of_scale)
        units.add_to_gradients_(self.model, penalty)

    @torch.no_grad()
    def shrink_(self, step: int, optimizer: Optimizer, taken: Tensor | None = None) -> None:
        """Where the way is proximal: the soft threshold, after the optimizer's step.

        In either case, a dead unit takes its shift along (see `_shrink_shifts`).

        Args:
            step: of the optimizer, counted from 0.
            optimizer: with the scales as its group `SCALES`.
            taken: a bool [], whether its step was taken: one whose gradients overflowed is not,
                and then nothing shrinks. None for yes.
        """
        lr = optimizer.param_groups[SCALES]["lr"]
        units, scales = self._units, self._units.read(self.model)
        if self._proximal:
            sizes = units.sizes(scales)
            threshold = lr * self._paced(self._strengths(step, sizes), optimizer)
            if taken is not None:
                threshold = threshold * taken
            left = (1 - threshold / sizes.clamp(min=1e-12)).clamp(min=0)
            shrunk = scales[units.places] * left[units.owners]
            scales = scales.index_put((units.places,), shrunk)
        shifts = units.read(self.model, "bias")
        sizes = units.sizes(scales)
        shifts = self._shrink_shifts(shifts, sizes, lr, taken)
        follow = units.mask_followers(sizes == 0)
        units.write_(self.model, scales.masked_fill(follow, 0))
        units.write_(self.model, shifts.masked_fill(follow, 0), "bias")

    def _paced(self, strengths: Tensor, optimizer: Optimizer) -> Tensor:
        """How far the optimizer goes for gradients of these strengths, [U], as multiples of lr."""
        if isinstance(optimizer, torch.optim.AdamW):
            squares = [
                _mean_square(optimizer, _norm(self.model, layer).weight)
                for layer in self._units.layers
            ]
            rms = self._units.means(torch.cat(squares)).sqrt()
            # Not further than AdamW's own longest step.
            return (strengths / (rms + ADAM_EPSILON)).clamp(max=1.0)
        momentum: float = optimizer.param_groups[SCALES]["momentum"]
        return strengths / (1 - momentum)

    def _shrink_shifts(
        self, shifts: Tensor, sizes: Tensor, lr: float, taken: Tensor | None
    ) -> Tensor:
        """Shrink the shifts of dead units to zero.

        A dead channel still emits a constant, the activation of its shift, which no cut can carry
        over exactly to the zero-padded border of what reads it. The threshold of `lr` is as long
        as a step of AdamW, so that a shift stays at zero once it is there.
        """
        dead = self._units.mask(sizes < DEAD)
        if taken is not None:
            dead = dead & taken
        threshold = min(lr, torch.finfo(shifts.dtype).max)  # torch refuses a larger one
        shrunk = nn.functional.softshrink(shifts * SHIFT_DECAY, threshold)
        return torch.where(dead, shrunk, shifts)

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
        units = self._units
        dead = self.sizes() == 0
        gone = units.mask(dead) | units.mask_followers(dead)
        for name in ("weight", "bias"):
            now, mean = units.read(self.model, name), units.read(averaged, name)
            units.write_(averaged, torch.where(gone, now, mean), name)

    @torch.no_grad()
    def sizes(self) -> Tensor:
        """[units of all groups], how large each still is."""
        return self._units.sizes(self._units.read(self.model))

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

    @cached_property
    def _rates(self) -> Tensor:
        """The whole penalty on each unit, [U]."""
        return (self.settings.sparse_rate * self._units.costs).to(next(self.model.parameters()))

    def _strengths(self, step: int, sizes: Tensor) -> Tensor:
        """The penalty on each unit, [U], at a step."""
        if self.settings.sparse_decay == "constant" or step < self.steps / 2:
            return self._rates
        if self.settings.sparse_decay == "global":
            return self._rates * DECAYED
        largest = torch.quantile(sizes, 1 - LARGEST)
        return torch.where(sizes >= largest, self._rates * DECAYED, self._rates)


@dataclass(frozen=True, eq=False)
class _Units:
    """All units of a penalty, U of them, and where their scales are in one long vector.

    With a few long vectors, a step of yolov3 takes 900 operations; group by group it took 4,300,
    and a card has to be given each of them.

    Attributes:
        layers: whose scales (or shifts) the vector holds, one after the other.
        widths: how many each of them has.
        costs: of each unit, float64 [U], on the CPU.
        by_width: int64 [n, w], of n units with w scales each, the places of these in the vector;
            the units are counted in this order.
        places: int64 [P], of all penalized scales.
        owners: int64 [P], their units.
        follower_places: int64 [F].
        follower_owners: int64 [F].
    """

    layers: tuple[int, ...]
    widths: tuple[int, ...]
    costs: Tensor
    by_width: tuple[Tensor, ...]
    places: Tensor
    owners: Tensor
    follower_places: Tensor
    follower_owners: Tensor

    @staticmethod
    def of(model: Darknet, groups: Sequence[PenaltyGroup]) -> _Units:
        """Those of groups, on the network's device."""
        layers = sorted({layer for g in groups for layer, _ in (*g.penalized, *g.followers)})
        widths = [len(_norm(model, layer).weight) for layer in layers]
        starts = dict(zip(layers, accumulate([0, *widths]), strict=False))

        def places(of: tuple[Place, ...], units: int) -> Tensor:
            columns = [positions + starts[layer] for layer, positions in of]
            return torch.cat(columns, 1) if columns else torch.zeros(units, 0, dtype=torch.int64)

        rows = [(places(g.penalized, len(g)), places(g.followers, len(g)), g.cost) for g in groups]
        rows.sort(key=lambda row: row[0].shape[1])
        counts = [len(penalized) for penalized, _, _ in rows]
        numbers = torch.arange(sum(counts)).split(counts)
        by_width: dict[int, list[Tensor]] = {}
        for penalized, _, _ in rows:
            by_width.setdefault(penalized.shape[1], []).append(penalized)

        def owners(column: int) -> Tensor:
            pairs = zip(numbers, rows, strict=True)
            return torch.cat([n[:, None].expand_as(row[column]).flatten() for n, row in pairs])

        tensors = (
            torch.cat([penalized.flatten() for penalized, _, _ in rows]),
            owners(0),
            torch.cat([followers.flatten() for _, followers, _ in rows]),
            owners(1),
        )
        device = model.device
        return _Units(
            tuple(layers),
            tuple(widths),
            torch.cat([torch.full((len(row[0]),), row[2], dtype=torch.float64) for row in rows]),
            tuple(torch.cat(alike).to(device) for alike in by_width.values()),
            *(tensor.to(device) for tensor in tensors),
        )

    def read(self, model: Darknet, name: str = "weight") -> Tensor:
        """The vector of a network's scales, or of its shifts (`bias`)."""
        return torch.cat([getattr(_norm(model, layer), name).detach() for layer in self.layers])

    def write_(self, model: Darknet, values: Tensor, name: str = "weight") -> None:
        """Set a network's scales or shifts to a vector."""
        targets = [getattr(_norm(model, layer), name) for layer in self.layers]
        torch._foreach_copy_(targets, values.split(self.widths))

    def add_to_gradients_(self, model: Darknet, values: Tensor) -> None:
        """Add a vector to the scales' gradients; no loss depends on a layer without one."""
        for layer, part in zip(self.layers, values.split(self.widths), strict=True):
            if (gradient := _norm(model, layer).weight.grad) is not None:
                gradient += part

    def means(self, squares: Tensor) -> Tensor:
        """[U]: the mean over each unit's scales of a vector's values."""
        return torch.cat([squares[places].mean(1) for places in self.by_width])

    def sizes(self, scales: Tensor) -> Tensor:
        """[U]: the root mean square of each unit's scales, which for a single one is |γ|."""
        return self.means(scales.square()).sqrt()

    def mask(self, which: Tensor) -> Tensor:
        """A mask of the vector that has the scales of these units, a bool [U]."""
        return self._spread(which, self.places, self.owners)

    def mask_followers(self, which: Tensor) -> Tensor:
        """A mask of the vector that has what follows these units, a bool [U]."""
        return self._spread(which, self.follower_places, self.follower_owners)

    def _spread(self, which: Tensor, places: Tensor, owners: Tensor) -> Tensor:
        return which.new_zeros(sum(self.widths)).index_put((places,), which[owners])


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


def _trains(model: Darknet, layer: int) -> bool:
    return _norm(model, layer).weight.requires_grad


def _norm(model: Darknet, layer: int) -> nn.BatchNorm2d:
    convolution = model.layers[layer]
    assert isinstance(convolution, Convolution) and convolution.bn is not None
    return convolution.bn
