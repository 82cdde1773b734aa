"""Ids of what was deleted become marks wherever they stand: erasures, requests, their bodies."""

import collections
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import database, erasures, tables, tombstones

_PAIRS = "(SELECT unnest(CAST(:old AS text[])) AS old, unnest(CAST(:new AS text[])) AS new) p"
_OF_DATASET = "(SELECT id FROM model WHERE dataset_id = :dataset)"
_DROP_TWICE_ERASED = sa.text(
    f"DELETE FROM erasure e USING {_PAIRS} "  # noqa: S608 - constants
    f"WHERE e.sample_id = p.old AND p.old <> p.new AND e.model_id IN {_OF_DATASET} "
    "AND EXISTS (SELECT 1 FROM erasure o WHERE o.model_id = e.model_id AND o.sample_id = p.new) "
    "RETURNING e.model_id, (SELECT label FROM tombstone t WHERE t.dataset_id = :dataset "
    "AND t.sample_mark = p.new)"
)
_RENAME_ERASURES = sa.text(
    f"UPDATE erasure e SET sample_id = p.new FROM {_PAIRS} "  # noqa: S608
    f"WHERE e.sample_id = p.old AND e.model_id IN {_OF_DATASET}"
)
_DROP_TWICE_NAMED = sa.text(
    f"DELETE FROM request_sample s USING {_PAIRS}, forget_request r "  # noqa: S608
    f"WHERE s.sample_id = p.old AND p.old <> p.new AND r.id = s.request_id "
    f"AND r.model_id IN {_OF_DATASET} AND EXISTS (SELECT 1 FROM request_sample o "
    "WHERE o.request_id = s.request_id AND o.sample_id = p.new) RETURNING s.request_id"
)
_RENAME_NAMED = sa.text(
    f"UPDATE request_sample s SET sample_id = p.new FROM {_PAIRS}, forget_request r "  # noqa: S608
    f"WHERE s.sample_id = p.old AND r.id = s.request_id AND r.model_id IN {_OF_DATASET} "
    "RETURNING s.request_id"
)
_NAMING_PERSONS = sa.text(
    f"SELECT id FROM forget_request WHERE model_id IN {_OF_DATASET} "  # noqa: S608
    "AND EXISTS (SELECT 1 FROM jsonb_array_elements(body -> 'targets') target "
    "WHERE target ->> 'subject_id' = ANY(CAST(:persons AS text[])))"
)


def to_marks(
    session: orm.Session,
    dataset_id: uuid.UUID,
    marks: Mapping[str, str],
    persons: Mapping[str, str],
) -> None:
    """Write ``marks`` for the ids of samples, and ``persons`` for those of persons.

    Whoever named a sample again while it was deleted wrote its id once more: what is there under
    the mark already stays, the other goes.
    """
    named = {"old": list(marks), "new": list(marks.values()), "dataset": dataset_id}
    twice: dict[uuid.UUID, list[int | None]] = collections.defaultdict(list)
    for model_id, label in session.execute(_DROP_TWICE_ERASED, named):
        twice[model_id].append(label)
    for model_id, labels in sorted(twice.items()):
        erasures.note(session, model_id, labels, -1)
    session.execute(_RENAME_ERASURES, named)
    requests = {
        *session.scalars(_DROP_TWICE_NAMED, named),
        *session.scalars(_RENAME_NAMED, named),
        *session.scalars(_NAMING_PERSONS, {"dataset": dataset_id, "persons": list(persons)}),
    }
    for request in session.scalars(
        sa.select(tables.ForgetRequest).where(tables.ForgetRequest.id.in_(requests))
    ):
        targets = [_marked(target, marks, persons) for target in request.body["targets"]]
        request.body = {**request.body, "targets": targets}


def persons_gone(session: orm.Session, dataset_id: uuid.UUID, subjects: set[str]) -> dict[str, str]:
    """The marks of those persons of whom no training sample is left."""
    sample = tables.Sample
    left = session.scalars(
        sa.select(sample.subject_id)
        .where(
            sample.dataset_id == dataset_id,
            sample.split == tables.TRAIN,
            sample.subject_id == sa.any_(sa.literal(sorted(subjects), database.Names())),
        )
        .distinct()
    )
    gone = sorted(subjects.difference(left))
    return {subject: tombstones.of_subject(dataset_id, subject) for subject in gone}


def _marked(
    target: dict[str, Any], marks: Mapping[str, str], persons: Mapping[str, str]
) -> dict[str, Any]:
    """A target without the ids of what is gone."""
    match target["kind"]:
        case "sample":
            return {**target, "ids": [marks.get(name, name) for name in target["ids"]]}
        case "subject":
            subject = target["subject_id"]
            return {**target, "subject_id": persons.get(subject, subject)}
        case _:
            return target
