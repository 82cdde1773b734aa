"""Content comes into the store under a row, and leaves it: condemned, then destroyed and verified.

It is condemned with what made it needless. Between that and its end lies a commit, so a crash loses
nothing and leaves nothing: what is condemned is tried again. Content that something still refers to
stays, and so does what a run may be reading that began before it was condemned.
"""

import contextlib
import datetime
import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import database, jobs, storage, tables, telling

_MOST = 10_000  # contents in a sweep


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
    one, loses nothing. A file that is being sent again is left, and so is what came since the first
    job began that may still refer to it: one that runs, or an unlearning that goes on later. What
    was condemned as long ago and is held, because somebody named it in that moment, is pardoned:
    who gives it up condemns anew.
    """
    before = sa.func.clock_timestamp() - grace
    gone, content, job = tables.Condemned, tables.Content, tables.Job
    session.execute(sa.delete(gone).where(gone.created_at < before, _is_held(gone.digest)))
    goes_on = sa.and_(job.status == "queued", job.kind == jobs.UNLEARNING)
    began = sa.select(sa.func.min(job.started_at)).where(sa.or_(job.status == "running", goes_on))
    unused = session.scalars(
        sa.select(content.digest)
        .where(
            content.created_at < sa.func.least(before, began.scalar_subquery()),
            ~_is_held(content.digest),
        )
        .limit(_MOST)
        .with_for_update(skip_locked=True)
    ).all()
    doomed = set(filter(storage.exists, unused))
    session.execute(sa.delete(content).where(content.digest.in_(set(unused) - doomed)))
    known = set(session.scalars(sa.select(gone.digest)))
    condemn(session, doomed - known)
    return len(doomed - known)


@contextlib.contextmanager
def arriving(digest: str) -> Iterator[orm.Session]:
    """Within the block, content comes into the store.

    Its row is committed before: who dies in the block, or before anything refers to the content,
    leaves no file that the database does not know of. And its row is held in the block, by the
    transaction that is given: nobody destroys what is just coming. The block has to be short, for
    who is silent in it for a lease does not keep others from bringing the same.
    """
    content, patience = tables.Content, database.end_if_silent()
    found = sa.select(content.digest, patience).where(content.digest == digest)
    while True:
        with database.transaction() as session:
            session.execute(sa.select(patience))
            _note(session, digest)
        with database.transaction() as session:
            if session.scalar(found.with_for_update(key_share=True)) is None:
                continue  # destroyed between the two
            _pardon(session, [digest])
            yield session
            return


def want(session: orm.Session, content: storage.Stored) -> None:
    """Note content that may be served, and is in the store or :func:`arriving`.

    What condemned it before does not count any more, and nobody destroys it before the caller's
    transaction ends. Whether it is there is to be looked at afterwards.
    """
    _note(session, content.digest)
    row = postgresql.insert(tables.Blob).values(digest=content.digest, size=content.size)
    session.execute(
        row.on_conflict_do_update(index_elements=["digest"], set_={"size": row.excluded.size})
    )


def condemn_cache(session: orm.Session, files: Sequence[str]) -> None:
    """The same for what was computed from these files of a dataset (decoded pictures)."""
    condemn(session, [storage.cache_name(files)])


def keep_from(session: orm.Session, digests: Sequence[str]) -> dict[str, int]:
    """The sizes of those that are in the store, kept from being destroyed in this transaction.

    Who refers to content calls this first: it is there until the reference is committed.
    """
    blob, content = tables.Blob, tables.Content
    found = (
        sa.select(blob.digest, blob.size)
        .join(content, content.digest == blob.digest)
        .where(blob.digest.in_(digests))
        .with_for_update(read=True, key_share=True, of=content)
    )
    sizes = dict(session.execute(found).all())
    there = {digest: size for digest, size in sizes.items() if storage.exists(digest)}
    _pardon(session, list(there))
    return there


def destroy(session: orm.Session) -> int:
    """Delete the condemned content that nothing needs; returns how much is gone.

    Verified by listing the store: the audit entry says how many files were found in it and that
    none of the condemned was among them.
    """
    session.execute(sa.select(database.end_if_silent(database.A_DAY)))
    candidates = session.scalars(_ready().limit(_MOST)).all()
    content = tables.Content.digest
    known = sa.select(content).where(content.in_(candidates))
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
    session.execute(sa.delete(tables.Content).where(content.in_(ready)))
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


def _note(session: orm.Session, digest: str) -> None:
    """Know of content, as if it had come just now; whatever condemned it before does not count."""
    row = postgresql.insert(tables.Content).values(digest=digest)
    again = {"created_at": sa.func.clock_timestamp()}
    session.execute(row.on_conflict_do_update(index_elements=["digest"], set_=again))
    _pardon(session, [digest])


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
    return (
        sa.select(database.json_texts(version.report, digests))
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
