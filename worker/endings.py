"""How a job that did not succeed ends, by its kind. The duty to forget never ends with it."""

from typing import Any

from sqlalchemy import orm

from service import (
    audits,
    database,
    errors,
    fulfilment,
    ingestion,
    jobs,
    publication,
    tables,
    validation,
)


def retry_or_fail(claimed: jobs.Claim, error: Exception, delay_seconds: float) -> None:
    """Queue the job again while it has attempts left."""
    if claimed.attempt >= claimed.max_attempts:
        fail(claimed, type(error).__name__, "see the worker's log")
        return
    with database.transaction() as session:
        jobs.requeue(session, jobs.hold(session, claimed), delay_seconds=delay_seconds)
        _wait_again(session, claimed)


def give_back(claimed: jobs.Claim) -> None:
    """Queue an interrupted job again; the attempt does not count."""
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        job.attempts -= 1
        jobs.requeue(session, job)
        _wait_again(session, claimed)


def fail(claimed: jobs.Claim, code: str, detail: str) -> None:
    """The job cannot succeed."""
    _end(claimed, "failed", "job_failed", {"code": code, "detail": detail})


def cancel(claimed: jobs.Claim, reason: str) -> None:
    """Somebody stopped the job."""
    _end(claimed, "cancelled", reason, {"code": reason})


def _wait_again(session: orm.Session, claimed: jobs.Claim) -> None:
    if claimed.kind == jobs.UNLEARNING:
        fulfilment.wait_again(session, claimed.subject_id)


def _end(claimed: jobs.Claim, status: str, reason: str, error: dict[str, Any]) -> None:
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        problem = errors.Problem("", error["code"], error.get("detail", reason))
        if claimed.kind == jobs.UNLEARNING:
            publication.close_job(session, job, status, reason, error)
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
