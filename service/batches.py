"""Requests that one job serves. A batch is open until it is sealed; then its members are fixed."""

import datetime
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import exc, orm
from sqlalchemy.dialects import postgresql

from salun_core import specs
from service import errors, jobs, models, tables, telling


@dataclass(frozen=True)
class Placement:
    """Where the samples of one request went: new ones, ones under way, ones gone already."""

    matched: int
    pending: int
    erased_in: tuple[int, ...]  # the versions that lack the samples erased before


def join(
    session: orm.Session,
    model: tables.Model,
    request: tables.ForgetRequest,
    kind: specs.ForgetKind,
    method: specs.UnlearningSpec,
    sample_ids: Sequence[str],
) -> Placement:
    """Put samples of one kind into the model's open batch; seal it at once if its window is 0.

    A sample that another demand named first stays where it is: the request then follows that batch,
    or has it erased already.
    """
    batch = _open_batch(session, model, kind, method)
    fresh = _add(session, model, request, batch, sample_ids)
    placement = _place(session, model, request, sample_ids, fresh)
    if not fresh and not _has_members(session, batch):
        session.execute(sa.delete(tables.Batch).where(tables.Batch.id == batch.id))
        return placement
    if models.policy_of(model).window_seconds() == 0:
        seal(session, model, batch)
    return placement


def seal(session: orm.Session, model: tables.Model, batch: tables.Batch) -> tables.Job:
    """Fix the members and queue the job, due when its most urgent member is."""
    due_at = session.scalar(
        sa.select(sa.func.min(tables.ForgetRequest.due_at))
        .join(tables.BatchMember, tables.BatchMember.request_id == tables.ForgetRequest.id)
        .where(tables.BatchMember.batch_id == batch.id)
    )
    batch.state = "sealed"
    batch.sealed_at = sa.func.clock_timestamp()
    job = jobs.enqueue(
        session, jobs.UNLEARNING, line=f"model:{model.id}", subject_id=batch.id, due_at=due_at
    )
    for request in members(session, batch.id):
        if request.stage in {"received", "queued"}:
            request.stage = "sealed"
        telling.event(session, request.id, "sealed", batch_id=str(batch.id), job_id=str(job.id))
    return job


def seal_due(session: orm.Session) -> int:
    """Seal the open batches whose window is over; returns how many."""
    rows = session.execute(
        sa.select(tables.Batch, tables.Model)
        .join(tables.Model, tables.Model.id == tables.Batch.model_id)
        .where(tables.Batch.state == "open")
        .with_for_update(of=tables.Batch, skip_locked=True)
    ).all()
    now = session.scalar(sa.select(sa.func.clock_timestamp())) or datetime.datetime.now(
        datetime.UTC
    )
    due = [
        (batch, model)
        for batch, model in rows
        if (now - batch.opened_at).total_seconds() >= models.policy_of(model).window_seconds()
    ]
    for batch, model in due:
        seal(session, model, batch)
    return len(due)


def flush(session: orm.Session, actor: str, model: tables.Model) -> list[tables.Batch]:
    """Seal every open batch of a model now."""
    open_batches = session.scalars(
        sa.select(tables.Batch)
        .where(tables.Batch.model_id == model.id, tables.Batch.state == "open")
        .with_for_update()
    ).all()
    for batch in open_batches:
        seal(session, model, batch)
        telling.audit(session, actor, "batch.flush", batch.id)
    return list(open_batches)


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


def newest_job(session: orm.Session, batch_id: uuid.UUID) -> tables.Job | None:
    """The job that serves, or last served, a batch."""
    return session.scalar(
        sa.select(tables.Job)
        .where(tables.Job.subject_id == batch_id)
        .order_by(tables.Job.id.desc())
        .limit(1)
    )


def _joined(session: orm.Session, request: tables.ForgetRequest) -> Sequence[tables.Batch]:
    return session.scalars(
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id)
        .with_for_update(of=tables.Batch)
    ).all()


def _open_batch(
    session: orm.Session, model: tables.Model, kind: specs.ForgetKind, method: specs.UnlearningSpec
) -> tables.Batch:
    """The batch to join, locked against sealing; with window 0 a batch of the request's own."""
    profile = f"{kind}:{json.dumps(method.model_dump(mode='json'), sort_keys=True)}"
    shared = models.policy_of(model).window_seconds() > 0
    state = "open" if shared else "filling"
    batch = tables.Batch(
        model_id=model.id,
        kind=kind,
        profile=profile,
        method=method.model_dump(mode="json"),
        state=state,
    )
    joined = (
        sa.select(tables.Batch)
        .where(
            tables.Batch.model_id == model.id,
            tables.Batch.profile == profile,
            tables.Batch.state == "open",
        )
        # Joins take turns. A share lock would let them go side by side, but under a steady stream
        # of joins the batch would then never be free to be sealed.
        .with_for_update(key_share=True)
    )
    if shared and (existing := session.scalar(joined)) is not None:
        return existing
    try:
        with session.begin_nested():
            session.add(batch)
            session.flush()
    except exc.IntegrityError:  # another request opened it in this moment
        return session.scalars(joined).one()
    return batch


def _add(
    session: orm.Session,
    model: tables.Model,
    request: tables.ForgetRequest,
    batch: tables.Batch,
    ids: Sequence[str],
) -> set[str]:
    """The samples that are new to the model; with any of them the request joins the batch."""
    fresh = (
        postgresql.insert(tables.Erasure)
        .from_select(
            ["model_id", "sample_id", "batch_id"],
            sa.select(
                sa.literal(model.id),
                sa.func.unnest(sa.literal(sorted(ids), sa.ARRAY(sa.Text))),
                sa.literal(batch.id),
            ),
        )
        .on_conflict_do_nothing()
        .returning(tables.Erasure.sample_id)
        .cte("fresh")
    )
    member = (
        postgresql.insert(tables.BatchMember)
        .from_select(
            ["batch_id", "request_id"],
            sa.select(sa.literal(batch.id), sa.literal(request.id)).where(
                sa.exists().select_from(fresh)
            ),
        )
        .on_conflict_do_nothing()
        .cte("member")
    )
    return set(session.scalars(sa.select(fresh.c.sample_id).add_cte(member)))


def _place(
    session: orm.Session,
    model: tables.Model,
    request: tables.ForgetRequest,
    ids: Sequence[str],
    fresh: set[str],
) -> Placement:
    rest = [sample_id for sample_id in ids if sample_id not in fresh]
    earlier = (
        session.execute(
            sa.select(tables.Erasure.batch_id, tables.Erasure.version).where(
                tables.Erasure.model_id == model.id,
                tables.Erasure.sample_id == sa.any_(sa.literal(rest, sa.ARRAY(sa.Text))),
            )
        ).all()
        if rest
        else []
    )
    followed = {row.batch_id for row in earlier if row.version is None}
    if followed:
        session.execute(
            postgresql.insert(tables.BatchMember)
            .values([{"batch_id": other, "request_id": request.id} for other in followed])
            .on_conflict_do_nothing()
        )
    return Placement(
        matched=len(fresh),
        pending=sum(row.version is None for row in earlier),
        erased_in=tuple(row.version for row in earlier if row.version is not None),
    )


def _has_members(session: orm.Session, batch: tables.Batch) -> bool:
    return bool(
        session.scalar(
            sa.select(sa.func.count())
            .select_from(tables.BatchMember)
            .where(tables.BatchMember.batch_id == batch.id)
        )
    )


def _drop_orphans(session: orm.Session, batch: tables.Batch) -> None:
    """Samples of an open batch that no member names any more are not to be erased."""
    session.execute(
        sa.text(
            "DELETE FROM erasure WHERE batch_id = :batch AND version IS NULL AND NOT EXISTS ("
            "SELECT 1 FROM batch_member m JOIN request_sample s ON s.request_id = m.request_id "
            "WHERE m.batch_id = :batch AND s.sample_id = erasure.sample_id)"
        ),
        {"batch": batch.id},
    )
    if not _has_members(session, batch):
        batch.state = "withdrawn"
