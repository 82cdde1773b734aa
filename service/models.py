"""Registered neural networks ("model" always means that) and their policies."""

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import pydantic
import sqlalchemy as sa
from sqlalchemy import exc, orm

from salun_core import generation_specs, specs
from service import acceptance as gates
from service import datasets, errors, families, settings, tables, telling

PRODUCTION = "production"
_CENTURY = 36_525 * 86_400.0
Seconds = Annotated[float, pydantic.Field(ge=0.0, le=_CENTURY)]
"""A span of time that dates can be counted with."""


class Budget(specs.Spec):
    """How much may be demanded of a model before a second person must approve; shares in (0, 1].

    ``daily_share`` is of the training set, over all demands of 24 hours. ``class_share`` is of the
    training samples of one class, by a demand that does not name the class itself, with all that
    was demanded of it in 24 hours (``None``: no limit). Emptying a class sample by sample changes
    the model as forgetting the class does.
    """

    daily_share: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] | None = 0.25
    class_share: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] | None = None


class ModelPolicy(specs.Spec):
    """What the owner of a model decides once; kept with the model and pinned into every job.

    ``max_job_seconds`` ends the ladder of recipes: after it no further recipe is begun.
    ``max_job_steps`` shortens the ladder before the job starts: its recipes take no more optimizer
    steps together (rate probes not counted); where not even one fits, the first has fewer epochs.
    ``max_forget_share`` is the largest share of the training set that may be forgotten in all;
    ``budget`` is what may be demanded before a second person is asked.
    ``batch_window_seconds`` is how long an open batch waits for more requests (``None``: the
    service's own setting); ``max_batch_requests``, ``max_batch_share`` (of the training set) and
    ``deadline_margin_seconds`` (before the latest start) close it earlier; a batch that fails is
    split at most ``max_batch_splits`` times to find who is to blame.
    ``composition`` says what the next version is made from (see ``service.composing``), with at
    most ``max_chain`` links of a chain; beyond ``max_drift``, the test accuracy lost since the
    first anchor, retraining is tried first.
    A version that an alias left and that remembers more is revoked after ``grace_seconds``; what
    was erased, and revoked versions, are deleted after ``proof_window_seconds``.
    ``sampling`` is how a generator is served, and so how it is verified.
    """

    auto_publish: bool = True
    max_forget_share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.5
    max_job_seconds: Annotated[float, pydantic.Field(gt=0.0)] = 6 * 3600.0
    max_job_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    budget: Budget = Budget()
    batch_window_seconds: Seconds | None = None
    max_batch_requests: Annotated[int, pydantic.Field(ge=1)] = 100_000
    max_batch_share: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] = 0.25
    deadline_margin_seconds: Seconds = 10 * 86_400.0
    max_batch_splits: Annotated[int, pydantic.Field(ge=0)] = 16
    composition: Literal["reanchor", "chain"] = "reanchor"
    max_chain: Annotated[int, pydantic.Field(ge=1)] = 3
    max_drift: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] = 0.03
    grace_seconds: Seconds = 7 * 86_400.0
    proof_window_seconds: Seconds = 30 * 86_400.0
    acceptance: gates.Acceptance = gates.AcceptancePolicy()
    sampling: generation_specs.Sampling = generation_specs.Sampling()

    def window_seconds(self) -> float:
        """The batch window in force."""
        if self.batch_window_seconds is None:
            return settings.load().batch_window_seconds
        return self.batch_window_seconds


def register(
    session: orm.Session,
    actor: str,
    name: str,
    family: specs.Family,
    dataset: str,
    policy: ModelPolicy,
) -> tables.Model:
    """Register a model over a dataset that is ready and tells what the family needs.

    Raises :class:`errors.Invalid` for a dataset that is unknown, not ready or without labels or
    texts, and :class:`errors.Conflict` for a name in use.
    """
    try:
        training_set = datasets.by_name(session, dataset)
    except errors.NotFound as missing:
        detail = f"{missing.detail}; register it with POST /v1/datasets first"
        raise _invalid_dataset("unknown-dataset", detail) from missing
    if training_set.status != "ready":
        detail = f"dataset {dataset!r} is {training_set.status}, expected ready"
        raise _invalid_dataset("dataset-not-ready", detail)
    needed = families.FAMILIES[family].needs
    if not datasets.tells(session, training_set, needed):
        detail = (
            f"no training sample of dataset {dataset!r} has a {needed}; "
            f"a {family} model was trained on samples with one"
        )
        raise _invalid_dataset(f"{needed}s-missing", detail)
    taken = session.scalar(sa.select(tables.Model.id).where(tables.Model.name == name))
    if taken is not None:
        raise _taken(name)
    model = tables.Model(
        name=name,
        family=family,
        dataset_id=training_set.id,
        training_size=training_set.splits.get(tables.TRAIN, 0),
        policy=policy.model_dump(mode="json"),
    )
    session.add(model)
    try:
        session.flush()
    except exc.IntegrityError as taken_meanwhile:
        raise _taken(name) from taken_meanwhile
    telling.audit(session, actor, "model.register", model.id, family=family)
    return model


def _taken(name: str) -> errors.Conflict:
    return errors.Conflict("model-exists", f"model {name!r} exists; choose another name")


def by_name(session: orm.Session, name: str, *, lock: bool = False) -> tables.Model:
    """The model of that name; raises :class:`errors.NotFound`."""
    statement = sa.select(tables.Model).where(tables.Model.name == name)
    model = session.scalar(statement.with_for_update() if lock else statement)
    if model is None:
        raise errors.NotFound("model-not-found", f"no model {name[:80]!r}")
    return model


def listing(session: orm.Session) -> Sequence[tables.Model]:
    """All models by name."""
    return session.scalars(sa.select(tables.Model).order_by(tables.Model.name)).all()


def policy_of(model: tables.Model) -> ModelPolicy:
    """The model's policy."""
    return ModelPolicy.model_validate(model.policy)


def family_of(model: tables.Model) -> specs.Family:
    """The model's family."""
    return cast("specs.Family", model.family)


def _invalid_dataset(code: str, detail: str) -> errors.Invalid:
    return errors.Invalid("invalid-model", detail, [errors.Problem("/dataset", code, detail)])
