"""Stopping a job by hand."""

import uuid

from sqlalchemy import orm

from service import audits, errors, jobs, publication, tables

REASON = "job_cancelled"


def cancel(session: orm.Session, actor: str, job_id: uuid.UUID) -> tables.Job:
    """Stop an unlearning job or an audit: at once when queued, at its next step when it runs.

    The requests behind an unlearning job become ``action_required``: the duty stays. An audit ends
    as failed. Raises :class:`errors.NotFound` and, for a finished job or another kind of job,
    :class:`errors.Conflict`.
    """
    job = jobs.request_cancel(session, job_id, actor)
    if job.kind not in (jobs.UNLEARNING, jobs.AUDIT):
        detail = f"got a job of kind {job.kind}; only unlearning jobs and audits can be cancelled"
        raise errors.Conflict("job-not-cancellable", detail)
    if job.status == "queued":
        if job.kind == jobs.UNLEARNING:
            publication.close_job(session, job, "cancelled", REASON, {"code": REASON})
        else:
            audits.close(session, job, "cancelled", {"code": REASON})
    return job
