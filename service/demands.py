"""What a demand names, whether it may be let in, and what it would do."""

import collections
import datetime
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import phrases, specs
from service import (
    batches,
    concepts,
    database,
    erasures,
    errors,
    families,
    ledger,
    models,
    pace,
    parts,
    tables,
)

_TARGETS = pydantic.TypeAdapter(tuple[specs.Target, ...])
_DAY = datetime.timedelta(days=1)
_MANY = 100  # sample ids


@dataclass(frozen=True)
class Demand:
    """What a caller asks for; ``body`` is the same as JSON, ``digest`` its keyed mark."""

    model: str
    targets: tuple[specs.Target, ...]
    method: Mapping[str, Any]
    subject_request_id: uuid.UUID | None
    priority: str
    body: dict[str, Any]
    digest: str

    @property
    def is_expedited(self) -> bool:
        """Whether it shall not wait for others."""
        return self.priority == "expedited"

    @property
    def names_a_class(self) -> bool:
        """Whether it asks for a class by its label."""
        return any(isinstance(target, specs.ClassTarget) for target in self.targets)

    @property
    def names_many(self) -> bool:
        """Whether it may name a share of the training set that counts."""
        ids = sum(len(one.ids) for one in self.targets if isinstance(one, specs.SampleTarget))
        sets = (specs.ConceptTarget, specs.SubjectTarget)
        return ids >= _MANY or any(isinstance(one, sets) for one in self.targets)


@dataclass(frozen=True)
class Preview:
    """What a demand would do."""

    matched: int
    already_erased: int
    pending: int
    unknown: tuple[errors.Problem, ...]
    share: float
    needs_approval: bool
    jobs: tuple[specs.ForgetKind, ...]
    expected_completion_at: datetime.datetime


def of_request(session: orm.Session, request: tables.ForgetRequest) -> Demand:
    """The demand that a request was made of."""
    body = request.body
    return Demand(
        model=session.get_one(tables.Model, request.model_id).name,
        targets=_TARGETS.validate_json(json.dumps(body["targets"])),
        method=body.get("method") or {},
        subject_request_id=request.subject_request_id,
        priority=body.get("priority", "standard"),
        body=body,
        digest=request.body_digest,
    )


def check(demand: Demand) -> None:
    """Who jumps the queue says why; raises :class:`errors.Invalid` (``reason-required``)."""
    if demand.is_expedited and not demand.body.get("reason"):
        detail = "got priority 'expedited' without a reason; expected a reason, it is kept"
        raise errors.Invalid(
            "reason-required", detail, [errors.Problem("/reason", "reason-required", detail)]
        )


def served_model(session: orm.Session, demand: Demand) -> tables.Model:
    """The model, with its dataset in the session and its batches held for joining.

    A demand that seals or absorbs what others joined holds them for itself alone, and so does a
    large one: two of them must not pass a budget side by side. Raises
    :class:`errors.Invalid` (``invalid-target``).
    """
    if demand.is_expedited or demand.names_a_class or demand.names_many:
        by_name = sa.select(tables.Model.id).where(tables.Model.name == demand.model)
        model_id = session.scalar(by_name)
        if model_id is not None:
            batches.hold(session, model_id)
    model: tables.Model | None = session.scalar(_SERVED_MODEL, {"name": demand.model})
    if model is None:
        detail = f"no model {demand.model[:80]!r}"
        problem = errors.Problem("/model", "unknown-model", detail)
        raise errors.Invalid("invalid-target", detail, [problem])
    if model.head is None:
        detail = f"model {model.name!r} has no published version yet; nothing is served to forget"
        problem = errors.Problem("/model", "model-not-ready", detail)
        raise errors.Invalid("invalid-target", detail, [problem])
    return model


def resolved(
    session: orm.Session,
    model: tables.Model,
    policy: models.ModelPolicy,
    demand: Demand,
    before: int,
) -> ledger.Resolution:
    """What the demand names; raises :class:`errors.Invalid` where that is nothing, or too much.

    ``before`` is how many samples are erased or about to be, of all demands before.
    """
    families.check_method(models.family_of(model), demand.method)
    resolution = ledger.resolve(session, model, demand.targets)
    problems = list(resolution.unusable)
    if not resolution.labels and not resolution.concepts:
        problems += resolution.unknown
    if problems:
        detail = f"{len(problems)} targets name nothing to forget: {problems[0].detail}"
        raise errors.Invalid("invalid-target", detail, problems[: ledger.MAX_PROBLEMS])
    check_share(session, model, policy, resolution, before)
    return resolution


def check_share(
    session: orm.Session,
    model: tables.Model,
    policy: models.ModelPolicy,
    resolution: ledger.Resolution,
    before: int,
) -> None:
    """Raise :class:`errors.Invalid` where this and what was named before come to too much."""
    limit = policy.max_forget_share
    share = _share_with(session, model, resolution, before, limit)
    if share > limit:
        detail = (
            f"this and what is forgotten already come to {share:.1%} of the training set; "
            f"the model's policy allows {limit:.1%}"
        )
        raise errors.Invalid("forget-budget-exceeded", detail)


def needs_second_person(
    session: orm.Session,
    model: tables.Model,
    budget: models.Budget,
    demand: Demand,
    resolution: ledger.Resolution,
    before: int,
) -> bool:
    """Whether the demand goes over the model's budget; ``before`` as in :func:`resolved`."""
    if budget.class_share is not None and _empties_a_class(
        session, model, budget.class_share, demand, resolution
    ):
        return True
    if budget.daily_share is None:
        return False
    ever = len(resolution.labels) + before
    if ever <= budget.daily_share * max(model.training_size, 1):
        return False  # nobody need count what came today
    request = tables.ForgetRequest
    today = session.scalar(
        sa.select(sa.func.coalesce(sa.func.sum(request.matched), 0)).where(
            request.model_id == model.id, request.received_at > sa.func.clock_timestamp() - _DAY
        )
    )
    share = _share_with(session, model, resolution, today or 0, budget.daily_share)
    return share > budget.daily_share


def _empties_a_class(
    session: orm.Session,
    model: tables.Model,
    limit: float,
    demand: Demand,
    resolution: ledger.Resolution,
) -> bool:
    """Whether this takes more than ``limit`` of a class that it does not name, with what others
    took in the last 24 hours.
    """
    names = model.dataset.label_names
    classes = {one.label for one in demand.targets if isinstance(one, specs.ClassTarget)}
    named = {label for label, name in enumerate(names) if name in classes}
    asked = {
        sample: label
        for sample, label in resolution.labels.items()
        if label is not None and label not in named
    }
    counted = collections.Counter(asked.values())
    sizes = model.dataset.class_sizes
    ever = counted + erasures.count_of(session, model, counted)
    if all(ever[label] <= limit * sizes.get(str(label), 0) for label in counted):
        return False  # nobody need look at samples, or count what came today
    known = erasures.among(session, model, list(asked))
    fresh = collections.Counter(label for sample, label in asked.items() if sample not in known)
    taken = fresh + erasures.demanded_since(session, model, _DAY, list(fresh))
    return any(taken[label] > limit * sizes.get(str(label), taken[label]) for label in fresh)


def preview(session: orm.Session, demand: Demand) -> Preview:
    """What submitting would do, without doing it; unknown targets are told, not raised.

    What is over the policy's limit is refused as it would be (:class:`errors.Invalid`,
    ``forget-budget-exceeded``).
    """
    check(demand)
    model = served_model(session, demand)
    families.check_method(models.family_of(model), demand.method)
    resolution = ledger.resolve(session, model, demand.targets)
    policy, before = models.policy_of(model), erasures.count(session, model)
    check_share(session, model, policy, resolution, before)
    states = dict(
        session.execute(
            sa.select(tables.Erasure.sample_id, erasures.served_version(tables.Erasure)).where(
                tables.Erasure.model_id == model.id,
                tables.Erasure.sample_id
                == sa.any_(sa.literal(list(resolution.labels), database.Names())),
            )
        ).all()
    )
    fresh = {key: label for key, label in resolution.labels.items() if key not in states}
    size = model.training_size
    fresh_concepts = _not_named_yet(session, model, resolution.concepts)
    named = resolution.by_concept & fresh.keys()
    kinds = tuple(parts.of(session, model, fresh, fresh_concepts, named))
    runs = pace.jobs_ahead(session, model.id) + max(len(kinds), 1)
    window = 0.0 if demand.is_expedited else policy.window_seconds()
    each = pace.typical_job_seconds(session, model.id)
    return Preview(
        matched=len(fresh),
        already_erased=sum(version is not None for version in states.values()),
        pending=sum(version is None for version in states.values()),
        unknown=resolution.unknown + resolution.unusable,
        share=len(resolution.labels) / size if size else 0.0,
        needs_approval=needs_second_person(
            session, model, policy.budget, demand, resolution, before
        ),
        jobs=kinds,
        expected_completion_at=database.now(session)
        + datetime.timedelta(seconds=window + runs * each),
    )


def _share_with(
    session: orm.Session,
    model: tables.Model,
    resolution: ledger.Resolution,
    others: int,
    limit: float,
) -> float:
    """The share of the training set that this and so many others come to."""
    size = max(model.training_size, 1)
    share = (len(resolution.labels) + others) / size
    if share > limit:  # unless some were named before: then they are counted twice
        share -= len(erasures.among(session, model, list(resolution.labels))) / size
    return share


def _not_named_yet(
    session: orm.Session, model: tables.Model, named: Sequence[specs.ConceptTarget]
) -> list[specs.ConceptTarget]:
    before = concepts.demanded(session, model.id)
    return [one for one in named if phrases.normal(one.concept) not in before]


_SERVED_MODEL = (
    sa.select(tables.Model, batches.joining())
    .join(tables.Model.dataset)
    .options(orm.contains_eager(tables.Model.dataset))
    .where(tables.Model.name == sa.bindparam("name"))
)
