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


FIRST_GUESS_SECONDS = 300.0


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
    named = {"request": request.id, "model": request.model_id, "line": _line(request.model_id)}
    # One statement: every POST, poll and event stream comes through here.
    model, batch_id, job, ahead, typical = session.execute(_VIEW, named).one()
    return View(
        request=request,
        model=model,
        batch_id=batch_id,
        job=job,
        expected_completion_at=_expected(request, job, ahead, typical),
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


def report(
    session: orm.Session, request: tables.ForgetRequest
) -> tuple[tables.Version, dict[str, Any]]:
    """The newest verification report made for a request, passed or not, and whose it is.

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
    return version, version.report


def jobs_ahead(session: orm.Session, model_id: uuid.UUID) -> int:
    """How many of the model's jobs wait or run."""
    return session.scalar(_waiting(sa.literal(_line(model_id)))) or 0


def typical_job_seconds(session: orm.Session, model_id: uuid.UUID) -> float:
    """95th percentile of the model's finished jobs; 5 minutes before the first."""
    typical = session.scalar(_run_seconds(sa.literal(_line(model_id))))
    return FIRST_GUESS_SECONDS if typical is None else float(typical)


def _expected(
    request: tables.ForgetRequest, job: tables.Job | None, ahead: int, typical: float | None
) -> datetime.datetime | None:
    if request.status not in {"pending", "in_progress"}:
        return request.completed_at
    if job is not None and job.eta_seconds is not None and job.lease_expires_at is not None:
        lease = settings.load().lease_seconds
        return job.lease_expires_at + datetime.timedelta(seconds=job.eta_seconds - lease)
    each = FIRST_GUESS_SECONDS if typical is None else float(typical)
    return request.received_at + datetime.timedelta(seconds=(1 + ahead) * each)


def _line(model_id: uuid.UUID) -> str:
    return f"model:{model_id}"


def _waiting(line: sa.ColumnElement[str]) -> sa.Select[int]:
    return (
        sa.select(sa.func.count())
        .select_from(tables.Job)
        .where(tables.Job.line == line, tables.Job.status.in_(("queued", "running")))
    )


def _run_seconds(line: sa.ColumnElement[str]) -> sa.Select[float | None]:
    run_time = sa.func.extract("epoch", tables.Job.finished_at - tables.Job.started_at)
    return sa.select(sa.func.percentile_cont(0.95).within_group(run_time)).where(
        tables.Job.line == line,
        tables.Job.kind == jobs.UNLEARNING,
        tables.Job.status == "succeeded",
    )


def _view() -> sa.Select[Any]:
    line = sa.bindparam("line", type_=sa.Text)
    batch = (
        sa.select(tables.Batch.id)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == sa.bindparam("request"))
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
    ahead = _waiting(line).where(tables.Job.id < newest.id).scalar_subquery()
    return (
        sa.select(
            tables.Model.name, batch.c.id, newest, ahead, _run_seconds(line).scalar_subquery()
        )
        .select_from(tables.Model)
        .outerjoin(batch, sa.true())
        .outerjoin(newest, sa.true())
        .where(tables.Model.id == sa.bindparam("model"))
    )


_VIEW = _view()
