"""Concepts that a text-to-image model must no longer draw, and the samples that belong to them."""

import datetime
import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from salun_core import phrases, specs
from service import tables

_ROWS_AT_A_TIME = 10_000


def samples(
    session: orm.Session, dataset: tables.Dataset, split: str, target: specs.ConceptTarget
) -> dict[str, int | None]:
    """Labels of the samples whose text belongs to the concept, by sample id.

    It contains the concept as whole words, or it is one of the prompts.
    """
    sample = tables.Sample
    statement = sa.select(sample.sample_id, sample.label, sample.text).where(
        sample.dataset_id == dataset.id, sample.split == split, sample.text.is_not(None)
    )
    for word in () if target.prompts else target.concept.split():  # a prompt may have none of them
        if word.isascii():  # how other letters change case is the database's locale's affair
            statement = statement.where(sample.text.icontains(word, autoescape=True))
    belongs = phrases.matcher(target.concept, target.prompts)
    rows = session.execute(statement.execution_options(yield_per=_ROWS_AT_A_TIME))
    return {row.sample_id: row.label for row in rows if belongs(row.text)}


def claim(
    session: orm.Session,
    model_id: uuid.UUID,
    batch_id: uuid.UUID,
    concepts: Sequence[specs.ConceptTarget],
) -> set[str]:
    """Put concepts into a batch; returns those that no demand named before."""
    if not concepts:
        return set()
    rows = [
        {
            "model_id": model_id,
            "batch_id": batch_id,
            "concept": phrases.normal(one.concept),
            "replacement": one.replacement,
            "prompts": list(one.prompts),
        }
        for one in sorted(concepts, key=lambda one: phrases.normal(one.concept))
    ]
    inserted = postgresql.insert(tables.core(tables.ConceptErasure)).values(rows)
    claimed = inserted.on_conflict_do_nothing().returning(tables.ConceptErasure.concept)
    return set(session.scalars(claimed))


def note(session: orm.Session, request_id: uuid.UUID, names: Sequence[str]) -> None:
    """Keep which concepts a request names."""
    session.add_all(tables.RequestConcept(request_id=request_id, concept=name) for name in names)


def targets(session: orm.Session, condition: sa.ColumnElement[bool]) -> list[specs.ConceptTarget]:
    """The erasures that fulfil a condition on ``tables.ConceptErasure``, by name."""
    rows = session.scalars(
        sa.select(tables.ConceptErasure).where(condition).order_by(tables.ConceptErasure.concept)
    )
    return [
        specs.ConceptTarget(
            kind="concept",
            concept=row.concept,
            replacement=row.replacement,
            prompts=tuple(row.prompts),
        )
        for row in rows
    ]


def demanded(session: orm.Session, model_id: uuid.UUID) -> dict[str, specs.ConceptTarget]:
    """What a model has forgotten or is about to, by name; replacement and prompts hold for all."""
    found = targets(session, tables.ConceptErasure.model_id == model_id)
    return {one.concept: one for one in found}


def erased_by(model_id: uuid.UUID) -> sa.ColumnElement[bool]:
    """Beside :func:`targets`: the concepts that a version of the model lacks."""
    erased = tables.ConceptErasure
    return sa.and_(erased.model_id == model_id, erased.version.is_not(None))


def drop_orphans(session: orm.Session, batch_id: uuid.UUID) -> None:
    """Concepts of an open batch that no member names any more are not to be erased."""
    session.execute(
        sa.text(
            "DELETE FROM concept_erasure WHERE batch_id = :batch AND version IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM batch_member m "
            "JOIN request_concept c ON c.request_id = m.request_id "
            "WHERE m.batch_id = :batch AND c.concept = concept_erasure.concept)"
        ),
        {"batch": batch_id},
    )


def versions_of(
    model_id: uuid.UUID,
) -> sa.Select[int | None, datetime.datetime | None]:
    """``(version, erased_at)``: which first lacks it, of each concept that was erased."""
    erasure = tables.ConceptErasure
    return sa.select(erasure.version, erasure.erased_at).where(
        erasure.model_id == model_id, erasure.version.is_not(None)
    )
