"""When an open batch becomes a job: whichever of the rules holds first.

- its window is over (policy ``batch_window_seconds``);
- its most urgent member must be begun now: earliest due date, less the time that all jobs ahead
  and its own take with every retry, less a margin (policy ``deadline_margin_seconds``);
- it holds as many requests, or as large a share of the data, as the policy lets one job have;
- an ``expedited`` demand joined it, or somebody flushed it.
"""

import datetime
import uuid
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import (
    batches,
    database,
    jobs,
    members,
    models,
    pace,
    settings,
    tables,
    telling,
)


def seal(session: orm.Session, batch: tables.Batch, actor: str, *rules: str) -> tables.Job:
    """Fix the members and queue the job, due when its most urgent member is; ``rules`` say why."""
    batch.state = "sealed"
    batch.sealed_at = sa.func.clock_timestamp()
    job = jobs.enqueue(
        session,
        jobs.UNLEARNING,
        line=pace.line_of(batch.model_id),
        subject_id=batch.id,
        due_at=session.scalar(batches.due_at(batch.id)),
    )
    stage = tables.ForgetRequest.stage
    values = {"stage": sa.case((stage.in_(("received", "queued")), "sealed"), else_=stage)}
    names = {"batch_id": str(batch.id), "job_id": str(job.id)}
    # Nobody is woken: a submission may seal, see telling.changed.
    members.change(session, members.of(batch.id), values, "sealed", wakes=False, **names)
    telling.audit(session, actor, "batch.seal", batch.id, rules=list(rules))
    return job


def restamp(session: orm.Session, batch_ids: Iterable[uuid.UUID]) -> None:
    """Jobs of batches are due when their most urgent member is now.

    Not one whose row a run holds in this moment: it may be ending, which takes the model's lock,
    held here.
    """
    session.flush()
    job = tables.Job
    waiting = sa.select(job).where(
        job.subject_id.in_(list(batch_ids)), job.status.in_(jobs.UNFINISHED)
    )
    for one in session.scalars(waiting.with_for_update(skip_locked=True)):
        due_at = session.scalar(batches.due_at(one.subject_id))
        one.due_at = one.due_at if due_at is None else due_at


def seal_due(session: orm.Session) -> int:
    """Seal the open batches for which a rule holds; returns how many."""
    waiting = session.scalars(
        sa.select(tables.Model)
        .where(sa.exists().where(tables.Batch.model_id == tables.Model.id, batches.IS_OPEN))
        .order_by(tables.Model.id)  # two sweeps that take several locks cannot meet head-on
    ).all()
    return sum(_seal_due_of(session, model) for model in waiting)


def flush(session: orm.Session, actor: str, model: tables.Model) -> list[tables.Batch]:
    """Seal every open batch of a model now."""
    batches.hold(session, model.id)
    opened = list(session.scalars(batches.open_of(model.id)))
    for batch in opened:
        seal(session, batch, actor, "flush")
    return opened


def latest_start(
    due_at: datetime.datetime, jobs_before: int, job_seconds: float, margin_seconds: float
) -> datetime.datetime:
    """When work must begin so that every retry still ends in time, after those that wait."""
    retried = settings.load().max_attempts * (jobs_before + 1) * job_seconds
    return due_at - datetime.timedelta(seconds=retried + margin_seconds)


def _seal_due_of(session: orm.Session, model: tables.Model) -> int:
    batches.hold(session, model.id)
    policy = models.policy_of(model)
    now = database.now(session)
    ahead = pace.jobs_ahead(session, model.id)
    each = pace.typical_job_seconds(session, model.id)
    size = max(1, model.training_size)
    window = datetime.timedelta(seconds=policy.window_seconds())
    sealed = 0
    for batch, due_at, requests, samples in session.execute(_filled(model)).all():
        must_begin = latest_start(due_at, ahead + sealed, each, policy.deadline_margin_seconds)
        rules = {
            "window": batch.opened_at + window <= now,
            "latest_start": must_begin <= now,
            "requests": requests >= policy.max_batch_requests,
            "share": samples >= policy.max_batch_share * size,
        }
        if any(rules.values()):
            seal(session, batch, "sweeper", *(rule for rule, holds in rules.items() if holds))
            sealed += 1
    return sealed


def _filled(model: tables.Model) -> sa.Select[Any]:
    """Open batches of a model with the earliest due date, requests and samples in them."""
    batch = tables.Batch
    requests = (
        sa.select(sa.func.count())
        .select_from(tables.BatchMember)
        .where(tables.BatchMember.batch_id == batch.id)
        .scalar_subquery()
    )
    samples = (
        sa.select(sa.func.count())
        .select_from(tables.Erasure)
        .where(tables.Erasure.batch_id == batch.id)
        .scalar_subquery()
    )
    due_at = batches.due_at(batch.id).scalar_subquery()
    return (
        sa.select(batch, due_at, requests, samples)
        .where(batch.model_id == model.id, batches.IS_OPEN, due_at.is_not(None))
        .order_by(due_at)
    )
