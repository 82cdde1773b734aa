"""Content leaves the store: condemned with what made it needless, then destroyed and verified.

Between the two lies a commit, so a crash loses nothing and leaves nothing: what is condemned is
tried again. Content that something still refers to stays, and so does what a run may be reading
that began before it was condemned.
"""

import datetime
import hashlib
import uuid
from collections.abc import Collection, Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import database, jobs, storage, tables, telling

_MOST = 10_000  # contents in a sweep
_KNOWN = (tables.Blob, tables.Made)  # what was sent or is served, and what was made


def condemn(session: orm.Session, digests: Iterable[str]) -> None:
    """Note content that is needless once the caller's transaction is committed."""
    rows = [{"digest": digest} for digest in sorted(set(digests))]
    if rows:
        noted = postgresql.insert(tables.Condemned)
        # Anew, if it was named since: who began to read it in between must be waited for.
        now = {"created_at": sa.func.clock_timestamp()}
        session.execute(noted.on_conflict_do_update(index_elements=["digest"], set_=now), rows)


def condemn_unused(session: orm.Session, grace: datetime.timedelta) -> int:
    """Condemn what the database knows of and nothing refers to any more; returns how much.

    What it does not know of stays: whoever starts the service with a wrong database, or an empty
    one, loses nothing. A file that is being sent again is left. What was condemned as long ago and
    is held, because somebody named it in that moment, is pardoned: who gives it up condemns anew.
    """
    before = sa.func.clock_timestamp() - grace
    gone = tables.Condemned
    session.execute(sa.delete(gone).where(gone.created_at < before, _is_held(gone.digest)))
    unused: set[str] = set()
    for table in _KNOWN:
        found = sa.select(table.digest).where(table.created_at < before, ~_is_held(table.digest))
        unused.update(session.scalars(found.limit(_MOST).with_for_update(skip_locked=True)))
    doomed = set(filter(storage.exists, unused))
    _forget(session, unused - doomed)
    known = set(session.scalars(sa.select(tables.Condemned.digest)))
    condemn(session, doomed - known)
    return len(doomed - known)


def announce(digest: str) -> None:
    """Note content that will be in the store, and is committed before it is.

    Whatever condemned it before does not count any more.
    """
    row = postgresql.insert(tables.core(tables.Made)).values(digest=digest)
    again = {"created_at": sa.func.clock_timestamp()}
    with database.transaction() as session:
        session.execute(row.on_conflict_do_update(index_elements=["digest"], set_=again))
        _pardon(session, [digest])


def want(session: orm.Session, content: storage.Stored) -> None:
    """Note content that may be sent and served; a file that is not there yet comes after it.

    Whatever condemned it before does not count any more. Who destroys it holds its row: what comes
    after that stays.
    """
    row = postgresql.insert(tables.core(tables.Blob)).values(
        digest=content.digest, size=content.size
    )
    again = {"size": row.excluded.size, "created_at": sa.func.clock_timestamp()}
    session.execute(row.on_conflict_do_update(index_elements=["digest"], set_=again))
    _pardon(session, [content.digest])


def condemn_cache(session: orm.Session, files: Sequence[str]) -> None:
    """The same for what was computed from these files of a dataset (decoded pictures)."""
    condemn(session, [storage.cache_name(files)])


def keep_from(session: orm.Session, digests: Sequence[str]) -> dict[str, int]:
    """The sizes of those that are in the store, kept from being destroyed in this transaction.

    Who refers to content calls this first: it is there until the reference is committed.
    """
    blob = tables.Blob
    found = sa.select(blob.digest, blob.size).where(blob.digest.in_(digests))
    sizes = dict(session.execute(found.with_for_update(read=True, key_share=True)).all())
    there = {digest: size for digest, size in sizes.items() if storage.exists(digest)}
    _pardon(session, list(there))
    return there


def destroy(session: orm.Session) -> int:
    """Delete the condemned content that nothing needs; returns how much is gone.

    Verified by listing the store: the audit entry says how many files were found in it and that
    none of the condemned was among them.
    """
    candidates = session.scalars(_ready().limit(_MOST)).all()
    blob = tables.Blob.digest
    known = sa.select(blob).where(blob.in_(candidates))
    # Held until it is gone from the table too: who names it afterwards does not find it. What is
    # being named, or sent again, is left; what was meanwhile, the last statement sees.
    ours = session.scalars(known.with_for_update(skip_locked=True)).all()
    others = set(session.scalars(known)).difference(ours)
    free = [digest for digest in candidates if digest not in others]
    ready = session.scalars(_ready().where(tables.Condemned.digest.in_(free))).all()
    for digest in ready:
        storage.remove(digest)
    if not ready:
        return 0
    listed = storage.listing()
    left = sorted(listed.intersection(ready))
    _forget(session, ready)
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
        return bool(session.scalar(sa.select(_is_held(sa.literal(digest), besides))))


def _forget(session: orm.Session, digests: Collection[str]) -> None:
    """Know no more of content that is not in the store."""
    for table in _KNOWN:
        session.execute(sa.delete(table).where(table.digest.in_(digests)))


def _pardon(session: orm.Session, digests: Sequence[str]) -> None:
    session.execute(sa.delete(tables.Condemned).where(tables.Condemned.digest.in_(digests)))


def _is_held(
    digest: sa.SQLColumnExpression[str], besides: uuid.UUID | None = None
) -> sa.ColumnElement[bool]:
    held = _held(besides)
    return sa.exists().where(held.c.digest == digest)


def _held(besides: uuid.UUID | None) -> sa.Subquery:
    """All that is referred to: by a version, a dataset, a judge, an audit, a job that is not over
    or one whose version was measured and is not purged, and, until the proof window is over, a
    report.
    """
    step, job, version = tables.JobStep, tables.Job, tables.Version
    plan = job.inputs["plan"].astext
    is_other = job.id.is_distinct_from(besides)
    unfinished = job.status.in_(jobs.UNFINISHED)
    of_job = job.id == step.job_id
    of_version = sa.and_(
        job.id == version.job_id, version.state != "purged", version.report.is_not(None)
    )
    return sa.union_all(
        sa.select(tables.VersionFile.digest),
        sa.select(sa.func.unnest(tables.Dataset.files)),
        sa.select(tables.Judge.digest),
        sa.select(tables.ShadowPair.artifact_digest),
        sa.select(step.artifact_digest).join(job, of_job).where(is_other, unfinished),
        sa.select(step.artifact_digest).join(job, of_job).join(version, of_version).where(is_other),
        sa.select(plan).where(is_other, unfinished),
        sa.select(plan).join(version, of_version).where(is_other),
        _in_reports(),
    ).subquery("held")


def _in_reports() -> sa.Select[str]:
    """Pictures of reports that may still be needed as proof: they show what was forgotten."""
    version, model = tables.Version, tables.Model
    window = sa.func.make_interval(
        0, 0, 0, 0, 0, 0, model.policy["proof_window_seconds"].as_float()
    )
    digests = '$.evidence.pictures[*].digest ? (@.type() == "string")'
    found = sa.func.jsonb_path_query(version.report, sa.cast(digests, postgresql.JSONPATH))
    return (
        sa.select(found.op("#>>", return_type=sa.Text())(sa.cast([], postgresql.ARRAY(sa.Text))))
        .join(model, model.id == version.model_id)
        .where(
            model.family != "classifier",
            version.created_at > sa.func.clock_timestamp() - window,
        )
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
            ~_is_held(gone.digest),
            sa.or_(oldest_run.is_(None), gone.created_at < oldest_run),
        )
        .order_by(gone.digest)
        .with_for_update(skip_locked=True)
    )
