"""A request as a client sees it: with the batch and job that serve it, and when it may be done."""

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import errors, jobs, models, settings, tables, versions

# Of several batches a client sees the one that is at work, then one that needs a person.
_TOLD_FIRST = {"sealed": 0, "open": 1, "filling": 1, "blocked": 2, "verified": 3, "completed": 4}


@dataclass(frozen=True)
class View:
    """A request with the batch and the job that serve it now."""

    request: tables.ForgetRequest
    model: str
    batch_id: uuid.UUID | None
    job: tables.Job | None
    expected_completion_at: datetime.datetime | None


def view(session: orm.Session, request: tables.ForgetRequest) -> View:
    """A request as a client sees it."""
    batch = (
        sa.select(tables.Batch.id)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id)
        .order_by(sa.case(_TOLD_FIRST, value=tables.Batch.state, else_=9), tables.Batch.id)
        .limit(1)
        .subquery("told_batch")
    )
    newest = orm.aliased(
        tables.Job,
        sa.select(tables.Job)
        .where(tables.Job.subject_id == batch.c.id)
        .order_by(tables.Job.id.desc())
        .limit(1)
        .lateral("newest_job"),
    )
    # One statement: every POST, poll and event stream comes through here.
    model, batch_id, job = session.execute(
        sa.select(tables.Model.name, batch.c.id, newest)
        .select_from(tables.Model)
        .outerjoin(batch, sa.true())
        .outerjoin(newest, sa.true())
        .where(tables.Model.id == request.model_id)
    ).one()
    return View(
        request=request,
        model=model,
        batch_id=batch_id,
        job=job,
        expected_completion_at=_expected(session, request, job),
    )


def listing(
    session: orm.Session,
    *,
    status: str | None,
    model: str | None,
    due_before: datetime.datetime | None,
    after: uuid.UUID | None,
    limit: int,
) -> Sequence[tables.ForgetRequest]:
    """Requests behind ``after``, oldest first; one more than ``limit`` tells of a next page."""
    statement = sa.select(tables.ForgetRequest).order_by(tables.ForgetRequest.id).limit(limit + 1)
    if status is not None:
        statement = statement.where(tables.ForgetRequest.status == status)
    if model is not None:
        statement = statement.where(
            tables.ForgetRequest.model_id == models.by_name(session, model).id
        )
    if due_before is not None:
        statement = statement.where(tables.ForgetRequest.due_at < due_before)
    if after is not None:
        statement = statement.where(tables.ForgetRequest.id > after)
    return session.scalars(statement).all()


def report(session: orm.Session, request: tables.ForgetRequest) -> dict[str, Any]:
    """The newest verification report made for a request, passed or not.

    Raises :class:`errors.Conflict` (``request-unfinished``) while there is none.
    """
    version = session.scalar(
        sa.select(tables.Version)
        .join(tables.Job, tables.Job.id == tables.Version.job_id)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Job.subject_id)
        .where(tables.BatchMember.request_id == request.id, tables.Version.report.is_not(None))
        .order_by(tables.Version.number.desc())
        .limit(1)
    )
    if version is None and request.result_version is not None:
        model = session.get_one(tables.Model, request.model_id)
        version = versions.by_number(session, model, request.result_version)
    if version is None or version.report is None:
        detail = f"this request is {request.status} ({request.stage}); there is no report yet"
        raise errors.Conflict("request-unfinished", detail)
    return {"version": version.number, **version.report}


def _expected(
    session: orm.Session, request: tables.ForgetRequest, job: tables.Job | None
) -> datetime.datetime | None:
    if request.status not in {"pending", "in_progress"}:
        return request.completed_at
    if job is not None and job.eta_seconds is not None and job.lease_expires_at is not None:
        lease = settings.load().lease_seconds
        return job.lease_expires_at + datetime.timedelta(seconds=job.eta_seconds - lease)
    ahead = 1 + (0 if job is None else jobs_ahead(session, request.model_id, job))
    typical = typical_job_seconds(session, request.model_id)
    return request.received_at + datetime.timedelta(seconds=ahead * typical)


def jobs_ahead(session: orm.Session, model_id: uuid.UUID, job: tables.Job | None) -> int:
    """How many of the model's jobs wait or run before ``job`` (all of them for ``None``)."""
    statement = (
        sa.select(sa.func.count())
        .select_from(tables.Job)
        .where(tables.Job.line == f"model:{model_id}", tables.Job.status.in_(("queued", "running")))
    )
    if job is not None:
        statement = statement.where(tables.Job.id < job.id)
    return session.scalar(statement) or 0


def typical_job_seconds(session: orm.Session, model_id: uuid.UUID) -> float:
    """95th percentile of the model's finished jobs; 5 minutes before the first."""
    run_time = sa.func.extract("epoch", tables.Job.finished_at - tables.Job.started_at)
    typical = session.scalar(
        sa.select(sa.func.percentile_cont(0.95).within_group(run_time)).where(
            tables.Job.line == f"model:{model_id}",
            tables.Job.kind == jobs.UNLEARNING,
            tables.Job.status == "succeeded",
        )
    )
    return 300.0 if typical is None else float(typical)
