"""The methods that are compared on diffusion models, each at its recipe's own setting."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.diffusion import subjects
from salun_core import generation_recipes, generation_specs

_UNMASKED = {"mask": "none", "density": 1.0}


@dataclasses.dataclass(frozen=True)
class Rival:
    """A method and what is pinned of it; ``on`` says for which models it can be used."""

    title: str
    pinned: Mapping[str, Any]
    on: tuple[subjects.Name, ...] = ("digits", "icons")

    def spec(self, subject: subjects.Subject, seed: int) -> generation_specs.GenerationSpec:
        """The recipe."""
        return generation_recipes.first(subject.kind, {**self.pinned, "seed": seed})


RETRAINED = "retrained"
RIVALS: Mapping[str, Rival] = {
    RETRAINED: Rival("retrained without it", {"method": "retrain"}, ("digits",)),
    "default": Rival("default recipe, saliency mask", {}),
    "random_mask": Rival("default recipe, random mask", {"mask": "random"}),
    "no_mask": Rival("default recipe, no mask", _UNMASKED),
    "contrast": Rival("default recipe, mask by contrast", {"contrast": 1.0}),
    "guided": Rival("default recipe, mask from guided prediction", {"mask_guidance": 3.0}),
    "sparse": Rival("default recipe, density .1", {"density": 0.1}),
    "sparse_random": Rival("default recipe, random mask, .1", {"mask": "random", "density": 0.1}),
    "anchor": Rival("anchored (the paper's c′), saliency mask", {"targets": "anchor"}),
    "anchor_no_mask": Rival("anchored, no mask", {"targets": "anchor", **_UNMASKED}),
    "paper": Rival("anchored, the paper's rate 1e-4", {"targets": "anchor", "learning_rate": 1e-4}),
    "gradient_ascent": Rival("gradient ascent", {"method": "gradient_ascent"}),
    "selective_amnesia": Rival("Selective Amnesia", {"method": "selective_amnesia"}),
    "esd": Rival("ESD", {"method": "esd"}),
    "forget_me_not": Rival("Forget-Me-Not", {"method": "forget_me_not"}, ("icons",)),
    "uce": Rival("UCE", {"method": "uce"}, ("icons",)),
}
