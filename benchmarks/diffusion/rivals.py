"""The methods that are compared on diffusion models, each at its recipe's own setting."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from benchmarks.diffusion import subjects
from salun_core import generation_recipes, generation_specs

_UNMASKED = {"mask": "none", "density": 1.0}
_BY_CLASS, _BY_TEXT = get_args(generation_specs.GenerativeFamily)


@dataclasses.dataclass(frozen=True)
class Rival:
    """A method and what is pinned of it; ``on`` says for which families it can be used."""

    title: str
    pinned: Mapping[str, Any]
    on: tuple[generation_specs.GenerativeFamily, ...] = (_BY_CLASS, _BY_TEXT)

    def spec(self, subject: subjects.Subject, seed: int) -> generation_specs.GenerationSpec:
        """The recipe."""
        return generation_recipes.first(subject.kind, {**self.pinned, "seed": seed})


_PAPER = {"targets": "anchor", "density": 0.5, "contrast": 0.0, "learning_rate": 1e-4}
RETRAINED = "retrained"
RIVALS: Mapping[str, Rival] = {
    "default": Rival("default recipe", {}),
    "random_mask": Rival("the same, random mask", {"mask": "random"}),
    "no_mask": Rival("the same, no mask", _UNMASKED),
    "plain": Rival("the same, saliency without contrast", {"contrast": 0.0}, (_BY_CLASS,)),
    "paper": Rival("SalUn with the paper's settings", _PAPER),
    "paper_no_mask": Rival("random labels (the same, no mask)", {**_PAPER, **_UNMASKED}),
    "gradient_ascent": Rival("gradient ascent", {"method": "gradient_ascent"}),
    "selective_amnesia": Rival("Selective Amnesia", {"method": "selective_amnesia"}),
    "esd": Rival("ESD", {"method": "esd"}),
    "forget_me_not": Rival("Forget-Me-Not", {"method": "forget_me_not"}, (_BY_TEXT,)),
    "uce": Rival("UCE", {"method": "uce"}, (_BY_TEXT,)),
    RETRAINED: Rival("retrained without it", {"method": "retrain"}, (_BY_CLASS,)),
}
