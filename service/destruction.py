"""Content leaves the store: condemned with what made it needless, then destroyed and verified.

Between the two lies a commit, so a crash loses nothing and leaves nothing: what is condemned is
tried again. Content that something still refers to stays, and so does what a run may be reading
that began before it was condemned.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import database, jobs, storage, tables, telling


def condemn(session: orm.Session, digests: Iterable[str]) -> None:
    """Note content that is needless once the caller's transaction is committed."""
    rows = [{"digest": digest} for digest in sorted(set(digests))]
    if rows:
        session.execute(postgresql.insert(tables.Condemned).on_conflict_do_nothing(), rows)


def condemn_cache(session: orm.Session, files: Sequence[str]) -> None:
    """The same for what was computed from these files of a dataset (decoded pictures)."""
    condemn(session, [storage.cache_name(files)])


def destroy(session: orm.Session) -> int:
    """Delete the condemned content that nothing needs; returns how much is gone.

    Verified by listing the store: the audit entry says how many files were found in it and that
    none of the condemned was among them.
    """
    ready = list(session.scalars(_ready()).all())
    for digest in ready:
        storage.remove(digest)
    if not ready:
        return 0
    listed = storage.listing()
    left = sorted(listed.intersection(ready))
    session.execute(sa.delete(tables.Blob).where(tables.Blob.digest.in_(ready)))
    session.execute(
        sa.delete(tables.Condemned).where(
            tables.Condemned.digest.in_(ready), tables.Condemned.digest.not_in(left)
        )
    )
    telling.audit(
        session,
        "worker",
        "content.destroy",
        hashlib.sha256("\n".join(ready).encode()).hexdigest(),
        destroyed=len(ready) - len(left),
        files_in_store=len(listed),
        left=left,
    )
    return len(ready) - len(left)


def is_needed(digest: str, *, besides: uuid.UUID) -> bool:
    """Whether anything but that job still refers to content.

    Two models over the same data come to the same content, which is in the store once.
    """
    with database.transaction() as session:
        return bool(session.scalar(sa.select(_needed(sa.literal(digest), besides))))


def _needed(
    digest: sa.SQLColumnExpression[str], besides: uuid.UUID | None = None
) -> sa.ColumnElement[bool]:
    """Whether content is held: by a version, a dataset, a judge, an audit, a job that is not over
    or one whose version passed and is not purged.
    """
    step, job = tables.JobStep, tables.Job
    made = tables.Version
    passed = sa.exists().where(made.job_id == job.id, made.state.not_in(("staged", "purged")))
    of_job = (
        job.id.is_distinct_from(besides),
        sa.or_(job.status.in_(jobs.UNFINISHED), passed),
    )
    return sa.or_(
        sa.exists().where(tables.VersionFile.digest == digest),
        sa.exists().where(digest == sa.any_(tables.Dataset.files)),
        sa.exists().where(tables.Judge.digest == digest),
        sa.exists().where(tables.ShadowPair.artifact_digest == digest),
        sa.exists().where(step.artifact_digest == digest, job.id == step.job_id, *of_job),
        sa.exists().where(job.inputs["plan"].astext == digest, *of_job),
    )


def _ready() -> sa.Select[str]:
    """What nothing needs, and no run that began before it was condemned may be reading."""
    gone, run = tables.Condemned, tables.Job
    oldest_run = (
        sa.select(sa.func.min(run.started_at))
        .where(run.status == "running", run.kind != jobs.DISPOSAL)
        .scalar_subquery()
    )
    return (
        sa.select(gone.digest)
        .where(
            ~_needed(gone.digest),
            sa.or_(oldest_run.is_(None), gone.created_at < oldest_run),
        )
        .order_by(gone.digest)
        .with_for_update(skip_locked=True)
    )
