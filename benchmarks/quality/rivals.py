"""The methods that are compared, and the settings among which each may choose.

A rival's setting is chosen by the gap to a retrained net on every draw, which is more than a
service could know; the default recipe is used as it comes. Ranges are those that the methods'
authors, or the authors of SalUn for them, searched (arXiv 2310.12508, appendix C).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from salun_core import recipes, specs


@dataclasses.dataclass(frozen=True)
class Rival:
    """A method, what is pinned of it, and what is tried on top (one empty: the recipe's own)."""

    title: str
    method: specs.MethodName
    pinned: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tried: tuple[Mapping[str, Any], ...] = ({},)

    def spec(
        self, kind: specs.ForgetKind, forget_count: int, retain_count: int, **more: object
    ) -> specs.UnlearningSpec:
        """The recipe for sets of these sizes."""
        pinned = {"method": self.method, **self.pinned, **more}
        return recipes.first(kind, forget_count, retain_count, pinned)


def _each(name: str, *values: float) -> tuple[Mapping[str, Any], ...]:
    return tuple({name: value} for value in values)


_PAPER = {
    "targets": "random_label",
    "epochs": 10,
    "batch_size": 64,
    "decay": "constant",
    "warmup_fraction": 0.0,
}
_PAPER_RATES = _each("learning_rate", 0.001, 0.005, 0.013, 0.03)
_REFERENCE_RATES = _each("learning_rate", 0.005, 0.013, 0.03, 0.06, 0.1)
_UNMASKED = {"mask": "none", "density": 1.0}
_SMALL_BATCHES = {"batch_size": 64}

REFERENCE = "reference"

RIVALS: dict[str, Rival] = {
    "default": Rival("default recipe, saliency mask", "salun"),
    "default_random_mask": Rival("default recipe, random mask", "salun", {"mask": "random"}),
    "default_no_mask": Rival("default recipe, no mask", "salun", _UNMASKED),
    "retrain": Rival("retraining as the service does it", "retrain"),
    "salun_paper": Rival("SalUn's random labels, our code", "salun", _PAPER, _PAPER_RATES),
    REFERENCE: Rival("SalUn, the authors' code", "salun", _PAPER, _REFERENCE_RATES),
    "salun_soft": Rival("SalUn-soft", "salun_soft", {}, _each("beta", 1e-3, 1e-2, 1e-1)),
    "random_label": Rival(
        "random labels, no mask",
        "random_label",
        _SMALL_BATCHES,
        _each("learning_rate", 0.003, 0.01, 0.03),
    ),
    "finetune": Rival(
        "fine-tuning", "finetune", _SMALL_BATCHES, _each("learning_rate", 0.01, 0.05, 0.1)
    ),
    "l1_sparse": Rival(
        "l1-sparse", "l1_sparse", _SMALL_BATCHES, _each("learning_rate", 0.01, 0.03, 0.1)
    ),
    "gradient_ascent": Rival(
        "gradient ascent", "gradient_ascent", {}, _each("learning_rate", 3e-5, 1e-4, 3e-4)
    ),
    "influence": Rival("influence unlearning", "influence", {}, _each("alpha", 1.0, 5.0, 20.0)),
    "fisher_forgetting": Rival(
        "Fisher forgetting", "fisher_forgetting", {}, _each("alpha", 1e-8, 1e-7, 1e-6)
    ),
    "boundary_shrink": Rival(
        "boundary shrink", "boundary_shrink", {}, _each("learning_rate", 1e-6, 1e-5, 1e-4)
    ),
    "boundary_expand": Rival(
        "boundary expand", "boundary_expand", {}, _each("learning_rate", 1e-6, 1e-5, 1e-4)
    ),
}
ON_EVERY_SEED = frozenset(
    {"default", "default_random_mask", "default_no_mask", "retrain", "salun_paper", REFERENCE}
)
