"""The methods that are compared, and the learning rates among which each may choose.

A rival's rate is chosen by the gap to a retrained net on every draw, which is more than a service
could know; the default recipe is used as it comes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from salun_core import recipes, specs


@dataclasses.dataclass(frozen=True)
class Rival:
    """A method, what is pinned of it, and its learning rates (empty: the recipe's own)."""

    title: str
    method: specs.MethodName
    pinned: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rates: tuple[float, ...] = ()

    def spec(
        self, kind: specs.ForgetKind, forget_count: int, retain_count: int, **more: object
    ) -> specs.UnlearningSpec:
        """The recipe for sets of these sizes."""
        pinned = {"method": self.method, **self.pinned, **more}
        return recipes.first(kind, forget_count, retain_count, pinned)


_PAPER = {
    "targets": "random_label",
    "epochs": 10,
    "batch_size": 64,
    "decay": "constant",
    "warmup_fraction": 0.0,
}
_UNMASKED = {"mask": "none", "density": 1.0}

RIVALS: dict[str, Rival] = {
    "default": Rival("default recipe, saliency mask", "salun"),
    "default_random_mask": Rival("default recipe, random mask", "salun", {"mask": "random"}),
    "default_no_mask": Rival("default recipe, no mask", "salun", _UNMASKED),
    "salun_paper": Rival("SalUn as in the paper", "salun", _PAPER, (0.001, 0.005, 0.013, 0.03)),
    "random_label": Rival("random labels, no mask", "random_label", {"batch_size": 64}, (0.01,)),
    "finetune": Rival("fine-tuning", "finetune", {"batch_size": 64}, (0.05,)),
    "l1_sparse": Rival("l1-sparse", "l1_sparse", {"batch_size": 64}, (0.01,)),
    "gradient_ascent": Rival("gradient ascent", "gradient_ascent", {}, (3e-4,)),
}
