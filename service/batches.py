"""Requests that one job serves. A batch is open until it is sealed; then its members are fixed."""

import datetime
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from salun_core import phrases, specs
from service import concepts, errors, jobs, ledger, models, tables, telling

_IDS = sa.bindparam("ids", type_=sa.ARRAY(sa.Text))
_IS_OPEN = tables.Batch.state == "open"
_LOCK_SEED = 1  # keeps these advisory locks apart from others


def _lock_key(model_id: sa.SQLColumnExpression[uuid.UUID]) -> sa.ColumnElement[int]:
    return sa.func.hashtextextended(sa.cast(model_id, sa.Text), _LOCK_SEED)


# Every submission runs these: they are built once.
_OPEN_BATCH = sa.select(tables.Batch.id).where(
    tables.Batch.model_id == sa.bindparam("model"),
    tables.Batch.profile == sa.bindparam("profile"),
    _IS_OPEN,
)
_MAKE_BATCH = (
    postgresql.insert(tables.core(tables.Batch)).on_conflict_do_nothing().returning(tables.Batch.id)
)
_CLAIM_SAMPLES = (
    postgresql.insert(tables.core(tables.Erasure))
    .from_select(
        ["model_id", "sample_id", "batch_id"],
        sa.select(
            sa.bindparam("model", type_=sa.Uuid),
            sa.func.unnest(_IDS),
            sa.bindparam("batch", type_=sa.Uuid),
        ),
    )
    .on_conflict_do_nothing()
    .returning(tables.Erasure.sample_id)
)
_EARLIER = sa.select(tables.Erasure.batch_id, tables.Erasure.version).where(
    tables.Erasure.model_id == sa.bindparam("model"), tables.Erasure.sample_id == sa.any_(_IDS)
)


@dataclass(frozen=True)
class Placement:
    """Where the samples and concepts of one kind went: new, under way, or gone already.

    ``batch_id`` is the batch that erases the new ones; ``followed`` are those that erase the rest.
    The counts are of samples; ``erased_in`` tells of concepts too.
    """

    batch_id: uuid.UUID | None
    followed: frozenset[uuid.UUID]
    matched: int
    pending: int
    already_erased: int
    erased_in: tuple[int, ...]  # the versions that lack what was erased before


def hold(session: orm.Session, model_id: uuid.UUID) -> None:
    """Keep every other transaction from joining or sealing batches of a model until this one ends.

    Who joins holds the same advisory lock shared (:func:`joining`), so joins go side by side. Row
    locks would not do: under a steady stream of shared ones a batch is never free to be sealed,
    while PostgreSQL serves advisory locks in the order in which they were asked for. Take it
    before any row lock on requests, batches or the model.
    """
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_key(sa.literal(model_id)))))


def joining() -> sa.ColumnElement[None]:
    """Column for the statement that reads ``tables.Model``: holds the shared lock from there on."""
    return sa.func.pg_advisory_xact_lock_shared(_lock_key(tables.Model.id))


def place(
    session: orm.Session,
    model: tables.Model,
    kind: specs.ForgetKind,
    pinned: Mapping[str, Any],
    part: ledger.Part,
    *,
    shared: bool,
) -> Placement:
    """Put samples and concepts of one kind into the model's open batch, or into one of their own.

    What another demand named first stays where it is: the request then follows that batch,
    or has it erased already. Needs the lock of :func:`joining`; membership is the caller's.
    """
    batch_id, is_new = _open_batch(session, model, kind, pinned, shared=shared)
    placed = {"model": model.id, "batch": batch_id, "ids": sorted(part.sample_ids)}
    fresh = set(session.scalars(_CLAIM_SAMPLES, placed))
    fresh_concepts = concepts.claim(session, model.id, batch_id, part.concepts)
    is_joined = bool(fresh or fresh_concepts)
    if not is_joined and is_new:
        session.execute(sa.delete(tables.Batch).where(tables.Batch.id == batch_id))
    rest = [sample_id for sample_id in part.sample_ids if sample_id not in fresh]
    earlier = session.execute(_EARLIER, {"model": model.id, "ids": rest}).all() if rest else []
    named = {phrases.normal(one.concept) for one in part.concepts} - fresh_concepts
    of_concepts = concepts.placed(session, model.id, sorted(named)) if named else []
    placed_before = [*earlier, *of_concepts]
    return Placement(
        batch_id=batch_id if is_joined else None,
        followed=frozenset(row.batch_id for row in placed_before if row.version is None),
        matched=len(fresh),
        pending=sum(row.version is None for row in earlier),
        already_erased=sum(row.version is not None for row in earlier),
        erased_in=tuple(row.version for row in placed_before if row.version is not None),
    )


def seal(session: orm.Session, batch: tables.Batch) -> tables.Job:
    """Fix the members and queue the job, due when its most urgent member is."""
    due_at = session.scalar(
        sa.select(sa.func.min(tables.ForgetRequest.due_at))
        .join(tables.BatchMember, tables.BatchMember.request_id == tables.ForgetRequest.id)
        .where(tables.BatchMember.batch_id == batch.id)
    )
    batch.state = "sealed"
    batch.sealed_at = sa.func.clock_timestamp()
    job = jobs.enqueue(
        session, jobs.UNLEARNING, line=f"model:{batch.model_id}", subject_id=batch.id, due_at=due_at
    )
    for request in members(session, batch.id):
        if request.stage in {"received", "queued"}:
            request.stage = "sealed"
        telling.event(session, request.id, "sealed", batch_id=str(batch.id), job_id=str(job.id))
    return job


def seal_due(session: orm.Session) -> int:
    """Seal the open batches whose window is over; returns how many."""
    now = session.scalar(sa.select(sa.func.clock_timestamp())) or datetime.datetime.now(
        datetime.UTC
    )
    waiting = session.scalars(
        sa.select(tables.Model)
        .where(sa.exists().where(tables.Batch.model_id == tables.Model.id, _IS_OPEN))
        .order_by(tables.Model.id)  # two sweeps that take several locks cannot meet head-on
    ).all()
    sealed = 0
    for model in waiting:
        window = datetime.timedelta(seconds=models.policy_of(model).window_seconds())
        sealed += len(_seal_open(session, model, tables.Batch.opened_at <= now - window))
    return sealed


def flush(session: orm.Session, actor: str, model: tables.Model) -> list[tables.Batch]:
    """Seal every open batch of a model now."""
    sealed = _seal_open(session, model, sa.true())
    for batch in sealed:
        telling.audit(session, actor, "batch.flush", batch.id)
    return sealed


def require_open(session: orm.Session, request: tables.ForgetRequest) -> None:
    """Raise :class:`errors.Conflict` (``batch-sealed``) unless all its batches are open."""
    sealed = [batch for batch in _joined(session, request) if batch.state != "open"]
    if sealed:
        detail = f"batch {sealed[0].id} of this request is sealed; it can no longer be withdrawn"
        raise errors.Conflict("batch-sealed", detail)


def leave(session: orm.Session, request: tables.ForgetRequest) -> None:
    """Take a request out of its batches; what no other member names is not erased."""
    joined = _joined(session, request)
    session.execute(
        sa.delete(tables.BatchMember).where(tables.BatchMember.request_id == request.id)
    )
    for batch in joined:
        _drop_orphans(session, batch)


def by_id(session: orm.Session, batch_id: uuid.UUID) -> tables.Batch:
    """The batch; raises :class:`errors.NotFound`."""
    batch = session.get(tables.Batch, batch_id)
    if batch is None:
        raise errors.NotFound("batch-not-found", f"no batch {batch_id}")
    return batch


def members(session: orm.Session, batch_id: uuid.UUID) -> Sequence[tables.ForgetRequest]:
    """The requests of a batch, most urgent first."""
    return session.scalars(
        sa.select(tables.ForgetRequest)
        .join(tables.BatchMember, tables.BatchMember.request_id == tables.ForgetRequest.id)
        .where(tables.BatchMember.batch_id == batch_id)
        .order_by(tables.ForgetRequest.due_at, tables.ForgetRequest.id)
    ).all()


def sample_ids(session: orm.Session, batch_id: uuid.UUID) -> list[str]:
    """What the batch is to erase and is not erased yet, sorted."""
    return list(
        session.scalars(
            sa.select(tables.Erasure.sample_id)
            .where(tables.Erasure.batch_id == batch_id, tables.Erasure.version.is_(None))
            .order_by(tables.Erasure.sample_id)
        )
    )


def concept_targets(session: orm.Session, batch_id: uuid.UUID) -> list[specs.ConceptTarget]:
    """The concepts that the batch is to erase and that are not erased yet, by name."""
    erasure = tables.ConceptErasure
    return concepts.targets(
        session, sa.and_(erasure.batch_id == batch_id, erasure.version.is_(None))
    )


def newest_job(session: orm.Session, batch_id: uuid.UUID) -> tables.Job | None:
    """The job that serves, or last served, a batch."""
    return session.scalar(
        sa.select(tables.Job)
        .where(tables.Job.subject_id == batch_id)
        .order_by(tables.Job.id.desc())
        .limit(1)
    )


def _seal_open(
    session: orm.Session, model: tables.Model, condition: sa.ColumnElement[bool]
) -> list[tables.Batch]:
    hold(session, model.id)
    found = sa.select(tables.Batch).where(tables.Batch.model_id == model.id, _IS_OPEN, condition)
    batches = list(session.scalars(found))
    for batch in batches:
        seal(session, batch)
    return batches


def _joined(session: orm.Session, request: tables.ForgetRequest) -> Sequence[tables.Batch]:
    return session.scalars(
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id)
    ).all()


def _open_batch(
    session: orm.Session,
    model: tables.Model,
    kind: specs.ForgetKind,
    pinned: Mapping[str, Any],
    *,
    shared: bool,
) -> tuple[uuid.UUID, bool]:
    """The batch to join and whether it was made for this; unless shared it always is."""
    made = {
        "model_id": model.id,
        "kind": kind,
        "profile": f"{kind}:{json.dumps(pinned, sort_keys=True)}",
        "method": dict(pinned),
    }
    if not shared:
        return session.execute(_MAKE_BATCH, {**made, "state": "filling"}).scalar_one(), True
    wanted = {"model": model.id, "profile": made["profile"]}
    if (existing := session.scalar(_OPEN_BATCH, wanted)) is not None:
        return existing, False
    if (opened := session.scalar(_MAKE_BATCH, {**made, "state": "open"})) is not None:
        return opened, True
    return session.execute(_OPEN_BATCH, wanted).scalar_one(), False  # opened in this moment


def _has_members(session: orm.Session, batch: tables.Batch) -> bool:
    return bool(
        session.scalar(
            sa.select(sa.func.count())
            .select_from(tables.BatchMember)
            .where(tables.BatchMember.batch_id == batch.id)
        )
    )


def _drop_orphans(session: orm.Session, batch: tables.Batch) -> None:
    """What of an open batch no member names any more is not to be erased."""
    dropped = session.scalars(
        sa.text(
            "DELETE FROM erasure WHERE batch_id = :batch AND version IS NULL AND NOT EXISTS ("
            "SELECT 1 FROM batch_member m JOIN request_sample s ON s.request_id = m.request_id "
            "WHERE m.batch_id = :batch AND s.sample_id = erasure.sample_id) RETURNING sample_id"
        ),
        {"batch": batch.id},
    ).all()
    session.execute(ledger.count_erasures(sa.literal(batch.model_id), sa.literal(-len(dropped))))
    concepts.drop_orphans(session, batch.id)
    if not _has_members(session, batch):
        batch.state = "withdrawn"
