"""The methods that are compared on diffusion models, and the settings among which each may choose.

The papers' figures are for nets a thousand times as large; on small ones most of them hardly move
anything, so each rival is tried at larger ones too. The default recipe is used as it comes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from benchmarks.diffusion import subjects
from salun_core import generation_recipes, generation_specs

_UNMASKED = {"mask": "none", "density": 1.0}
_BY_CLASS, _BY_TEXT = get_args(generation_specs.GenerativeFamily)


@dataclasses.dataclass(frozen=True)
class Rival:
    """A method, what is pinned of it, and what is tried on top (one empty: the recipe's own).

    ``on`` says for which families it can be used.
    """

    title: str
    pinned: Mapping[str, Any]
    tried: tuple[Mapping[str, float], ...] = ({},)
    on: tuple[generation_specs.GenerativeFamily, ...] = (_BY_CLASS, _BY_TEXT)

    def spec(
        self, subject: subjects.Subject, seed: int, setting: Mapping[str, float]
    ) -> generation_specs.GenerationSpec:
        """The recipe."""
        pinned = {**self.pinned, **setting, "seed": seed}
        return generation_recipes.first(subject.kind, pinned)


def _or(name: str, *values: float) -> tuple[Mapping[str, float], ...]:
    return ({}, *({name: value} for value in values))


_PAPER = {"targets": "anchor", "density": 0.5, "contrast": 0.0, "learning_rate": 1e-4}
_OWN_RATES = _or("learning_rate", 3e-4, 2e-3)  # beside the default's 1e-3
_PAPER_RATES = _or("learning_rate", 3e-4, 1e-3)
RETRAINED = "retrained"
RIVALS: Mapping[str, Rival] = {
    "default": Rival("default recipe", {}),
    "random_mask": Rival("the same, random mask", {"mask": "random"}, _OWN_RATES),
    "no_mask": Rival("the same, no mask", _UNMASKED, _OWN_RATES),
    "plain": Rival(
        "the same, saliency without contrast", {"contrast": 0.0}, _OWN_RATES, (_BY_CLASS,)
    ),
    "paper": Rival("SalUn with the paper's settings", _PAPER, _PAPER_RATES),
    "paper_no_mask": Rival(
        "random labels (the same, no mask)", {**_PAPER, **_UNMASKED}, _PAPER_RATES
    ),
    "gradient_ascent": Rival(
        "gradient ascent", {"method": "gradient_ascent"}, _or("learning_rate", 1e-4, 3e-4)
    ),
    "selective_amnesia": Rival(
        "Selective Amnesia", {"method": "selective_amnesia"}, _or("learning_rate", 1e-4, 1e-3)
    ),
    "esd": Rival("ESD", {"method": "esd"}, _or("learning_rate", 3e-5, 1e-4)),
    "forget_me_not": Rival(
        "Forget-Me-Not",
        {"method": "forget_me_not"},
        _or("learning_rate", 1e-4, 1e-3),
        (_BY_TEXT,),
    ),
    "uce": Rival("UCE", {"method": "uce"}, _or("alpha", 0.01, 1.0), (_BY_TEXT,)),
    RETRAINED: Rival("retrained without it", {"method": "retrain"}, on=(_BY_CLASS,)),
}


def shown(setting: Mapping[str, float]) -> str:
    """For people."""
    return ", ".join(f"{name} {value:g}" for name, value in setting.items()) or "as it comes"
