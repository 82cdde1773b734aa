"""What a model must forget or has forgotten, beside the ledger of what it was trained on."""

import collections
import datetime
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import concepts, database, tables, tombstones

_SHARDS = 64
_IDS = sa.bindparam("ids", type_=database.Names)
_TOTAL = -1
_KINDS = (tables.Erasure, tables.ConceptErasure)
# Every submission runs it: it is built once.
_COUNT = (
    sa.select(tables.ErasureCount.label, sa.func.sum(tables.ErasureCount.erasures))
    .where(
        tables.ErasureCount.model_id == sa.bindparam("model"),
        tables.ErasureCount.label == sa.any_(sa.bindparam("labels", type_=sa.ARRAY(sa.Integer))),
    )
    .group_by(tables.ErasureCount.label)
)


def count(session: orm.Session, model: tables.Model) -> int:
    """How many training samples are erased or about to be."""
    return count_of(session, model, [_TOTAL])[_TOTAL]


def count_of(
    session: orm.Session, model: tables.Model, labels: Iterable[int]
) -> collections.Counter[int]:
    """The same of each of these labels.

    Exact while the samples are in the ledger; of a label of which some were deleted it may be more.
    """
    rows = session.execute(_COUNT, {"model": model.id, "labels": list(labels)})
    return collections.Counter({label: int(erasures) for label, erasures in rows})


def among(session: orm.Session, model: tables.Model, sample_ids: Sequence[str]) -> set[str]:
    """Those of these samples that are erased or about to be."""
    erasure = tables.Erasure
    found = sa.select(erasure.sample_id).where(
        erasure.model_id == model.id, erasure.sample_id == sa.any_(_IDS)
    )
    return set(session.scalars(found, {"ids": list(sample_ids)}))


def demanded_since(
    session: orm.Session, model: tables.Model, ago: datetime.timedelta, labels: Sequence[int]
) -> collections.Counter[int]:
    """How many samples of each of these labels were demanded so lately, and not withdrawn.

    What was erased before it was demanded is not counted.
    """
    request, named = tables.ForgetRequest, tables.RequestSample
    erasure, sample = tables.Erasure, tables.Sample
    rows = session.execute(
        sa.select(sample.label, sa.func.count(sample.sample_id.distinct()))
        .select_from(request)
        .join(named, named.request_id == request.id)
        .join(
            erasure,
            sa.and_(erasure.model_id == request.model_id, erasure.sample_id == named.sample_id),
        )
        .join(sample, sample.sample_id == named.sample_id)
        .where(
            request.model_id == model.id,
            request.received_at > sa.func.clock_timestamp() - ago,
            sa.func.coalesce(erasure.erased_at, request.received_at) >= request.received_at,
            sample.dataset_id == model.dataset_id,
            sample.label.in_(labels),
        )
        .group_by(sample.label)
    )
    return collections.Counter({label: number for label, number in rows if label is not None})


def served_version(
    erasure: type[tables.Erasure | tables.ConceptErasure],
) -> sa.ColumnElement[int | None]:
    """Column of an erasure: the version that first lacks it, once that was served."""
    return sa.case((erasure.erased_at.is_not(None), erasure.version)).label("version")


def mark_erased(session: orm.Session, batch_id: uuid.UUID, number: int) -> None:
    """The batch's samples and concepts are gone from this version on."""
    for erasure in _KINDS:
        session.execute(
            sa.update(erasure)
            .where(erasure.batch_id == batch_id, erasure.version.is_(None))
            .values(version=number)
        )


def mark_served(session: orm.Session, batch_id: uuid.UUID) -> None:
    """They are gone from what is served, too: now the proof window begins."""
    for erasure in _KINDS:
        session.execute(
            sa.update(erasure)
            .where(
                erasure.batch_id == batch_id,
                erasure.version.is_not(None),
                erasure.erased_at.is_(None),
            )
            .values(erased_at=sa.func.clock_timestamp())
        )


def versions_named(
    request: tables.ForgetRequest | type[tables.ForgetRequest],
) -> tuple[sa.Select[int | None], sa.Select[int | None]]:
    """Which versions first lack the samples, and the concepts, that a request names.

    Of one request, or beside any in a statement.
    """
    sample, concept = tables.RequestSample, tables.RequestConcept
    kinds = (
        (tables.Erasure, sample, sample.sample_id == tables.Erasure.sample_id),
        (tables.ConceptErasure, concept, concept.concept == tables.ConceptErasure.concept),
    )
    samples, concepts_named = (
        sa.select(erasure.version)
        .where(named.request_id == request.id, erasure.model_id == request.model_id, is_same)
        .correlate(tables.ForgetRequest)
        for erasure, named, is_same in kinds
    )
    return samples, concepts_named


def newest_version() -> sa.ColumnElement[int | None]:
    """Column beside a request: the first version that lacks all that it names, if any."""
    return sa.func.greatest(
        *(
            one.with_only_columns(sa.func.max(*one.selected_columns)).scalar_subquery()
            for one in versions_named(tables.ForgetRequest)
        )
    )


def counted(model_id: sa.ColumnElement[uuid.UUID]) -> postgresql.Insert:
    """The statement that notes rows of ``erasure``, new or dropped; :func:`change` says which."""
    count = tables.core(tables.ErasureCount)
    shard = sa.func.pg_backend_pid() % _SHARDS
    labels, more = (
        sa.func.unnest(sa.bindparam(name, type_=sa.ARRAY(sa.Integer)))
        for name in ("labels", "more")
    )
    inserted = postgresql.insert(count).from_select(
        ["model_id", "label", "shard", "erasures"], sa.select(model_id, labels, shard, more)
    )
    return inserted.on_conflict_do_update(
        index_elements=["model_id", "label", "shard"],
        set_={"erasures": count.c.erasures + inserted.excluded.erasures},
    )


def note(
    session: orm.Session, model_id: uuid.UUID, labels: Iterable[int | None], sign: int = 1
) -> None:
    """Count rows of ``erasure`` for samples of these labels, ``sign`` -1 if they were dropped."""
    session.execute(counted(sa.literal(model_id, sa.Uuid)), change(labels, sign))


def change(labels: Iterable[int | None], sign: int = 1) -> Mapping[str, Any]:
    """What :func:`counted` has to note for samples of these labels, ``sign`` -1 if dropped."""
    of_label = collections.Counter(labels)
    found = {
        _TOTAL: of_label.total(),
        **{key: of_label[key] for key in of_label if key is not None},
    }
    kept = sorted(label for label, number in found.items() if number)  # one order, no deadlock
    return {"labels": kept, "more": [sign * found[label] for label in kept]}


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
            sample.split == tables.TRAIN,
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
        sample.split == tables.TRAIN,
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

    Those of concepts come after those of samples. The digest stands in a public manifest: marks
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
    for concept in concepts.targets(session, concepts.erased_by(model.id)):
        digest.update(tombstones.of_concept(concept.concept))
        empty = False
    return None if empty else digest.hexdigest()


def samples(
    session: orm.Session, model: tables.Model, condition: sa.ColumnElement[bool]
) -> list[str]:
    """The samples of a model's erasures that fulfil a condition, sorted."""
    return list(
        session.scalars(
            sa.select(tables.Erasure.sample_id)
            .where(tables.Erasure.model_id == model.id, condition)
            .order_by(tables.Erasure.sample_id)
        )
    )
