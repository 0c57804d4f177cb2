"""What has a network lost so far that is cut several times?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from models.netdef import NetDef
from pruning.channels import Bools, channel_groups
from pruning.importance import Importance
from pruning.residual_blocks import without_blocks
from pruning.surgeon import Plan, keep_everything
from pruning.targets import cut_shares, target_measure


@dataclass(frozen=True, eq=False)
class PruningState:
    """The cuts so far.

    Example: an original layer of 4 filters loses filter 1, then the second of the three that are
    left: `plan` keeps filters 0 and 3 of the original.

    Attributes:
        plan: all cuts so far, as one of the original network.
    """

    plan: Plan

    @property
    def original(self) -> NetDef:
        """The network's definition before the first cut."""
        return self.plan.netdef

    @staticmethod
    def uncut(original: NetDef) -> PruningState:
        """The state before the first cut."""
        return PruningState(keep_everything(original))

    def share(self, strategy: str, measure: str) -> float:
        """The share that is cut of what `percent_of` measures, counted as `percent` is."""
        return cut_shares(self.plan, strategy).of(target_measure(strategy, measure))

    def cut_further(
        self, present: NetDef, importance: Importance, plan: Callable[[NetDef, Importance], Plan]
    ) -> tuple[PruningState, Plan]:
        """Cut once more.

        The plan is made for the original network, in which whatever is cut already is least
        important: so `layer_keep`, `percent` and times are of the original, however often that
        is cut.

        Args:
            present: the network as it is now.
            importance: of its channels.
            plan: from the original network and its importance to all that is to be cut of it.

        Returns:
            The state after the cut, and the cut as a plan of the present network.
        """
        places = self._places(present)
        further = plan(self.original, self.original_importance(present, importance))
        blocks = tuple(sorted({*self.plan.blocks, *further.blocks}))
        total = Plan(self.original, self.plan.keep & further.keep, blocks)
        return PruningState(total), self._of_present(present, total, places)

    def original_importance(self, present: NetDef, importance: Importance) -> Importance:
        """Importance by the channels of the original network; those that are cut have -1."""
        places, kept = self._places(present), self.plan.layer_masks
        original: dict[int, np.ndarray] = {}
        for layer, section in enumerate(self.original.layers):
            if section.kind == "convolutional" and section.flag("batch_normalize"):
                original[layer] = np.full(len(kept[layer]), -1.0)
                if layer in places:
                    original[layer][kept[layer]] = importance[places[layer]]
        return original

    def _places(self, present: NetDef) -> dict[int, int]:
        """Where the original's convolutions and shortcuts are now: in the same order."""
        kinds = ("convolutional", "shortcut")
        left = without_blocks(self.original, self.plan.blocks)[1]
        old = [n for n in sorted(left) if self.original.layers[n].kind in kinds]
        new = [n for n, section in enumerate(present.layers) if section.kind in kinds]
        return dict(zip(old, new, strict=True))

    def _of_present(self, present: NetDef, plan: Plan, places: Mapping[int, int]) -> Plan:
        """A plan of the original network as one of the present network."""
        before, after = channel_groups(self.original), channel_groups(present)
        kept = self.plan.layer_masks
        keep: Bools = np.ones(after.count, bool)
        for layer, place in places.items():
            units = before.outputs[layer][kept[layer]]
            keep[after.outputs[place]] = plan.keep[units]
        # A block inside one that went before is gone with it.
        blocks = [places[n] for n in plan.blocks if n in places and n not in self.plan.blocks]
        return Plan(present, keep, tuple(sorted(blocks)))
