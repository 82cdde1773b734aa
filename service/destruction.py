"""Content leaves the store: condemned with what made it needless, then destroyed and verified.

Between the two lies a commit, so a crash loses nothing and leaves nothing: what is condemned is
tried again. Content that something still refers to stays, and so does what a run may be reading
that began before it was condemned.
"""

import hashlib
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import jobs, storage, tables, telling


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


def _ready() -> sa.Select[str]:
    gone = tables.Condemned
    oldest_run = (
        sa.select(sa.func.min(tables.Job.started_at))
        .where(tables.Job.status == "running", tables.Job.kind != jobs.DISPOSAL)
        .scalar_subquery()
    )
    of_version = sa.exists().where(
        tables.VersionFile.digest == gone.digest,
        tables.Version.id == tables.VersionFile.version_id,
        tables.Version.state != "purged",
    )
    of_dataset = sa.exists().where(gone.digest == sa.any_(tables.Dataset.files))
    of_judge = sa.exists().where(tables.Judge.digest == gone.digest)
    of_shadows = sa.exists().where(tables.ShadowPair.artifact_digest == gone.digest)
    of_job = sa.exists().where(
        tables.JobStep.artifact_digest == gone.digest,
        tables.Job.id == tables.JobStep.job_id,
        tables.Job.status.in_(jobs.UNFINISHED),
    )
    plan = sa.exists().where(
        tables.Job.inputs["plan"].astext == gone.digest,
        tables.Job.status.in_(jobs.UNFINISHED),
    )
    needed = sa.or_(of_version, of_dataset, of_judge, of_shadows, of_job, plan)
    return (
        sa.select(gone.digest)
        .where(
            ~needed,
            sa.or_(oldest_run.is_(None), gone.created_at < oldest_run),
        )
        .order_by(gone.digest)
        .with_for_update(skip_locked=True)
    )
