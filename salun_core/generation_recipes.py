"""Which recipe a diffusion model is unlearned by first, and which come after it.

The counterpart of :mod:`salun_core.recipes`: what a caller pins holds on every rung.
"""

from collections.abc import Mapping
from typing import Any, get_args

from salun_core import generation_specs, specs

_MOST_STEPS = 100_000
# The paper's settings for Stable Diffusion (arXiv 2310.12508, appendix C), and no more in memory
# than must be: see "Memory for a diffusion model" in docs/operations.md.
_LARGE: Mapping[str, Any] = {
    "learning_rate": 1e-5,
    "steps": 500,
    "forget_batch_size": 4,
    "retain_batch_size": 4,
    "weight_average": 0.0,
}
_FITTING: Mapping[specs.ForgetKind, tuple[generation_specs.Targets, ...]] = {
    "samples": ("matched", "anchor"),
    "class": ("spread", "anchor"),
    "concept": ("replacement", "anchor", "spread"),
}


def parse(recipe: Mapping[str, Any]) -> generation_specs.GenerationSpec:
    """A recipe that was kept.

    Raises:
        pydantic.ValidationError: it is none of this family's.
    """
    return generation_specs.GenerationSpec.model_validate(recipe)


def check(pinned: Mapping[str, Any]) -> None:
    """Whether these fields of a recipe can be pinned, whatever is to be forgotten.

    Raises:
        pydantic.ValidationError: they cannot.
    """
    for kind in get_args(specs.ForgetKind):
        first(kind, pinned)


def first(
    kind: specs.ForgetKind, pinned: Mapping[str, Any], *, large: bool = False
) -> generation_specs.GenerationSpec:
    """The recipe for one kind of request, with what is pinned; a gentler one for a large model.

    A demand may have parts of several kinds: pinned targets that one of them cannot have give way
    to its own.

    Raises:
        pydantic.ValidationError: what is pinned is no recipe.
    """
    method = parse(pinned).method
    own = generation_specs.default_spec(kind, method=method).model_dump()
    gentle = _LARGE if large and method == "salun" else {}
    held = dict(pinned)
    if held.get("targets") not in _FITTING[kind]:
        held.pop("targets", None)
    return parse({**own, **gentle, **held})


def ladder(
    kind: specs.ForgetKind,
    forget_count: int,
    retain_count: int,
    pinned: Mapping[str, Any],
    *,
    retrain: bool = True,
) -> tuple[generation_specs.GenerationSpec, ...]:
    """The recipes to try, one after another, until a result passes.

    After the first come twice the steps, then all weights free to change, then retraining: where
    the model is small enough for it (``retrain``) and training samples of what is forgotten are
    there to be left out. A model too large to retrain gets a gentler first recipe.
    Where the caller pinned the method only that method is tried; where they pinned steps, density
    or mask, rungs that would only change these are left out.
    """
    base = first(kind, pinned, large=not retrain)
    if base.method != "salun":
        return (base,)
    longer = {"steps": min(2 * base.steps, _MOST_STEPS)}
    free = {**longer, "mask": "none", "density": 1.0}
    changed = [
        base.model_copy(update=more) for more in (longer, free) if not more.keys() & pinned.keys()
    ]
    unlearning = (base, *changed)
    if "method" in pinned or not (retrain and forget_count and retain_count):
        return unlearning
    return (*unlearning, generation_specs.default_spec(kind, method="retrain", seed=base.seed))


def within(
    ladder: tuple[generation_specs.GenerationSpec, ...], _: int, __: int, most_steps: int
) -> tuple[generation_specs.GenerationSpec, ...]:
    """The rungs of a ladder that take no more optimizer steps together; one too long is skipped.

    Where none fits, the first stays with as many steps as do. The steps of a recipe do not depend
    on the sizes of the sets.
    """
    taken, kept = 0, []
    for spec in ladder:
        if taken + spec.steps <= most_steps:
            taken += spec.steps
            kept.append(spec)
    return tuple(kept) or (ladder[0].model_copy(update={"steps": most_steps}),)
