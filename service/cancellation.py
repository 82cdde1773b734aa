"""Stopping a job by hand."""

import uuid

from sqlalchemy import orm

from service import errors, jobs, publication, tables

REASON = "job_cancelled"


def cancel(session: orm.Session, actor: str, job_id: uuid.UUID) -> tables.Job:
    """Stop an unlearning job: at once when it is queued, at its next step when it runs.

    Its requests become ``action_required``: the duty stays. Raises :class:`errors.NotFound` and,
    for a finished job or another kind of job, :class:`errors.Conflict`.
    """
    job = jobs.request_cancel(session, job_id, actor)
    if job.kind != jobs.UNLEARNING:
        detail = f"got a job of kind {job.kind}; only unlearning jobs can be cancelled"
        raise errors.Conflict("job-not-cancellable", detail)
    if job.status == "queued":
        publication.close_job(session, job, "cancelled", REASON, {"code": REASON})
    return job
