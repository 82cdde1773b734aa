"""What a family means to a request: its recipes, and what its training set must tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import pydantic

from salun_core import generation_recipes, generation_specs, recipes, specs
from service import errors

# A generator of more bytes takes days to train from scratch; the service does not try.
_MOST_RETRAINED_BYTES = 64 * 2**20

SpecT = TypeVar("SpecT", bound=specs.Recipe)


class Recipes(Protocol[SpecT]):
    """What planning asks of a module of recipes."""

    def parse(self, recipe: Mapping[str, Any], /) -> SpecT:
        """A recipe that was kept."""

    def check(self, pinned: Mapping[str, Any], /) -> None:
        """Raise ``pydantic.ValidationError`` for fields that cannot be pinned."""

    def ladder(
        self,
        kind: specs.ForgetKind,
        forget_count: int,
        retain_count: int,
        pinned: Mapping[str, Any],
        *,
        retrain: bool,
    ) -> tuple[SpecT, ...]:
        """The recipes to try, one after another."""

    def within(
        self,
        ladder: tuple[SpecT, ...],
        forget_count: int,
        retain_count: int,
        most_steps: int,
        /,
    ) -> tuple[SpecT, ...]:
        """Those that take no more steps together."""


@dataclass(frozen=True)
class Family:
    """A kind of model.

    ``needs`` is the column by which its training samples are told apart. ``spec`` is its recipe.
    Weights larger than ``most_retrained_bytes`` are not trained from scratch; ``None``: any are.
    ``reanchors``: a run can forget the batch and all that was erased before it together.
    """

    recipes: Recipes[Any]
    spec: type[specs.Recipe]
    needs: Literal["label", "text"]
    most_retrained_bytes: int | None
    reanchors: bool


FAMILIES: Mapping[str, Family] = {
    "classifier": Family(recipes, specs.UnlearningSpec, "label", None, reanchors=True),
    "class_conditional_diffusion": Family(
        generation_recipes,
        generation_specs.GenerationSpec,
        "label",
        _MOST_RETRAINED_BYTES,
        reanchors=False,
    ),
    "text_to_image": Family(
        generation_recipes,
        generation_specs.GenerationSpec,
        "text",
        _MOST_RETRAINED_BYTES,
        reanchors=False,
    ),
}


def check_method(name: specs.Family, pinned: Mapping[str, Any]) -> None:
    """Whether these fields of a recipe can be pinned for a model of that family.

    Raises :class:`errors.Invalid` (``invalid-method``).
    """
    family = FAMILIES[name]
    try:
        family.recipes.check(pinned)
    except pydantic.ValidationError as error:
        others = {
            field
            for other in FAMILIES.values()
            if other.spec is not family.spec
            for field in other.spec.model_fields.keys() - family.spec.model_fields.keys()
        }
        problems = []
        for item in error.errors():
            field, detail = "/".join(map(str, item["loc"])), item["msg"]
            if field in others:
                expected = ", ".join(sorted(family.spec.model_fields))
                detail = f"got {field}, which recipes of {name} have not; expected {expected}"
            problems.append(errors.Problem(f"/method/{field}", item["type"], detail))
        detail = f"method: {problems[0].detail}"
        raise errors.Invalid("invalid-method", detail, problems) from error
