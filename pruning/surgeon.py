"""How is a network cut? The only place where it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.blocks import Convolution, Shortcut, Upsample
from models.darknet import Darknet, propagate
from models.netdef import NetDef
from pruning.channels import Bools, ChannelGroups, Ints, channel_groups
from pruning.residual_blocks import residual_blocks, without_blocks


@dataclass(frozen=True, eq=False)
class Plan:
    """What to keep of a network, and what to leave out.

    Example: conv 0 (4 filters) and conv 1 (4 filters) meet in a shortcut, whose sum conv 3 reads.
    The image has units 0 to 2, the filters of 0 and 1 are units 3 to 6 (filter i of both is one),
    and those of conv 3 come after. `keep` with unit 4 False takes filter 1 of conv 0 and of conv 1,
    and input 1 of conv 3.

    Attributes:
        netdef: the network that it was made for.
        keep: bool [units], which of the units of `channel_groups(netdef)` stay.
        blocks: the shortcuts, ascending, whose blocks go as `residual_blocks` has them; what `keep`
            says of channels inside them does not count.
    """

    netdef: NetDef
    keep: Bools
    blocks: tuple[int, ...] = ()

    @property
    def groups(self) -> ChannelGroups:
        """The structure that `keep` is about."""
        return channel_groups(self.netdef)

    @property
    def layer_masks(self) -> dict[int, Bools]:
        """By layer, which of its output channels stay."""
        return self.groups.layer_masks(self.keep)

    def equals(self, other: Plan) -> bool:
        """Whether both leave out the same."""
        return self.blocks == other.blocks and np.array_equal(self.keep, other.keep)

    def expect_made_for(self, netdef: NetDef) -> None:
        """Refuse, with a ValueError, another network than the one it was made for."""
        mine = self.netdef
        if (mine.layers, mine.channels) != (netdef.layers, netdef.channels):
            raise ValueError(f"the plan was made for {mine.name}, not for {netdef.name} as it is")


def keep_everything(netdef: NetDef) -> Plan:
    """The plan that changes nothing."""
    return Plan(netdef, np.ones(channel_groups(netdef).count, bool))


def check(groups: ChannelGroups, keep: Bools) -> None:
    """Refuse, with a ValueError, a mask that cuts what must stay, or a layer's last channel."""
    if keep.shape != (groups.count,) or keep.dtype != bool:
        raise ValueError(f"expected a mask of {groups.count} units, found {keep.shape}")
    for group in groups.groups:
        layer = group.members[0].layer
        if group.frozen and not keep[group.units].all():
            raise ValueError(f"cuts channels of layer {layer}, but {group.frozen}")
    for layer, kept in groups.layer_masks(keep).items():
        if not kept.any():
            raise ValueError(f"leaves no channel of layer {layer}")


@dataclass(frozen=True, eq=False)
class Trimmed:
    """A network without some of its residual blocks, its channels not cut.

    Attributes:
        netdef: what is left.
        moved: where the layers are now, old → new.
        units: int64 [units of what is left], their numbers in the whole network.
        whole_count: how many units the whole network has.
    """

    netdef: NetDef
    moved: Mapping[int, int]
    units: Ints
    whole_count: int

    @property
    def groups(self) -> ChannelGroups:
        """The structure of what is left."""
        return channel_groups(self.netdef)

    def whole_mask(self, keep: Bools) -> Bools:
        """A mask over what is left as one over the whole network, which keeps all else.

        Units that are apart without the blocks may be one with them: it stays if any of them does.
        """
        whole = np.ones(self.whole_count, bool)
        whole[self.units] = False
        whole[self.units[keep]] = True
        return whole


@lru_cache(maxsize=64)
def trim(netdef: NetDef, blocks: tuple[int, ...]) -> Trimmed:
    """The network without the blocks of these shortcuts.

    Blocks only hang on the units of their trunk, so what is left of a unit is still one unit.
    """
    before = channel_groups(netdef)
    trimmed, moved = without_blocks(netdef, blocks)
    after = channel_groups(trimmed)
    units = np.zeros(after.count, np.int64)
    units[after.outputs[-1]] = before.outputs[-1]
    for old, new in moved.items():
        units[after.outputs[new]] = before.outputs[old]
    return Trimmed(trimmed, MappingProxyType(moved), units, before.count)


@dataclass(frozen=True, eq=False)
class _Cut:
    """A plan in terms of layers.

    netdef: without the blocks, its channels not yet cut. kept: by new layer, the mask over its
    channels. old: new layer → old layer; a route that had to be put in has none.
    """

    netdef: NetDef
    kept: Mapping[int, Bools]
    old: Mapping[int, int]

    def inputs(self, index: int) -> Bools:
        """The mask over the channels that a layer reads first."""
        return self.kept[self.netdef.sources(index)[0]]


def _resolve(plan: Plan) -> _Cut:
    trimmed = trim(plan.netdef, plan.blocks)
    if plan.keep.shape != (trimmed.whole_count,):
        raise ValueError(f"expected a mask of {trimmed.whole_count} units, found {plan.keep.shape}")
    keep = plan.keep[trimmed.units]
    check(trimmed.groups, keep)
    old = {new: old for old, new in trimmed.moved.items()}
    return _Cut(trimmed.netdef, trimmed.groups.layer_masks(keep), old)


def cut_netdef(plan: Plan) -> NetDef:
    """The definition of the network without what `plan` leaves out.

    Raises:
        ValueError: the plan's mask is not one of this network, or takes all channels of a layer.
    """
    return _narrowed(_resolve(plan))


def cut(model: Darknet, plan: Plan) -> Darknet:
    """The network without what `plan` leaves out, in tensors of its own.

    A channel that goes has its scale set to zero first: what it still emits is a constant, the
    activation of its shift. That is followed through every path and folded into whatever reads it,
    so that the new network computes what the old one with those scales at zero computes. It does
    so exactly where no padding is read; around the border zeros are read and not the constant, so
    there it is exact if the constant is zero (a shift of zero, after most activations), and else
    as far off as a window full of the constant is from one that lies half outside.

    The channels of a convolution without batch normalisation are taken as zero before activation.
    """
    plan.expect_made_for(model.netdef)
    return _build(model, _resolve(plan))


def _build(model: Darknet, resolved: _Cut) -> Darknet:
    mover = Transfer(resolved)
    state = mover(model.state_dict())
    for index, offset in _offsets(model, resolved).items():
        _fold(state, f"layers.{index}", offset)
    with torch.device("meta"):
        small = Darknet(_narrowed(resolved))
    small.load_state_dict(state, assign=True)
    trained = {mover.names[name] for name, p in _parameters(model, mover) if p.requires_grad}
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(name in trained)
    return small.train(model.training)


def _parameters(model: Darknet, mover: Transfer) -> Iterator[tuple[str, nn.Parameter]]:
    return ((n, p) for n, p in model.named_parameters() if n in mover.names)


def _narrowed(resolved: _Cut) -> NetDef:
    """The net with as many filters and groups as are kept."""
    layers = list(resolved.netdef.layers)
    for index, section in enumerate(layers):
        kept = resolved.kept[index]
        if section.kind == "convolutional" and not kept.all():
            options = {"filters": int(kept.sum())}
            groups = section.integer("groups", 1)
            if groups > 1:
                options["groups"] = int(kept.reshape(groups, -1).any(1).sum())
            layers[index] = section.with_options(**options)
    return replace(resolved.netdef, layers=tuple(layers))


class Transfer:
    """Carries tensors from a network to what `cut` makes of it.

    Call it with tensors by the names and in the shapes of the old network's state dict: gradients,
    an optimizer's momentum, a running mean. What is cut is left out, the rest has its new name.
    (No constants are folded here; cut a network that holds averaged weights itself.)

    Attributes:
        names: old name → new name.
    """

    def __init__(self, resolved: _Cut) -> None:
        """Prepare a cut; see `transfer`."""
        self._resolved = resolved
        self.names: dict[str, str] = {}
        self._layers: dict[str, int] = {}
        for new, old in resolved.old.items():
            for part in _parts(resolved.netdef.layers[new].kind):
                self.names[f"layers.{old}.{part}"] = f"layers.{new}.{part}"
                self._layers[f"layers.{old}.{part}"] = new

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is left of tensors, by their new names."""
        return {
            self.names[name]: self._part(self._layers[name], tensor)
            for name, tensor in tensors.items()
            if name in self.names
        }

    def _part(self, index: int, tensor: Tensor) -> Tensor:
        section = self._resolved.netdef.layers[index]
        if tensor.ndim == 0:
            return tensor.clone()  # BN's count of batches
        kept = _indices(self._resolved.kept[index], tensor)
        if section.kind == "shortcut":  # [inputs, 1 or C]
            whole = tensor.shape[1] != len(self._resolved.kept[index])
            return tensor.clone() if whole else tensor.index_select(1, kept)
        part = tensor.index_select(0, kept)
        if tensor.ndim == 4 and section.integer("groups", 1) == 1:
            part = part.index_select(1, _indices(self._resolved.inputs(index), tensor))
        return part


def transfer(plan: Plan) -> Transfer:
    """What carries the state of training over a cut; see `Transfer` and `carry_optimizer_`."""
    return Transfer(_resolve(plan))


def carry_optimizer_(
    new: Optimizer, new_model: Darknet, old: Optimizer, old_model: Darknet, mover: Transfer
) -> None:
    """Give `new`, an optimizer of the cut network, the state that `old` has of the whole one.

    Both must be of one kind, with groups in one order. What is as large as its parameter is cut
    like it; the rest, such as a count of steps, is copied, and so are learning rates and the like.
    """
    for mine, theirs in zip(new.param_groups, old.param_groups, strict=True):
        mine.update({key: value for key, value in theirs.items() if key != "params"})
    parameters = dict(new_model.named_parameters())
    for name, parameter in _parameters(old_model, mover):
        target = parameters[mover.names[name]]
        for key, value in old.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moved = mover({name: value})[mover.names[name]]
                # Fused optimizers walk through memory, so that must be laid out as the parameter's.
                new.state[target][key] = torch.empty_like(target).copy_(moved)
            else:
                new.state[target][key] = copy.deepcopy(value)


def _parts(kind: str) -> tuple[str, ...]:
    if kind == "shortcut":
        return ("weights",)
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    convolution = ("conv.weight", "conv.bias", *(f"bn.{part}" for part in norm))
    return convolution if kind == "convolutional" else ()


def _indices(mask: Bools, like: Tensor) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask)).to(like.device)


def _fold(state: dict[str, Tensor], layer: str, offset: Tensor) -> None:
    """Add `offset` to what a convolution hands to its batch normalisation or bias."""
    mean = state.get(f"{layer}.bn.running_mean")
    if mean is not None:
        mean -= offset.to(mean.dtype)
    else:
        bias = state[f"{layer}.conv.bias"]
        bias += offset.to(bias.dtype)


@torch.no_grad()
def _offsets(model: Darknet, resolved: _Cut) -> dict[int, Tensor]:
    """By new layer, what its dead inputs add to each channel that it keeps, before its shift.

    The walk carries the constants that dead channels emit, float64 [C], and zero for live ones.
    """
    offsets: dict[int, Tensor] = {}
    device = model.device

    def layer(index: int) -> nn.Module:
        return model.layers[resolved.old[index]]

    def dead_only(index: int, constants: Tensor) -> Tensor:
        dead = torch.from_numpy(~resolved.kept[index]).to(device)
        return torch.where(dead, constants, 0.0)

    def conv(index: int, constants: Tensor) -> Tensor:
        convolution = layer(index)
        assert isinstance(convolution, Convolution)
        kernel = convolution.conv.weight
        if convolution.conv.groups == 1 and constants.any():  # else no live group reads dead ones
            sums = kernel.double().sum((2, 3))  # [filters, inputs]
            offsets[index] = (sums @ constants)[_indices(resolved.kept[index], kernel)]
        shift = convolution.bn.bias if convolution.bn else torch.zeros(len(kernel), device=device)
        # A copy: activations work in place.
        return dead_only(index, convolution.activation(shift.to(torch.float64, copy=True)))

    def add(index: int, inputs: list[Tensor]) -> Tensor:
        maps = [constants.view(1, -1, 1, 1) for constants in inputs]
        return dead_only(index, layer(index)(*maps).double().flatten())

    def other(index: int, constants: Tensor) -> Tensor:
        module = layer(index)
        if isinstance(module, Upsample):
            return constants * module.scale
        if resolved.netdef.layers[index].kind == "reorg":  # what it reads is never cut
            return torch.zeros(len(resolved.kept[index]), dtype=torch.float64, device=device)
        return constants  # pooling, which pads with nothing that counts, dropout, yolo

    image = torch.zeros(len(resolved.kept[-1]), dtype=torch.float64, device=device)
    walk = propagate(
        resolved.netdef,
        image,
        conv=conv,
        add=add,
        cat=lambda index, inputs: torch.cat(inputs),
        part=lambda index, constants, n, k: constants.view(n, -1)[k],
        other=other,
    )
    for _ in walk:
        pass
    return offsets


def masked(model: Darknet, plan: Plan) -> Darknet:
    """What `cut` must equal: the whole network, its dead scales at zero, its removed blocks too."""
    plan.expect_made_for(model.netdef)
    _resolve(plan)  # refuses what cannot be cut
    whole = copy.deepcopy(model)
    kept = plan.layer_masks
    with torch.no_grad():
        for index, layer in enumerate(whole.layers):
            if isinstance(layer, Convolution):
                _silence_(layer, ~torch.from_numpy(kept[index]))
    for block in residual_blocks(model.netdef):
        if block.shortcut in plan.blocks:
            shortcut = whole.layers[block.shortcut]
            assert isinstance(shortcut, Shortcut)
            whole.layers[block.shortcut] = _WithoutBranch(shortcut, block.branch)
    return whole


def _silence_(layer: Convolution, dead: Tensor) -> None:
    if layer.bn is not None:
        layer.bn.weight[dead] = 0
        return
    layer.conv.weight[dead] = 0
    assert layer.conv.bias is not None
    layer.conv.bias[dead] = 0


class _WithoutBranch(nn.Module):
    """A shortcut that gets zeros from its block."""

    def __init__(self, shortcut: Shortcut, branch: int) -> None:
        super().__init__()
        self.shortcut, self.branch = shortcut, branch

    def forward(self, *inputs: Tensor) -> Tensor:
        maps = [x * 0 if which == self.branch else x for which, x in enumerate(inputs)]
        total: Tensor = self.shortcut(*maps)
        return total
