"""How a job that did not succeed ends, by its kind. The duty to forget never ends with it."""

from typing import Any

from sqlalchemy import exc, orm

from service import (
    audits,
    cancellation,
    database,
    errors,
    fulfilment,
    ingestion,
    jobs,
    publication,
    tables,
    validation,
)
from worker import exhaustion


def retry_or_fail(claimed: jobs.Claim, error: Exception, delay_seconds: float) -> None:
    """Queue the job again while it has attempts left; with smaller batches if memory was short."""
    short = exhaustion.is_told_by(error)
    if claimed.attempt >= claimed.max_attempts:
        code = "out_of_memory" if short else type(error).__name__
        # What the host or the database refuses is no request's fault.
        outside = isinstance(error, OSError | exc.SQLAlchemyError)
        fail(claimed, code, "see the worker's log", divisible=not outside)
        return
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        if short and job.inputs is not None:
            halvings = job.inputs.get(jobs.BATCH_HALVINGS, 0) + 1
            job.inputs = {**job.inputs, jobs.BATCH_HALVINGS: halvings}
        _wait_again(session, claimed, job, delay_seconds)


def give_back(claimed: jobs.Claim) -> None:
    """Queue an interrupted job again; the attempt does not count."""
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        job.attempts -= 1
        _wait_again(session, claimed, job)


def fail(claimed: jobs.Claim, code: str, detail: str, *, divisible: bool = False) -> None:
    """The job cannot succeed; ``divisible``: without some of its requests it might."""
    error = {"code": code, "detail": detail}
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        if job.cancel_requested:  # who asked was told that it stops, and halves would go on
            _close_cancelled(session, claimed, job)
        else:
            _close(session, claimed, job, "failed", "job_failed", error, divisible=divisible)


def cancel(claimed: jobs.Claim) -> None:
    """Somebody stopped the job."""
    with database.transaction() as session:
        _close_cancelled(session, claimed, jobs.hold(session, claimed))


def _wait_again(
    session: orm.Session, claimed: jobs.Claim, job: tables.Job, delay_seconds: float = 0.0
) -> None:
    """Queue a held job again, unless somebody asked to stop it while it stopped by itself."""
    if job.cancel_requested:
        _close_cancelled(session, claimed, job)
        return
    jobs.requeue(session, job, delay_seconds=delay_seconds)
    if claimed.kind == jobs.UNLEARNING:
        fulfilment.wait_again(session, claimed.subject_id)


def _close_cancelled(session: orm.Session, claimed: jobs.Claim, job: tables.Job) -> None:
    reason = cancellation.REASON
    _close(session, claimed, job, "cancelled", reason, {"code": reason})


def _close(
    session: orm.Session,
    claimed: jobs.Claim,
    job: tables.Job,
    status: str,
    reason: str,
    error: dict[str, Any],
    *,
    divisible: bool = False,
) -> None:
    problem = errors.Problem("", error["code"], error.get("detail", reason))
    if claimed.kind == jobs.UNLEARNING:
        publication.close_job(session, job, status, reason, error, divisible=divisible)
        return
    if claimed.kind == jobs.AUDIT:
        audits.close(session, job, status, error)
        return
    if claimed.kind == jobs.INGESTION:
        ingestion.fail(session, claimed.subject_id, [problem])
    elif claimed.kind == jobs.VALIDATION:
        version = session.get_one(tables.Version, claimed.subject_id)
        validation.refuse(session, version, problem)
    jobs.finish(session, job, status, error)
