"""What a model must forget or has forgotten, beside the ledger of what it was trained on."""

import hashlib
import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import concepts, database, ledger, tables, tombstones

_SHARDS = 64
_IDS = sa.bindparam("ids", type_=database.Names)
# Every submission runs it: it is built once.
_COUNT = sa.select(sa.func.sum(tables.ErasureCount.erasures)).where(
    tables.ErasureCount.model_id == sa.bindparam("model")
)


def count(session: orm.Session, model: tables.Model) -> int:
    """How many training samples are erased or about to be."""
    return int(session.scalar(_COUNT, {"model": model.id}) or 0)


def named_before(session: orm.Session, model: tables.Model, sample_ids: Sequence[str]) -> int:
    """How many of these samples are erased or about to be."""
    erasure = tables.Erasure
    count = (
        sa.select(sa.func.count())
        .select_from(erasure)
        .where(erasure.model_id == model.id, erasure.sample_id == sa.any_(_IDS))
    )
    return session.scalar(count, {"ids": list(sample_ids)}) or 0


def counted(
    model_id: sa.ColumnElement[uuid.UUID], more: sa.ColumnElement[int]
) -> postgresql.Insert:
    """The statement that notes ``more`` (or fewer) rows of ``erasure``."""
    count = tables.core(tables.ErasureCount)
    shard = sa.func.pg_backend_pid() % _SHARDS
    inserted = postgresql.insert(count).from_select(
        ["model_id", "shard", "erasures"], sa.select(model_id, shard, more).where(more != 0)
    )
    return inserted.on_conflict_do_update(
        index_elements=["model_id", "shard"],
        set_={"erasures": count.c.erasures + inserted.excluded.erasures},
    )


def forgotten_labels(session: orm.Session, model: tables.Model) -> tuple[int, ...]:
    """Classes of which no training sample is left after the completed erasures.

    Of those that were deleted since only tombstones tell.
    """
    sample, erasure = tables.Sample, tables.Erasure
    erased = sa.and_(
        erasure.model_id == model.id,
        erasure.sample_id == sample.sample_id,
        erasure.version.is_not(None),
    )
    rows = session.execute(
        sa.select(sample.label)
        .outerjoin(erasure, erased)
        .where(
            sample.dataset_id == model.dataset_id,
            sample.split == ledger.TRAIN,
            sample.label.is_not(None),
        )
        .group_by(sample.label)
        .having(sa.func.count() == sa.func.count(erasure.sample_id))
        .order_by(sample.label)
    )
    forgotten = {label for (label,) in rows if label is not None}
    stone = tables.Tombstone
    left = sa.exists().where(
        sample.dataset_id == model.dataset_id,
        sample.split == ledger.TRAIN,
        sample.label == stone.label,
    )
    deleted = session.scalars(
        sa.select(stone.label)
        .where(stone.dataset_id == model.dataset_id, stone.label.is_not(None), ~left)
        .distinct()
    )
    return tuple(sorted(forgotten.union(label for label in deleted if label is not None)))


def any_of_other_labels(
    session: orm.Session, model: tables.Model, sample_ids: Sequence[str], labels: Sequence[int]
) -> bool:
    """Whether one of these samples has none of these labels."""
    sample = tables.Sample
    found = sa.select(sample.sample_id).where(
        sample.dataset_id == model.dataset_id,
        sample.sample_id == sa.any_(_IDS),
        sample.label.not_in(labels),
    )
    return session.scalar(found.limit(1), {"ids": list(sample_ids)}) is not None


def forgotten_digest(session: orm.Session, model: tables.Model) -> str | None:
    """SHA-256 over the sorted content marks of all that was erased; ``None`` when nothing was.

    Hashes of concepts come after those of samples. The digest stands in a public manifest: marks
    are keyed, so that nobody can try by it whether a picture was erased, and they stay when the
    pictures are deleted.
    """
    erasure, sample, stone = tables.Erasure, tables.Sample, tables.Tombstone
    is_erased = sa.and_(erasure.model_id == model.id, erasure.version.is_not(None))
    stored = session.scalars(
        sa.select(sample.content_hash)
        .join(erasure, erasure.sample_id == sample.sample_id)
        .where(is_erased, sample.dataset_id == model.dataset_id)
    )
    deleted = session.scalars(
        sa.select(stone.content_mark)
        .join(erasure, erasure.sample_id == stone.sample_mark)
        .where(is_erased, stone.dataset_id == model.dataset_id)
    )
    marks = sorted([*map(tombstones.of_content, stored), *deleted])
    digest, empty = hashlib.sha256(), not marks
    for mark in marks:
        digest.update(mark)
    erased = tables.ConceptErasure
    for concept in concepts.targets(
        session, sa.and_(erased.model_id == model.id, erased.version.is_not(None))
    ):
        digest.update(hashlib.sha256(concept.concept.encode()).digest())
        empty = False
    return None if empty else digest.hexdigest()
