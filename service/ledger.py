"""Targets of a request, resolved against the training set that the model was trained on.

Only training samples are matched: a request for data that was never trained on can wreck a model
(arXiv 2410.09591), so unknown ids never get further than this module.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import phrases, specs
from service import concepts, database, errors, families, models, tables, tombstones

MAX_PROBLEMS = 20


def _samples_by_id() -> sa.Select[str, int | None, Sequence[str]]:
    sample = tables.Sample
    ids = sa.func.array_agg(sample.sample_id, type_=sa.ARRAY(sa.Text)).label("ids")
    named = sa.any_(sa.bindparam("ids", type_=database.Names))
    return (
        sa.select(sample.split, sample.label, ids)
        .where(sample.dataset_id == sa.bindparam("dataset"), sample.sample_id == named)
        .group_by(sample.split, sample.label)
    )


_SAMPLES = _samples_by_id()  # every submission runs it: it is built once


@dataclass(frozen=True)
class Resolution:
    """What a list of targets names: training samples with labels, concepts; what was not found."""

    labels: dict[str, int | None]  # sample id → label
    concepts: tuple[specs.ConceptTarget, ...]
    by_concept: frozenset[str]  # those of the samples that a concept names first
    unknown: tuple[errors.Problem, ...]  # one for each id that names no training sample
    unusable: tuple[errors.Problem, ...]  # targets that cannot be served at all


def resolve(
    session: orm.Session, model: tables.Model, targets: Sequence[specs.Target]
) -> Resolution:
    """Look every target up. Raises nothing: the caller decides what unknown ids mean."""
    labels: dict[str, int | None] = {}
    by_concept: set[str] = set()
    unknown: list[errors.Problem] = []
    unusable: list[errors.Problem] = []
    known = _concepts(session, model, targets)
    for index, target in enumerate(targets):
        pointer = f"/targets/{index}"
        match target:
            case specs.SampleTarget():
                found, missing = _samples(session, model, target, pointer)
                unknown += missing
            case specs.ClassTarget():
                found, missing = _class(session, model, target, pointer)
                unusable += missing
            case specs.SubjectTarget():
                found, missing = _subject(session, model, target, pointer)
                unusable += missing
            case specs.ConceptTarget():
                found, missing = _concept(session, model, target, pointer, known)
                unusable += missing
                if phrases.normal(target.concept) not in known.before:
                    by_concept.update(found)
        labels.update(found)
    return Resolution(
        labels, tuple(known.named.values()), frozenset(by_concept), tuple(unknown), tuple(unusable)
    )


def _samples(
    session: orm.Session, model: tables.Model, target: specs.SampleTarget, pointer: str
) -> tuple[dict[str, int | None], list[errors.Problem]]:
    dataset = model.dataset
    found: dict[str, int | None] = {}
    elsewhere: dict[str, str] = {}
    for split, label, ids in session.execute(_SAMPLES, {"dataset": dataset.id, "ids": target.ids}):
        if split == tables.TRAIN:
            found.update(dict.fromkeys(ids, label))
        else:
            elsewhere.update(dict.fromkeys(ids, split))
    gone: dict[str, str] = {}
    rest = [one for one in target.ids if one not in found and one not in elsewhere]
    if rest:
        gone = tombstones.known(session, dataset.id, rest, _erased_by(model))
        found |= dict.fromkeys(gone.values())
    problems = []
    for index, sample_id in enumerate(target.ids):
        if sample_id in found or sample_id in gone:
            continue
        where = f"{pointer}/ids/{index}"
        if sample_id in elsewhere:
            detail = f"this sample is in split {elsewhere[sample_id]}; expected one trained on"
            problems.append(errors.Problem(where, "not-in-training-set", detail))
        else:
            detail = f"no such sample in dataset {dataset.name!r}"
            problems.append(errors.Problem(where, "unknown-sample", detail))
    return found, problems


def _class(
    session: orm.Session, model: tables.Model, target: specs.ClassTarget, pointer: str
) -> tuple[dict[str, int | None], list[errors.Problem]]:
    dataset = model.dataset
    if families.FAMILIES[models.family_of(model)].needs != "label":
        detail = (
            f"got a class for model {model.name!r}, which is asked in words; expected a concept, "
            'for example {"kind": "concept", "concept": "twemoji", "replacement": "fluent"}'
        )
        return {}, [errors.Problem(f"{pointer}/kind", "unsupported-target", detail)]
    if target.label not in dataset.label_names:
        known = ", ".join(dataset.label_names[:20]) or "none"
        detail = f"no class of dataset {dataset.name!r} has that name; it has {known}"
        return {}, [errors.Problem(f"{pointer}/label", "unknown-class", detail)]
    label = dataset.label_names.index(target.label)
    found = _trained(session, dataset.id, tables.Sample.label == label)
    found |= _gone(session, model, tables.Tombstone.label == label)
    if not found:
        detail = f"no training sample of dataset {dataset.name!r} has that label"
        return {}, [errors.Problem(f"{pointer}/label", "unknown-class", detail)]
    return found, []


@dataclass(frozen=True)
class _Concepts:
    """Concepts by name: of this demand, and of those before it on the same model."""

    named: Mapping[str, specs.ConceptTarget]
    before: Mapping[str, specs.ConceptTarget]


def _concepts(
    session: orm.Session, model: tables.Model, targets: Sequence[specs.Target]
) -> _Concepts:
    """Of two targets for one concept the first counts, in a demand and over all of them."""
    named = {
        phrases.normal(target.concept): target
        for target in reversed(targets)
        if isinstance(target, specs.ConceptTarget) and target.concept.strip()
    }
    return _Concepts(named, concepts.demanded(session, model.id) if named else {})


def _concept(
    session: orm.Session,
    model: tables.Model,
    target: specs.ConceptTarget,
    pointer: str,
    known: _Concepts,
) -> tuple[dict[str, int | None], list[errors.Problem]]:
    if families.FAMILIES[models.family_of(model)].needs != "text":
        detail = (
            f"got a concept for model {model.name!r} of family {model.family!r}; expected a class, "
            'for example {"kind": "class", "label": "seven"}, a sample or a subject '
            "(concepts belong to text-to-image models)"
        )
        return {}, [errors.Problem(f"{pointer}/kind", "unsupported-target", detail)]
    if not target.concept.strip() or not target.replacement.strip():
        detail = "got a blank concept or replacement, expected words"
        return {}, [errors.Problem(pointer, "blank-concept", detail)]
    if phrases.matcher(target.concept, target.prompts)(target.replacement):
        detail = "the replacement names the concept itself; expected what shall be drawn instead"
        return {}, [errors.Problem(f"{pointer}/replacement", "replacement-is-concept", detail)]
    name = phrases.normal(target.concept)
    found = concepts.samples(
        session, model.dataset, tables.TRAIN, known.before.get(name, known.named[name])
    )
    if name in known.before:  # its replacement stands since then
        return found, []
    return found, _erased_replacement(target, pointer, known)


def _erased_replacement(
    target: specs.ConceptTarget, pointer: str, known: _Concepts
) -> list[errors.Problem]:
    others = {**known.named, **known.before}
    del others[phrases.normal(target.concept)]
    for other in others.values():
        if phrases.matcher(other.concept, other.prompts)(target.replacement):
            detail = (
                "the replacement names another concept, which the model forgets too; expected "
                "what it may go on drawing"
            )
            return [errors.Problem(f"{pointer}/replacement", "replacement-is-erased", detail)]
    return []


def _subject(
    session: orm.Session, model: tables.Model, target: specs.SubjectTarget, pointer: str
) -> tuple[dict[str, int | None], list[errors.Problem]]:
    dataset = model.dataset
    found = _trained(session, dataset.id, tables.Sample.subject_id == target.subject_id)
    mark = tombstones.of_subject(dataset.id, target.subject_id)
    found |= _gone(session, model, tables.Tombstone.subject_mark == mark)
    if not found:
        detail = f"no training sample of dataset {dataset.name!r} has that subject_id"
        return {}, [errors.Problem(f"{pointer}/subject_id", "unknown-subject", detail)]
    return found, []


def _gone(
    session: orm.Session, model: tables.Model, condition: sa.ColumnElement[bool]
) -> dict[str, int | None]:
    """Marks of samples that were deleted after they were erased; they need no label any more."""
    found = sa.and_(condition, _erased_by(model))
    return dict.fromkeys(tombstones.marked_samples(session, model.dataset_id, found))


def _erased_by(model: tables.Model) -> sa.ColumnElement[bool]:
    """Beside a tombstone: whether this model has erased the sample.

    One that began to be served after the sample was deleted cannot forget it by it.
    """
    return sa.exists().where(
        tables.Erasure.model_id == model.id,
        tables.Erasure.sample_id == tables.Tombstone.sample_mark,
    )


def _trained(
    session: orm.Session, dataset_id: uuid.UUID, condition: sa.ColumnElement[bool]
) -> dict[str, int | None]:
    sample = tables.Sample
    return dict(
        session.execute(
            sa.select(sample.sample_id, sample.label).where(
                sample.dataset_id == dataset_id, sample.split == tables.TRAIN, condition
            )
        ).all()
    )


def deleted(session: orm.Session, model: tables.Model, sample_ids: Sequence[str]) -> dict[str, str]:
    """Those of these samples that a disposal has deleted meanwhile, with their marks."""
    there = labels_of(session, model, sample_ids)
    missing = [name for name in sample_ids if name not in there]
    marks = {name: name for name in missing if name.startswith(tombstones.PREFIX)}
    ids = [name for name in missing if name not in marks]
    return marks | tombstones.known(session, model.dataset_id, ids, sa.true())


def labels_of(
    session: orm.Session, model: tables.Model, sample_ids: Sequence[str]
) -> dict[str, int | None]:
    """The label of each of these training samples."""
    return _trained(session, model.dataset_id, _is_one_of(sample_ids))


def classes_without(
    session: orm.Session, model: tables.Model, sample_ids: Sequence[str]
) -> set[int]:
    """Labels of which training keeps nothing when it goes without these samples.

    None of a model that is asked in words: it has no classes.
    """
    if families.FAMILIES[models.family_of(model)].needs != "label":
        return set()
    sample = tables.Sample
    lost = session.execute(
        sa.select(sample.label, sa.func.count())
        .where(
            sample.dataset_id == model.dataset_id,
            sample.split == tables.TRAIN,
            sample.label.is_not(None),
            _is_one_of(sample_ids),
        )
        .group_by(sample.label)
    )
    sizes = model.dataset.class_sizes
    return {
        label for label, count in lost if label is not None and count >= sizes.get(str(label), 0)
    }


def _is_one_of(sample_ids: Sequence[str]) -> sa.ColumnElement[bool]:
    return tables.Sample.sample_id == sa.any_(sa.literal(list(sample_ids), database.Names()))
