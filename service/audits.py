"""Audits: a closer look at an unlearned version, on request and off the critical path.

An audit changes nothing: no version, no alias, no forget request. Its status is that of its job;
it may fail, for no duty hangs on it.
"""

import uuid
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from salun_core import specs
from service import audit_options, errors, jobs, storage, tables, telling

RETRAINING = "retraining"  # the stage whose artifacts are weights that nobody serves
AUDITED = ("classifier",)
Status = Literal["queued", "running", "completed", "failed"]
_STATUS: dict[str, Status] = {
    "queued": "queued",
    "running": "running",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
}

_IS_ITS_JOB = sa.and_(tables.Job.subject_id == tables.Audit.id, tables.Job.kind == jobs.AUDIT)


def request(
    session: orm.Session,
    actor: str,
    version: tables.Version,
    options: audit_options.AuditOptions,
) -> tables.Audit:
    """Queue an audit behind all unlearning; what is left open in the options is settled here.

    Raises :class:`errors.Conflict` (``version-not-unlearned``) for an uploaded version and
    :class:`errors.Invalid` for a family that is not audited (``unsupported``) and for controls of
    a recipe without a saliency mask (``invalid-audit``).
    """
    if version.job_id is None or version.report is None:
        detail = f"version {version.number} was uploaded, expected one made by unlearning"
        raise errors.Conflict("version-not-unlearned", detail)
    model = session.get_one(tables.Model, version.model_id)
    if model.family not in AUDITED:
        detail = f"got a version of family {model.family!r}, expected {' or '.join(AUDITED)}"
        raise errors.Invalid("unsupported", detail, [errors.Problem("", "family", detail)])
    settled = _settled(options, version.report)
    audit = tables.Audit(version_id=version.id, options=settled.model_dump(mode="json"))
    session.add(audit)
    session.flush()
    # One audit of a model at a time: the next one finds the shadow nets of the first.
    jobs.enqueue(session, jobs.AUDIT, line=f"audit:model:{version.model_id}", subject_id=audit.id)
    telling.audit(session, actor, "version.audit", version.id, audit_id=str(audit.id))
    return audit


def complete(session: orm.Session, job: tables.Job, result: dict[str, Any]) -> None:
    """Keep the result and finish the held job."""
    audit = session.get_one(tables.Audit, job.subject_id)
    audit.result = result
    telling.audit(session, "worker", "audit.complete", audit.id)
    close(session, job, "succeeded", None)


def close(session: orm.Session, job: tables.Job, status: str, error: dict[str, Any] | None) -> None:
    """Finish the held job of an audit, and leave nothing of its retrained nets in the store.

    They go first: who dies in between leaves a job to do again, not weights that nobody drops.
    """
    digests = session.scalars(
        sa.select(tables.JobStep.artifact_digest).where(
            tables.JobStep.job_id == job.id, tables.JobStep.name.startswith(f"{RETRAINING}/")
        )
    )
    for digest in digests:
        storage.remove(digest)
    jobs.finish(session, job, status, error)


def by_id(session: orm.Session, version: tables.Version, audit_id: uuid.UUID) -> tables.Audit:
    """An audit of that version; raises :class:`errors.NotFound`."""
    audit = session.get(tables.Audit, audit_id)
    if audit is None or audit.version_id != version.id:
        detail = f"version {version.number} has no audit {audit_id}"
        raise errors.NotFound("audit-not-found", detail)
    return audit


def listing(session: orm.Session, version: tables.Version) -> list[tuple[tables.Audit, tables.Job]]:
    """All audits of a version with their jobs, newest first; results are not read."""
    found = session.execute(
        sa.select(tables.Audit, tables.Job)
        .join(tables.Job, _IS_ITS_JOB)
        .options(orm.defer(tables.Audit.result, raiseload=True))
        .where(tables.Audit.version_id == version.id)
        .order_by(tables.Audit.id.desc())
    )
    return [(audit, job) for audit, job in found]


def job_of(session: orm.Session, audit: tables.Audit) -> tables.Job:
    """The job that carries an audit out."""
    return session.scalars(
        sa.select(tables.Job).join(tables.Audit, _IS_ITS_JOB).where(tables.Audit.id == audit.id)
    ).one()


def status_of(job: tables.Job) -> Status:
    """What an audit with this job is; a cancelled one counts as failed."""
    return _STATUS[job.status]


def shadow_pair(
    session: orm.Session, base_version_id: uuid.UUID, name: str
) -> tables.ShadowPair | None:
    """A shadow pair's confidences, if an audit of that base version kept them."""
    return session.get(tables.ShadowPair, (base_version_id, name))


def is_older(session: orm.Session, pair: tables.ShadowPair, job_id: uuid.UUID) -> bool:
    """Whether a pair was kept before a job was first claimed, so by another audit."""
    started_at = session.get_one(tables.Job, job_id).started_at
    return started_at is not None and pair.created_at < started_at


def keep_shadow_pair(
    session: orm.Session, base_version_id: uuid.UUID, name: str, artifact_digest: str
) -> None:
    """Let later audits of that base version find a shadow pair's confidences."""
    kept = postgresql.insert(tables.ShadowPair).values(
        base_version_id=base_version_id, name=name, artifact_digest=artifact_digest
    )
    session.execute(
        kept.on_conflict_do_update(
            index_elements=["base_version_id", "name"],
            set_={
                "artifact_digest": artifact_digest,
                "created_at": sa.func.clock_timestamp(),
            },
        )
    )


def _settled(
    options: audit_options.AuditOptions, report: dict[str, Any]
) -> audit_options.AuditOptions:
    masked = specs.UnlearningSpec.model_validate(report["method"]).mask == "saliency"
    wanted = bool(options.densities) if options.controls is None else options.controls
    if wanted and not masked:
        detail = "the recipe of this version has no saliency mask; expected controls false"
        problem = errors.Problem("/controls", "no-saliency-mask", detail)
        raise errors.Invalid("invalid-audit", detail, [problem])
    controls = masked if options.controls is None else options.controls
    if not (options.retrained or options.shadow_pairs or controls):
        detail = "nothing is left to carry out: the recipe of this version has no saliency mask"
        raise errors.Invalid("invalid-audit", detail, [errors.Problem("", "nothing-left", detail)])
    return options.model_copy(update={"controls": controls})
