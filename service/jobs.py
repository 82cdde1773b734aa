"""Work under a lease, with PostgreSQL as the queue.

A job is claimed by one atomic statement that draws a new fence; the owner renews its lease, and
everything it writes is conditional on that fence. ``line`` (a model, a dataset, a version) has at
most one running job, by a partial unique index. See ``docs/architecture.md``, "Leases and fences".
"""

import datetime
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc, orm

from service import database, errors, queue, settings, tables, telling

UNLEARNING = "unlearning"
INGESTION = "ingestion"
VALIDATION = "validation"
AUDIT = "audit"
DISPOSAL = "disposal"
UNFINISHED = ("queued", "running")
BATCH_HALVINGS = "batch_halvings"
"""Among a job's inputs: how often its batches were halved, because memory ran out."""

_QUEUE = {
    UNLEARNING: queue.UNLEARNING,
    AUDIT: queue.UNLEARNING,
    INGESTION: queue.HOUSEKEEPING,
    VALIDATION: queue.HOUSEKEEPING,
    DISPOSAL: queue.HOUSEKEEPING,
}
# A duty to forget is due within months: an audit queued today stays behind one that comes later.
_PATIENCE = {AUDIT: datetime.timedelta(days=36_525)}


@dataclass(frozen=True)
class Claim:
    """The right to work on a job until the lease expires; ``fence`` orders all claims."""

    job_id: uuid.UUID
    kind: str
    subject_id: uuid.UUID
    fence: int
    attempt: int
    max_attempts: int
    inputs: dict[str, Any] | None


def enqueue(
    session: orm.Session,
    kind: str,
    *,
    line: str,
    subject_id: uuid.UUID,
    due_at: datetime.datetime | None = None,
    computes: bool = False,
) -> tables.Job:
    """Add a job and its hint to the caller's transaction; without ``due_at`` its kind decides.

    One that ``computes`` more than its kind does otherwise goes where the GPUs are.
    """
    patience = _PATIENCE.get(kind, datetime.timedelta())
    job = tables.Job(
        kind=kind,
        queue=queue.UNLEARNING if computes else _QUEUE[kind],
        line=line,
        subject_id=subject_id,
        due_at=due_at if due_at is not None else sa.func.clock_timestamp() + patience,
        max_attempts=settings.load().max_attempts,
    )
    session.add(job)
    session.flush()
    hint(session, job)
    telling.event(session, job.id, "queued", kind=kind)
    return job


def hint(session: orm.Session, job: tables.Job) -> None:
    """Leave a hint for the workers in the outbox."""
    telling.outbox(session, queue.RUN_JOB, job_id=str(job.id), queue=job.queue)


def claim(queue_name: str, owner: str) -> Claim | None:
    """Take the claimable job with the earliest deadline, or ``None`` when there is none.

    A hint names a job only to wake somebody: who wakes takes what is most urgent. Losers of a race
    for the same line get ``None``.
    """
    try:
        with database.transaction() as session:
            row = session.execute(_claim_statement(queue_name, owner)).one_or_none()
            if row is None:
                return None
            *told, _ = row
            claimed = Claim(*told)
            telling.event(session, claimed.job_id, "claimed", attempt=claimed.attempt)
            telling.changed(session, claimed.job_id)
            return claimed
    except exc.IntegrityError:
        return None


def outranked(claimed: Claim) -> bool:
    """Whether a job with an earlier deadline could be claimed now by who holds this one."""
    own = orm.aliased(tables.Job)
    waiting = sa.select(tables.Job.id).where(
        *_claimable(own.queue), tables.Job.id != own.id, tables.Job.due_at < own.due_at
    )
    with database.transaction() as session:
        found = sa.select(waiting.exists()).where(own.id == claimed.job_id)
        return bool(session.scalar(found))


def _claimable(
    queue_name: str | sa.SQLColumnExpression[str],
) -> tuple[sa.ColumnElement[bool], ...]:
    job = tables.Job
    other = orm.aliased(tables.Job)
    now = sa.func.clock_timestamp()
    # NOT IN: PostgreSQL hashes the few that run, and looks the many that wait up in it.
    line_is_free = job.line.not_in(sa.select(other.line).where(other.status == "running"))
    # Of two queues that work on one line neither may keep the other from it for ever. Not so for a
    # job whose owner went silent: it still has the line, and nobody else can take it over.
    more_urgent_elsewhere = (
        sa.select(other.id)
        .where(
            other.line == job.line,
            other.queue == sa.case(queue.OTHER, value=job.queue),
            other.status == "queued",
            other.not_before <= now,
            other.due_at < job.due_at,
        )
        .exists()
    )
    return (
        job.queue == queue_name,
        sa.or_(
            sa.and_(
                job.status == "queued", job.not_before <= now, line_is_free, ~more_urgent_elsewhere
            ),
            sa.and_(job.status == "running", job.lease_expires_at < now),
        ),
    )


def _claim_statement(queue_name: str, owner: str) -> sa.Update:
    job = tables.Job
    now = sa.func.clock_timestamp()
    candidate = (
        sa.select(job.id)
        .where(*_claimable(queue_name))
        .order_by(job.due_at, job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        sa.update(job)
        .where(job.id == candidate)
        .values(
            status="running",
            owner=owner,
            fence=tables.FENCE.next_value(),
            lease_expires_at=_lease_end(),
            attempts=job.attempts + 1,
            started_at=sa.func.coalesce(job.started_at, now),
        )
        .returning(
            job.id,
            job.kind,
            job.subject_id,
            job.fence,
            job.attempts,
            job.max_attempts,
            job.inputs,
            database.end_if_silent(),
        )
    )


def _lease_end() -> sa.ColumnElement[datetime.datetime]:
    lease = datetime.timedelta(seconds=settings.load().lease_seconds)
    return sa.func.clock_timestamp() + lease


# --- while it runs --------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """Where a run stands; written with every heartbeat."""

    stage: str
    step: int = 0
    total_steps: int = 0
    eta_seconds: float | None = None


def heartbeat(claimed: Claim, progress: Progress) -> bool:
    """Renew the lease and tell the progress; returns whether the job shall be cancelled.

    Raises :class:`errors.LeaseLost` when the fence is not ours any more.
    """
    with database.transaction() as session:
        cancel = session.execute(
            sa.update(tables.Job)
            .where(*_mine(claimed))
            .values(
                lease_expires_at=_lease_end(),
                stage=progress.stage,
                step=progress.step,
                total_steps=progress.total_steps,
                eta_seconds=progress.eta_seconds,
            )
            .returning(tables.Job.cancel_requested, database.end_if_silent())
        ).scalar_one_or_none()
        if cancel is None:
            raise errors.LeaseLost
        telling.changed(session, claimed.job_id)
        return bool(cancel)


def hold(session: orm.Session, claimed: Claim, *, patience: float | None = None) -> tables.Job:
    """The job row, locked, if the claim is still good; else :class:`errors.LeaseLost`.

    Everything that a run commits begins with this, so that a run that was overtaken writes nothing.
    Between its statements no lease may go by, or ``patience`` in seconds, or it ends there and
    nothing of it stays.
    """
    held = sa.select(tables.Job, database.end_if_silent(patience))
    row = session.execute(held.where(*_mine(claimed)).with_for_update()).one_or_none()
    if row is None:
        raise errors.LeaseLost
    job: tables.Job = row[0]
    return job


def check(session: orm.Session, claimed: Claim) -> None:
    """The same without a lock: for who holds another that overtaken runs wait for."""
    good = sa.select(database.end_if_silent()).where(*_mine(claimed))
    if session.scalar(good) is None:
        raise errors.LeaseLost


def _mine(claimed: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    job = tables.Job
    return (job.id == claimed.job_id, job.fence == claimed.fence, job.status == "running")


def pin_inputs(claimed: Claim, inputs: dict[str, Any]) -> dict[str, Any]:
    """Fix a job's inputs at its first claim; later attempts get the same ones."""
    with database.transaction() as session:
        job = hold(session, claimed)
        if job.inputs is None:
            job.inputs = inputs
        return job.inputs


def commit_step(claimed: Claim, name: str, artifact_digest: str, run_seconds: float) -> None:
    """Record a finished stage; the artifact is in the store already."""
    with database.transaction() as session:
        hold(session, claimed)
        session.merge(
            tables.JobStep(
                job_id=claimed.job_id,
                name=name,
                fence=claimed.fence,
                artifact_digest=artifact_digest,
                run_seconds=run_seconds,
            )
        )


def steps(job_id: uuid.UUID) -> dict[str, tables.JobStep]:
    """The stages that earlier attempts finished."""
    with database.transaction() as session:
        rows = session.scalars(sa.select(tables.JobStep).where(tables.JobStep.job_id == job_id))
        return {row.name: row for row in rows}


def artifacts(session: orm.Session, job: tables.Job) -> list[str]:
    """The digests of what an unlearning job made and was planned by."""
    step = tables.JobStep
    found = session.scalars(sa.select(step.artifact_digest).where(step.job_id == job.id))
    return [*found, *([job.inputs["plan"]] if job.inputs else [])]


# --- how it ends ----------------------------------------------------------------------------


def finish(
    session: orm.Session, job: tables.Job, status: str, error: dict[str, Any] | None
) -> None:
    """Close a held job: ``succeeded``, ``failed`` or ``cancelled``."""
    job.status = status
    job.stage = "done" if status == "succeeded" else job.stage
    job.error = error
    job.finished_at = sa.func.clock_timestamp()
    job.lease_expires_at = None
    job.eta_seconds = None
    telling.event(session, job.id, status, **(error or {}))
    telling.changed(session, job.id)


def requeue(session: orm.Session, job: tables.Job, *, delay_seconds: float = 0.0) -> None:
    """Give a held job back to the queue."""
    job.status = "queued"
    job.lease_expires_at = None
    job.owner = None
    job.not_before = sa.func.clock_timestamp() + datetime.timedelta(seconds=delay_seconds)
    hint(session, job)
    telling.event(session, job.id, "requeued")
    telling.changed(session, job.id)


def request_cancel(session: orm.Session, job_id: uuid.UUID, actor: str) -> tables.Job:
    """Ask a job to stop; a queued one stops at once, a running one at its next step.

    Raises :class:`errors.NotFound` and, for a finished job, :class:`errors.Conflict`.
    """
    job = session.scalar(sa.select(tables.Job).where(tables.Job.id == job_id).with_for_update())
    if job is None:
        raise errors.NotFound("job-not-found", f"no job {job_id}")
    if job.status not in UNFINISHED:
        raise errors.Conflict("job-finished", f"job {job_id} is {job.status} already")
    job.cancel_requested = True
    telling.audit(session, actor, "job.cancel", job_id)
    telling.changed(session, job_id)
    return job


def unclaimed(
    session: orm.Session, older_than_seconds: float, room: Mapping[str, int]
) -> Sequence[tables.Job]:
    """Jobs that wait longer than that, or whose owner went silent: they need a new hint.

    Of each queue the most urgent only, as many as ``room`` says. A hint wakes a worker, which takes
    what is most urgent: more of them would pile up in the broker while all workers are busy.
    """
    job = tables.Job
    now = sa.func.clock_timestamp()
    age = datetime.timedelta(seconds=older_than_seconds)
    silent = sa.or_(
        sa.and_(job.status == "queued", job.not_before < now - age),
        sa.and_(job.status == "running", job.lease_expires_at < now),
    )
    found: list[tables.Job] = []
    for name, most in room.items():
        waiting = sa.select(job).where(job.queue == name, silent).order_by(job.due_at, job.id)
        found += session.scalars(waiting.limit(most))
    return found


def by_id(session: orm.Session, job_id: uuid.UUID) -> tables.Job:
    """The job; raises :class:`errors.NotFound`."""
    job = session.get(tables.Job, job_id)
    if job is None:
        raise errors.NotFound("job-not-found", f"no job {job_id}")
    return job
