"""Which samples never trained on a job may use, and whether they must be cross-fitted."""

import dataclasses

import torch

from salun_core import grouping, images

# Samples of each class to be matched that a holdout set needs to serve alone. Targets taken from m
# samples of a class are off by an AUC of √(1/12m) (one standard error, see "How much unseen data
# is enough" in docs/operations.md): .041 for 50, within the gate's tolerance of .05. Below that the
# holdout set says too little, and the gate that asks it again would not notice.
ENOUGH = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Unseen:
    """The pool that erased samples are matched to and compared with.

    Attributes:
        image_set: its samples.
        pool: ``holdout``, ``test`` or ``holdout+test``: the splits that it is made of.
        cross_fitted: a sample is matched to one half of it and judged by the other, see
            :mod:`salun_core.crossfit`. Otherwise the test set is the second judge.
        n_per_class_min: how many it has of the matched class of which it has fewest; ``None``
            where nothing is matched.
    """

    image_set: images.ImageSet
    pool: str
    cross_fitted: bool
    n_per_class_min: int | None

    def evidence(self) -> dict[str, object]:
        """For the report."""
        return {
            "pool": self.pool,
            "cross_fitted": self.cross_fitted,
            "n": len(self.image_set),
            "n_per_class_min": self.n_per_class_min,
        }


def choose(
    holdout_set: images.ImageSet, test_set: images.ImageSet, matched_labels: torch.Tensor
) -> Unseen:
    """The holdout set where it is large enough, all that there is and cross-fitted where not.

    Args:
        holdout_set: never trained on, kept for this.
        test_set: never trained on; another judge as long as nothing was matched to it.
        matched_labels: int64, the classes of the samples that are to look unseen; empty where
            only whole classes are erased: then nothing is matched, and the first pool that has a
            sample will do.
    """
    least = _least(holdout_set, matched_labels)
    if len(holdout_set) and (least is None or least >= ENOUGH):
        return Unseen(holdout_set, "holdout", False, least)
    if least is None:
        return Unseen(test_set, "test", False, None)
    parts = {"holdout": holdout_set, "test": test_set}
    named = [name for name, part in parts.items() if len(part)] or ["test"]
    both = images.concatenate(holdout_set, test_set) if len(named) == 2 else parts[named[0]]
    return Unseen(both, "+".join(named), True, _least(both, matched_labels))


def _least(image_set: images.ImageSet, labels: torch.Tensor) -> int | None:
    members = grouping.rows_by_label(image_set.labels)
    return min(
        (len(members.get(label, ())) for label in torch.unique(labels).tolist()), default=None
    )
