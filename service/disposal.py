"""After the proof window: versions that remember, and the erased samples themselves, are deleted.

One job a model, on the model's line, so that no unlearning runs meanwhile. What a version was
measured on must stay until then: gates look at earlier erasures, and a run from the anchor forgets
them anew. Afterwards tombstones remain (:mod:`service.tombstones`).
"""

import datetime
import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from service import (
    aliases,
    database,
    destruction,
    jobs,
    models,
    pace,
    plans,
    renaming,
    rewriting,
    tables,
    telling,
    tombstones,
    versions,
)

_REASON = "superseded by a version that has forgotten more"


def enqueue_due(session: orm.Session) -> int:
    """Queue a disposal for every model that has something due and none under way; how many."""
    queued = 0
    for model in session.scalars(sa.select(tables.Model).order_by(tables.Model.id)).all():
        under_way = sa.select(tables.Job.id).where(
            tables.Job.kind == jobs.DISPOSAL,
            tables.Job.subject_id == model.id,
            tables.Job.status.in_(jobs.UNFINISHED),
        )
        if session.scalar(under_way.limit(1)) is None and _has_due(session, model):
            jobs.enqueue(session, jobs.DISPOSAL, line=pace.line_of(model.id), subject_id=model.id)
            queued += 1
    return queued


def move_left_aliases(session: orm.Session, model: tables.Model) -> list[str]:
    """Move aliases that point at what remembers to what is served, once the grace is over.

    Nobody who pulls by them would be told otherwise that the model has forgotten.
    """
    left = _left_aliases(session, model)
    for name, served in left:
        aliases.move(session, "worker", model, name, versions.by_number(session, model, served))
    return [name for name, _ in left]


def revoke_superseded(session: orm.Session, model: tables.Model) -> list[int]:
    """Refuse (410) versions that no alias points at, whose grace is over and that remember more."""
    revoked = []
    for version in session.scalars(_superseded(model)).all():
        if aliases.missing_erasures(session, model, version):
            versions.revoke(session, "worker", model, version.number, _REASON)
            revoked.append(version.number)
    return revoked


def purge_versions(session: orm.Session, model: tables.Model) -> list[int]:
    """Give up the files of versions revoked long enough ago, and of those that never passed.

    With a version go the artifacts of the job that made it: masks, plans, shadow nets' outputs. Its
    row, manifest and report stay.
    """
    due = session.scalars(_purgeable(model)).all()
    for version in due:
        version.state = "purged"
        version.purged_at = sa.func.clock_timestamp()
        session.flush()
        gone = sa.delete(tables.VersionFile).where(tables.VersionFile.version_id == version.id)
        digests = session.scalars(gone.returning(tables.VersionFile.digest)).all()
        destruction.condemn(session, [*digests, *_artifacts_of(session, version)])
        telling.audit(session, "worker", "version.purge", version.id, number=version.number)
    return [version.number for version in due]


def erase_samples(session: orm.Session, model: tables.Model) -> int:
    """Delete the bytes and the ledger's rows of samples that every model over them has erased.

    Needs that no job over the same data runs or is half done: returns 0 then, and a later disposal
    does it. Returns how many samples are gone.
    """
    dataset = session.get_one(tables.Dataset, model.dataset_id, with_for_update=True)
    if _data_in_use(session, model):
        return 0
    due = session.scalars(_erasable(model)).all()
    if not due:
        return 0
    before = list(dataset.files)
    names = [sample.sample_id for sample in due]
    marks = {name: tombstones.of_sample(dataset.id, name) for name in names}
    subjects = {sample.subject_id for sample in due if sample.subject_id is not None}
    session.add_all(
        tables.Tombstone(
            dataset_id=dataset.id,
            sample_mark=marks[sample.sample_id],
            subject_mark=None
            if sample.subject_id is None
            else tombstones.of_subject(dataset.id, sample.subject_id),
            content_mark=tombstones.of_content(sample.content_hash),
            label=sample.label,
        )
        for sample in due
    )
    session.flush()
    rewriting.drop_rows(session, dataset, due)
    persons = renaming.persons_gone(session, dataset.id, subjects)
    renaming.to_marks(session, dataset.id, marks, persons)
    plans.rename(session, dataset.id, marks)
    destruction.condemn(session, set(before) - set(dataset.files))
    destruction.condemn_cache(session, before)
    others = _in_other_datasets(session, dataset.id, [sample.content_hash for sample in due])
    telling.audit(
        session,
        "worker",
        "samples.erase",
        dataset.id,
        samples=len(due),
        in_other_datasets=others,
    )
    return len(due)


def _in_other_datasets(session: orm.Session, dataset_id: uuid.UUID, hashes: Sequence[bytes]) -> int:
    """How many samples of other datasets are the same pictures: nobody asked for those."""
    sample = tables.Sample
    same = sa.select(sa.func.count()).where(
        sample.dataset_id != dataset_id, sample.content_hash.in_(hashes)
    )
    return session.scalar(same) or 0


def _has_due(session: orm.Session, model: tables.Model) -> bool:
    """Whether a disposal would find something to do.

    One that had to wait for others would be queued again with every sweep, and, being due at once,
    keep a job that is half done from the line.
    """
    if session.scalars(_purgeable(model).limit(1)).first() is not None:
        return True
    if _left_aliases(session, model):
        return True
    if any(
        aliases.missing_erasures(session, model, version)
        for version in session.scalars(_superseded(model))
    ):
        return True
    erasable = session.scalars(_erasable(model).order_by(None).limit(1)).first() is not None
    return erasable and not _data_in_use(session, model, but_runs_on=pace.line_of(model.id))


def _left_aliases(session: orm.Session, model: tables.Model) -> list[tuple[str, int]]:
    """Names of aliases that remember for too long, and the version that is served."""
    over = database.now(session) - datetime.timedelta(seconds=models.policy_of(model).grace_seconds)
    pointed_at = aliases.listing(session, model)
    served = pointed_at.get(models.PRODUCTION)
    if served is None:
        return []
    left = []
    for name, number in pointed_at.items():
        if name == models.PRODUCTION:
            continue
        since = aliases.missing_since(session, model, versions.by_number(session, model, number))
        if since is not None and since < over:
            left.append((name, served))
    return left


def _superseded(model: tables.Model) -> sa.Select[tables.Version]:
    grace = datetime.timedelta(seconds=models.policy_of(model).grace_seconds)
    version = tables.Version
    # What passed but was never served is left behind when a later one is.
    since = sa.func.coalesce(version.superseded_at, version.created_at)
    pointed_at = sa.select(tables.Alias.version).where(tables.Alias.model_id == model.id)
    return sa.select(version).where(
        version.model_id == model.id,
        version.state.in_(("superseded", "verified")),
        version.number != (model.head or 0),
        since < sa.func.clock_timestamp() - grace,
        version.number.not_in(pointed_at),
    )


def _purgeable(model: tables.Model) -> sa.Select[tables.Version]:
    version = tables.Version
    before = sa.func.clock_timestamp() - _window(model)
    was_refused = sa.or_(
        version.report.is_not(None), sa.func.jsonb_array_length(version.errors) > 0
    )
    failed = sa.and_(version.state == "staged", was_refused, version.created_at < before)
    revoked = sa.and_(version.state == "revoked", version.revoked_at < before)
    starts_from_it = sa.exists().where(
        tables.Job.line == pace.line_of(model.id),
        tables.Job.status.in_(jobs.UNFINISHED),
        tables.Job.inputs["base_version"].as_integer() == version.number,
    )
    return sa.select(version).where(
        version.model_id == model.id,
        sa.or_(failed, revoked),
        version.number != (model.head or 0),
        ~starts_from_it,
    )


def _erasable(model: tables.Model) -> sa.Select[tables.Sample]:
    """Samples that every model over them erased so long ago that its own proof window is over.

    One whose first upload waits for its validation remembers them, as far as anybody knows.
    """
    sample, erasure = tables.Sample, tables.Erasure
    others = orm.aliased(tables.Model)
    theirs = orm.aliased(tables.Erasure)
    their_window = sa.func.make_interval(
        0, 0, 0, 0, 0, 0, others.policy["proof_window_seconds"].as_float()
    )
    first_upload = sa.exists().where(
        tables.Version.model_id == others.id,
        tables.Version.state == "staged",
        sa.func.jsonb_array_length(tables.Version.errors) == 0,
    )
    remembered = sa.exists().where(
        others.dataset_id == model.dataset_id,
        sa.or_(others.head.is_not(None), first_upload),
        ~sa.exists().where(
            theirs.model_id == others.id,
            theirs.sample_id == sample.sample_id,
            theirs.version.is_not(None),
            theirs.erased_at < sa.func.clock_timestamp() - their_window,
        ),
    )
    return (
        sa.select(sample)
        .join(erasure, erasure.sample_id == sample.sample_id)
        .where(
            sample.dataset_id == model.dataset_id,
            erasure.model_id == model.id,
            erasure.version.is_not(None),
            # Follows from the rest, and spares the rest most samples at every sweep.
            erasure.erased_at < sa.func.clock_timestamp() - _window(model),
            ~remembered,
        )
        .order_by(sample.file_index, sample.row_group, sample.row_index)
    )


def _window(model: tables.Model) -> datetime.timedelta:
    return datetime.timedelta(seconds=models.policy_of(model).proof_window_seconds)


def _data_in_use(
    session: orm.Session, model: tables.Model, *, but_runs_on: str | None = None
) -> bool:
    """Whether a job over the same data runs, or waits in the midst of its work.

    What runs on the line ``but_runs_on`` does not count: a disposal there waits for its end.
    """
    job = tables.Job
    busy = sa.select(job.id).where(
        job.line.in_(pace.lines_over(session, model.dataset_id)),
        job.kind != jobs.DISPOSAL,
        sa.or_(
            sa.and_(job.status == "running", job.line.is_distinct_from(but_runs_on)),
            sa.and_(job.status == "queued", job.inputs.is_not(None)),
        ),
    )
    return session.scalar(busy.limit(1)) is not None


def _artifacts_of(session: orm.Session, version: tables.Version) -> list[str]:
    found: list[str] = []
    if version.job_id is not None:
        found += jobs.artifacts(session, session.get_one(tables.Job, version.job_id))
    pairs = sa.delete(tables.ShadowPair).where(tables.ShadowPair.base_version_id == version.id)
    found += session.scalars(pairs.returning(tables.ShadowPair.artifact_digest))
    return found
