"""What an audit shall look at: frozen, self-validating, the same in body, row and worker."""

from typing import Annotated, Any

import pydantic

from salun_core import specs

LEAST_SHADOW_PAIRS = 3  # salun_core.metrics.ulira.LEAST_PAIRS; a test holds the two together
Distinct = pydantic.AfterValidator(lambda items: _distinct(items))


class Training(specs.Spec):
    """How a net is trained from scratch; ``None`` is the service's own recipe for retraining.

    The service cannot know how the audited net was trained: a reference that learns less, or more,
    than that net did makes every comparison one of trainings.
    """

    epochs: Annotated[int, pydantic.Field(ge=1, le=1000)] | None = None
    learning_rate: Annotated[float, pydantic.Field(gt=0.0, le=10.0)] | None = None
    batch_size: Annotated[int, pydantic.Field(ge=2, le=65_536)] | None = None

    def spec(self, kind: specs.ForgetKind, seed: int) -> specs.UnlearningSpec:
        """The whole recipe for retraining."""
        given = self.model_dump(exclude_none=True)
        return specs.default_spec(kind, method="retrain", seed=seed).model_copy(update=given)


class AuditOptions(specs.Spec):
    """The parts of an audit and their sizes.

    Attributes:
        retrained: measure beside two nets retrained without the data; the second is the noise
            floor.
        controls: run the version's recipe with a random mask and with none; ``None``: where the
            recipe has a saliency mask.
        densities: also with these shares of the weights free, each in (0, 1].
        seeds: of the controls' runs, for error bars.
        shadow_pairs: K pairs of shadow nets for U-LiRA; 0 for none.
        training: of all nets that are trained from scratch.
    """

    retrained: bool = True
    controls: bool | None = None
    densities: Annotated[
        tuple[specs.PositiveFraction, ...], pydantic.Field(max_length=10), Distinct
    ] = ()
    seeds: Annotated[
        tuple[Annotated[int, pydantic.Field(ge=0, lt=2**31)], ...],
        pydantic.Field(min_length=1, max_length=10),
        Distinct,
    ] = (0, 1)
    shadow_pairs: Annotated[int, pydantic.Field(ge=0, le=256)] = 0
    training: Training = Training()

    @pydantic.model_validator(mode="after")
    def _check(self) -> "AuditOptions":
        if 0 < self.shadow_pairs < LEAST_SHADOW_PAIRS:
            raise ValueError(
                f"got shadow_pairs {self.shadow_pairs}, expected 0 or {LEAST_SHADOW_PAIRS} or more"
            )
        if self.densities and self.controls is False:
            raise ValueError("got densities without controls, expected both or neither")
        if not (self.retrained or self.shadow_pairs or self.controls is not False):
            raise ValueError(
                "got no part to carry out, expected one of retrained, controls, shadow_pairs"
            )
        return self


def _distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(items)) != len(items):
        raise ValueError(f"got {list(items)}, expected each once")
    return items
