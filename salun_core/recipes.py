"""Which recipe is tried first, and which come after it when the result does not pass.

Nobody has to choose hyper-parameters: they follow from what is to be forgotten and how much of it
there is. What a caller pins holds on every rung of the method that it was pinned for; retraining at
the end of another method's ladder has settings of its own scale.
"""

from collections.abc import Mapping
from typing import Any, get_args

from salun_core import specs

# Passes over the forget set that matched targets need. Half of a training set forgotten in five
# passes is still recognised (AUC .62 to .66 where .5 is wanted), in twelve it is not told from a
# retrained net by any of the four accuracies.
_FORGET_PASSES = 12
# Where half is forgotten those twelve passes cost nine tenths of retraining, and the AUC is still
# .60 (two seeds of `benchmarks.quality` on CIFAR-10); a tenth costs less than half and gives .48.
_RETRAIN_SHARE = 0.4
# How much longer the second retraining takes: a net that is hard to train is not as good as the
# original after the first.
_RETRAIN_LONGER = 3
_MOST_EPOCHS = 1000


def parse(recipe: Mapping[str, Any]) -> specs.UnlearningSpec:
    """A recipe that was kept.

    Raises:
        pydantic.ValidationError: it is none of this family's.
    """
    return specs.UnlearningSpec.model_validate(recipe)


def check(pinned: Mapping[str, Any]) -> None:
    """Whether these fields of a recipe can be pinned, whatever is to be forgotten.

    Raises:
        pydantic.ValidationError: they cannot.
    """
    for kind in get_args(specs.ForgetKind):
        first(kind, 1, 1, pinned)


def first(
    kind: specs.ForgetKind, forget_count: int, retain_count: int, pinned: Mapping[str, Any]
) -> specs.UnlearningSpec:
    """The recipe for sets of these sizes, with what is pinned.

    Raises:
        pydantic.ValidationError: what is pinned is no recipe.
    """
    method = specs.UnlearningSpec.model_validate(pinned).method
    own = specs.default_spec(kind, method=method).model_dump()
    for figure, chosen_by in (("learning_rate", "probe_rate"), ("epochs", "early_stop")):
        own[chosen_by] &= figure not in pinned and pinned.get("targets") != "random_label"
    spec = specs.UnlearningSpec.model_validate({**own, **pinned})
    if "epochs" not in pinned and spec.targets == "matched" and method in ("salun", "salun_soft"):
        steps = spec.count_batches(retain_count)
        size = forget_batch_size(forget_count, steps, spec.batch_size)
        epochs = -(-_FORGET_PASSES * forget_count // max(1, steps * size))
        spec = spec.model_copy(update={"epochs": min(_MOST_EPOCHS, max(spec.epochs, epochs))})
    return spec


def ladder(
    kind: specs.ForgetKind,
    forget_count: int,
    retain_count: int,
    pinned: Mapping[str, Any],
    *,
    retrain: bool = True,
) -> tuple[specs.UnlearningSpec, ...]:
    """The recipes to try, one after another, until a result passes.

    After the first come twice the epochs (none left out by an early stop), then all weights free
    to change, then retraining, which forgets by construction, and three times as long where the net
    is not good enough then; where a large share is forgotten retraining comes first, because
    unlearning would cost as much and come less near. Where the
    caller pinned the method only that method is tried, and without ``retrain`` no retraining; where
    they pinned epochs, density or mask, rungs that would only change these are left out. Of what
    they pinned without a method, retraining takes the seed alone: a rate or a number of epochs that
    suits unlearning would leave a fresh net untrained.
    """
    base = first(kind, forget_count, retain_count, pinned)
    if base.method != "salun":
        return (base,)
    longer = {"epochs": min(2 * base.epochs, _MOST_EPOCHS)}
    free = {**longer, "mask": "none", "density": 1.0}
    whole = {"early_stop": bool(pinned.get("early_stop", False))}
    changed = [
        base.model_copy(update={**more, **whole})
        for more in (longer, free)
        if not more.keys() & pinned.keys()
    ]
    unlearning = (base, *changed)
    if "method" in pinned or not retrain:
        return unlearning
    short = specs.default_spec(kind, method="retrain", seed=base.seed)
    retraining = (short, short.model_copy(update={"epochs": _RETRAIN_LONGER * short.epochs}))
    if forget_count > _RETRAIN_SHARE * (forget_count + retain_count):
        return retraining + unlearning
    return unlearning + retraining


def within(
    ladder: tuple[specs.UnlearningSpec, ...], forget_count: int, retain_count: int, most_steps: int
) -> tuple[specs.UnlearningSpec, ...]:
    """The rungs of a ladder that take no more optimizer steps together; one too long is skipped.

    Where none fits, the first stays with as many epochs as do, at least one.
    """
    taken, kept = 0, []
    for spec in ladder:
        steps = count_steps(spec, forget_count, retain_count)
        if taken + steps <= most_steps:
            taken += steps
            kept.append(spec)
    if kept:
        return tuple(kept)
    first_steps = count_steps(ladder[0], forget_count, retain_count)
    epochs = max(1, ladder[0].epochs * most_steps // first_steps)
    return (ladder[0].model_copy(update={"epochs": epochs}),)


def count_steps(spec: specs.UnlearningSpec, forget_count: int, retain_count: int) -> int:
    """Optimizer steps of a run, none left out by an early stop; at least 1.

    A rate probe is not counted: it takes 20 steps, or 80 where none but the lowest rate holds.
    """
    forget, retain = (spec.count_batches(count) for count in (forget_count, retain_count))
    if spec.method in ("influence", "fisher_forgetting"):
        return 1
    if spec.method in ("gradient_ascent", "boundary_shrink", "boundary_expand"):
        return max(1, spec.epochs * forget)
    both = spec.method == "random_label" or spec.targets == "random_label"
    return max(1, spec.epochs * (retain + (forget if both else 0)))


def forget_batch_size(forget_count: int, steps: int, batch_size: int) -> int:
    """Samples of the forget set in a step: all of it in every epoch, as far as may be."""
    wanted = max(batch_size // 4, min(batch_size, -(-forget_count // max(1, steps))))
    return max(1, min(forget_count, wanted))
