"""A request as a client sees it: with the batch and job that serve it, and when it may be done."""

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import batches, deployments, errors, models, pace, sealing, settings, tables, versions

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
    waits_for_deployments: Sequence[str] = ()
    named: int | None = None  # samples, of one that is kept out of the batches


def view(session: orm.Session, request: tables.ForgetRequest) -> View:
    """A request as a client sees it."""
    line = pace.line_of(request.model_id)
    named = {"request": request.id, "model": request.model_id, "line": line}
    # One statement: every POST, poll and event stream comes through here.
    told = session.execute(_VIEW, named).one()
    model, _, batch, job = told[:4]
    is_propagating = request.stage == deployments.PROPAGATING
    return View(
        request=request,
        model=model,
        batch_id=None if batch is None else batch.id,
        job=job,
        expected_completion_at=_expected(request, batch, job, told),
        waits_for_deployments=deployments.behind(session, request) if is_propagating else (),
        named=_named(session, request) if _is_kept_out(request) else None,
    )


def listing(
    session: orm.Session,
    *,
    status: str | None,
    model: str | None,
    due_before: datetime.datetime | None,
    after: uuid.UUID | None,
    limit: int,
    newest_first: bool = False,
) -> Sequence[tables.ForgetRequest]:
    """Requests behind ``after``, by when they came; one beyond ``limit`` tells of a next page."""
    came = tables.ForgetRequest.id
    order = came.desc() if newest_first else came
    statement = sa.select(tables.ForgetRequest).order_by(order).limit(limit + 1)
    if status is not None:
        statement = statement.where(tables.ForgetRequest.status == status)
    if model is not None:
        statement = statement.where(
            tables.ForgetRequest.model_id == models.by_name(session, model).id
        )
    if due_before is not None:
        statement = statement.where(tables.ForgetRequest.due_at < due_before)
    if after is not None:
        statement = statement.where(came < after if newest_first else came > after)
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


def _is_kept_out(request: tables.ForgetRequest) -> bool:
    """Whether it waits for a second person, or for a proof: it is in no batch then."""
    return request.paused_at is not None or batches.is_held(request)


def _named(session: orm.Session, request: tables.ForgetRequest) -> int:
    sample = tables.RequestSample
    named = sa.select(sa.func.count()).where(sample.request_id == request.id)
    return session.scalar(named) or 0


def _expected(
    request: tables.ForgetRequest,
    batch: tables.Batch | None,
    job: tables.Job | None,
    told: sa.Row[Any],
) -> datetime.datetime | None:
    """When it may be done: what the job says, else by the pace of the model's jobs.

    ``None`` while nothing moves it on by itself: its clock stands still, a person is asked, or
    deployments have to pull.
    """
    if request.status not in {"pending", "in_progress"}:
        return request.completed_at
    is_propagating = request.stage == deployments.PROPAGATING
    if batch is None or request.paused_at is not None or is_propagating:
        return None
    if job is not None and job.eta_seconds is not None and job.lease_expires_at is not None:
        lease = settings.load().lease_seconds
        return job.lease_expires_at + datetime.timedelta(seconds=job.eta_seconds - lease)
    each = pace.or_first_guess(told.typical)
    begins_at = batch.sealed_at
    if begins_at is None:
        policy = models.ModelPolicy.model_validate(told.policy)
        begins_at = min(
            batch.opened_at + datetime.timedelta(seconds=policy.window_seconds()),
            sealing.latest_start(request.due_at, told.ahead, each, policy.deadline_margin_seconds),
        )
    return pace.expected_end(begins_at, 1 + told.ahead, each, told.now)


def _view() -> sa.Select[Any]:
    line = sa.bindparam("line", type_=sa.Text)
    batch = orm.aliased(
        tables.Batch,
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == sa.bindparam("request"))
        .order_by(sa.case(_TOLD_FIRST, value=tables.Batch.state, else_=9), tables.Batch.id)
        .limit(1)
        .subquery("told_batch"),
    )
    newest = orm.aliased(
        tables.Job,
        sa.select(tables.Job)
        .where(tables.Job.subject_id == batch.id)
        .order_by(tables.Job.id.desc())
        .limit(1)
        .lateral("newest_job"),
    )
    earlier = sa.or_(newest.id.is_(None), tables.Job.id < newest.id)
    return (
        sa.select(
            tables.Model.name.label("model"),
            tables.Model.policy.label("policy"),
            batch,
            newest,
            pace.waiting(line).where(earlier).scalar_subquery().label("ahead"),
            pace.run_seconds(line).scalar_subquery().label("typical"),
            sa.func.clock_timestamp().label("now"),
        )
        .select_from(tables.Model)
        .outerjoin(batch, sa.true())
        .outerjoin(newest, sa.true())
        .where(tables.Model.id == sa.bindparam("model"))
    )


_VIEW = _view()
