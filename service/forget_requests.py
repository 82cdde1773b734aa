"""Forget requests: submitted, resolved, batched, withdrawn, decided."""

import datetime
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from salun_core import phrases, specs
from service import (
    api_keys,
    batches,
    concepts,
    errors,
    families,
    fulfilment,
    ledger,
    models,
    request_views,
    tables,
    telling,
)


@dataclass(frozen=True)
class Demand:
    """What a caller asks for; ``body`` is the same as JSON, ``digest`` its SHA-256."""

    model: str
    targets: tuple[specs.Target, ...]
    method: Mapping[str, Any]
    subject_request_id: uuid.UUID | None
    priority: str
    body: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class Preview:
    """What a demand would do."""

    matched: int
    already_erased: int
    pending: int
    unknown: tuple[errors.Problem, ...]
    share: float
    jobs: tuple[specs.ForgetKind, ...]
    expected_completion_at: datetime.datetime


def submit(session: orm.Session, caller: api_keys.Caller, demand: Demand) -> tables.ForgetRequest:
    """Write a request, its targets, its place in a batch, and what tells of them.

    A repeated ``subject_request_id`` with the same body returns the first request. Raises
    :class:`errors.Invalid` (``invalid-target``, ``forget-budget-exceeded``, ``invalid-method``,
    ``model-not-ready``) and :class:`errors.Conflict` (``subject-request-conflict``).
    """
    if (earlier := _same_subject_request(session, demand)) is not None:
        return earlier
    model = _served_model(session, demand)
    policy = models.policy_of(model)
    resolution = _resolved(session, model, demand)
    parts = _checked_parts(session, model, policy, demand, resolution)
    at_once = policy.window_seconds() == 0
    placements = [
        batches.place(session, model, kind, demand.method, part, shared=not at_once)
        for kind, part in parts.items()
    ]
    request = _insert(session, model, caller, demand, resolution, placements)
    concepts.note(session, request.id, [phrases.normal(one.concept) for one in resolution.concepts])
    if not any(placement.batch_id or placement.followed for placement in placements):
        erased_in = [version for placement in placements for version in placement.erased_in]
        fulfilment.complete(session, request, max(erased_in))
    if at_once:
        for placement in placements:
            if placement.batch_id is not None:
                batches.seal(session, batches.by_id(session, placement.batch_id))
    session.flush()
    return request


def preview(session: orm.Session, demand: Demand) -> Preview:
    """What :func:`submit` would do, without doing it; unknown targets are told, not raised."""
    model = _served_model(session, demand)
    resolution = ledger.resolve(session, model, demand.targets)
    states = dict(
        session.execute(
            sa.select(tables.Erasure.sample_id, tables.Erasure.version).where(
                tables.Erasure.model_id == model.id,
                tables.Erasure.sample_id
                == sa.any_(sa.literal(list(resolution.labels), sa.ARRAY(sa.Text))),
            )
        ).all()
    )
    fresh = {key: label for key, label in resolution.labels.items() if key not in states}
    size = ledger.training_size(model)
    fresh_concepts = _not_named_yet(session, model, resolution.concepts)
    named = resolution.by_concept & fresh.keys()
    kinds = tuple(ledger.by_part(session, model, fresh, fresh_concepts, named))
    ahead = request_views.jobs_ahead(session, model.id) + max(len(kinds), 1)
    now = session.scalar(sa.select(sa.func.clock_timestamp()))
    if now is None:
        now = datetime.datetime.now(datetime.UTC)
    return Preview(
        matched=len(fresh),
        already_erased=sum(version is not None for version in states.values()),
        pending=sum(version is None for version in states.values()),
        unknown=resolution.unknown + resolution.unusable,
        share=len(resolution.labels) / size if size else 0.0,
        jobs=kinds,
        expected_completion_at=now
        + datetime.timedelta(seconds=ahead * request_views.typical_job_seconds(session, model.id)),
    )


def by_id(
    session: orm.Session, request_id: uuid.UUID, *, lock: bool = False
) -> tables.ForgetRequest:
    """The request; raises :class:`errors.NotFound`.

    With ``lock`` nobody else changes it, or the batches of its model, until the transaction ends.
    """
    request = session.get(tables.ForgetRequest, request_id)
    if request is None:
        raise errors.NotFound("forget-request-not-found", f"no forget request {request_id}")
    if lock:
        batches.hold(session, request.model_id)
        session.refresh(request, with_for_update=True)
    return request


def withdraw(session: orm.Session, actor: str, request_id: uuid.UUID) -> tables.ForgetRequest:
    """Withdraw a request; raises :class:`errors.Conflict` (``batch-sealed``) if it is too late."""
    request = by_id(session, request_id, lock=True)
    if request.status == "cancelled":
        return request
    if request.status != "pending":
        detail = f"this request is {request.status}; only a pending one can be withdrawn"
        raise errors.Conflict("batch-sealed", detail)
    batches.require_open(session, request)
    batches.leave(session, request)
    fulfilment.close(session, request, "cancelled", request.stage)
    telling.audit(session, actor, "forget_request.withdraw", request.id)
    return request


def _same_subject_request(session: orm.Session, demand: Demand) -> tables.ForgetRequest | None:
    if demand.subject_request_id is None:
        return None
    # Two calls at once would both find nothing: the lock makes the second wait for the first.
    key = demand.subject_request_id.int & (2**63 - 1)
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
    earlier = session.scalar(
        sa.select(tables.ForgetRequest).where(
            tables.ForgetRequest.subject_request_id == demand.subject_request_id
        )
    )
    if earlier is not None and earlier.body_digest != demand.digest:
        detail = (
            f"subject_request_id {demand.subject_request_id} came before with another body; "
            "expected the same body again, or a new id"
        )
        raise errors.Conflict("subject-request-conflict", detail)
    return earlier


def _served_model(session: orm.Session, demand: Demand) -> tables.Model:
    """The model, with its dataset in the session and its batches held for joining."""
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


def _resolved(session: orm.Session, model: tables.Model, demand: Demand) -> ledger.Resolution:
    resolution = ledger.resolve(session, model, demand.targets)
    problems = list(resolution.unusable)
    if not resolution.labels and not resolution.concepts:
        problems += resolution.unknown
    if problems:
        detail = f"{len(problems)} targets name nothing to forget: {problems[0].detail}"
        raise errors.Invalid("invalid-target", detail, problems[: ledger.MAX_PROBLEMS])
    return resolution


def _checked_parts(
    session: orm.Session,
    model: tables.Model,
    policy: models.ModelPolicy,
    demand: Demand,
    resolution: ledger.Resolution,
) -> dict[specs.ForgetKind, ledger.Part]:
    families.check_method(models.family_of(model), demand.method)
    size = max(ledger.training_size(model), 1)
    limit = policy.max_forget_share
    share = (len(resolution.labels) + ledger.erasures(session, model)) / size
    if share > limit:  # unless some were named before: then they are counted twice
        share -= ledger.named_before(session, model, list(resolution.labels)) / size
    if share > limit:
        detail = (
            f"this and what is forgotten already come to {share:.1%} of the training set; "
            f"the model's policy allows {limit:.1%}"
        )
        raise errors.Invalid("forget-budget-exceeded", detail)
    return ledger.by_part(
        session, model, resolution.labels, resolution.concepts, resolution.by_concept
    )


def _not_named_yet(
    session: orm.Session, model: tables.Model, named: Sequence[specs.ConceptTarget]
) -> list[specs.ConceptTarget]:
    before = set(
        session.scalars(
            sa.select(tables.ConceptErasure.concept).where(
                tables.ConceptErasure.model_id == model.id
            )
        )
    )
    return [one for one in named if phrases.normal(one.concept) not in before]


def _insert(
    session: orm.Session,
    model: tables.Model,
    caller: api_keys.Caller,
    demand: Demand,
    resolution: ledger.Resolution,
    placements: Sequence[batches.Placement],
) -> tables.ForgetRequest:
    """The request and everything that hangs on it, in one statement: this is the hot path."""
    joined = {placement.batch_id for placement in placements} - {None}
    matched = sum(placement.matched for placement in placements)
    told = {"body_sha256": demand.digest, "matched": matched, "unknown": len(resolution.unknown)}
    row = {
        "model_id": model.id,
        "api_key_id": caller.key_id,
        "subject_request_id": demand.subject_request_id,
        "body": demand.body,
        "body_digest": demand.digest,
        "matched": matched,
        "pending": sum(placement.pending for placement in placements),
        "already_erased": sum(placement.already_erased for placement in placements),
        "unknown": len(resolution.unknown),
        "ids": list(resolution.labels),
        "batches": list(joined.union(*(placement.followed for placement in placements))),
        "received": {"samples": len(resolution.labels)},
        "actor": caller.actor,
        "told": told,
    }
    return session.scalars(_INSERT, row).one()


def _insertion() -> sa.Select[tables.ForgetRequest]:
    table = tables.core(tables.ForgetRequest)
    columns = ("model_id", "api_key_id", "subject_request_id", "body", "body_digest")
    counts = ("matched", "pending", "already_erased", "unknown")
    request = (
        sa.insert(table)
        .values(stage="queued", **{name: sa.bindparam(name) for name in columns + counts})
        .returning(table)
        .cte("request")
    )

    def unnested(name: str, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
        return sa.func.unnest(sa.bindparam(name, type_=sa.ARRAY(kind)))

    samples = sa.insert(tables.core(tables.RequestSample)).from_select(
        ["request_id", "sample_id"], sa.select(request.c.id, unnested("ids", sa.Text()))
    )
    members = sa.insert(tables.core(tables.BatchMember)).from_select(
        ["request_id", "batch_id"], sa.select(request.c.id, unnested("batches", sa.Uuid()))
    )
    counted = ledger.count_erasures(request.c.model_id, request.c.matched)
    entity = orm.aliased(tables.ForgetRequest, request)
    return sa.select(entity).add_cte(
        samples.cte("samples"),
        members.cte("members"),
        counted.cte("counted"),
        telling.event_from(
            request.c.id, "received", sa.bindparam("received", type_=postgresql.JSONB)
        ).cte("event"),
        telling.audit_from(
            sa.bindparam("actor", type_=sa.Text),
            "forget_request.submit",
            request.c.id,
            sa.bindparam("told", type_=postgresql.JSONB),
        ).cte("audit"),
    )


_INSERT = _insertion()
_SERVED_MODEL = (
    sa.select(tables.Model, batches.joining())
    .join(tables.Model.dataset)
    .options(orm.contains_eager(tables.Model.dataset))
    .where(tables.Model.name == sa.bindparam("name"))
)
