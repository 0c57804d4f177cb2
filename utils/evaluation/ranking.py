"""Which detection is better, and which goes first where scores are equal?

The higher score goes first. Ties are broken here, the same way everywhere: **of equal scores, what
comes earlier goes first**. Earlier means

- in non-maximum suppression, the earlier proposal of the network (heads in the order of the .cfg,
  then anchor, row and column), and of one proposal the lower class;
- in matching, the earlier photo in the data set's order, and of one photo the detection that
  non-maximum suppression ranked higher.

Ties between *overlaps* are a matter of the rule, see `utils.evaluation.matching.candidate_pairs`.
"""

from torch import Tensor


def best_first(scores: Tensor) -> Tensor:
    """The indices [N] that sort scores [N] from the highest to the lowest.

    >>> import torch
    >>> best_first(torch.tensor([0.2, 0.9, 0.2, 0.9])).tolist()
    [1, 3, 0, 2]
    """
    return scores.argsort(descending=True, stable=True)


def top(scores: Tensor, count: int) -> Tensor:
    """The first `count` indices of `best_first`, and all that tie with the last of them.

    Much quicker than sorting all where `count` is small.
    """
    if count >= len(scores):
        return best_first(scores)
    lowest = scores.topk(count).values[-1]
    chosen = (scores >= lowest).nonzero().squeeze(1)
    return chosen[best_first(scores[chosen])]
