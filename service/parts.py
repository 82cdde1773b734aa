"""What of a demand is unlearned and judged together: concepts, whole classes, and the rest."""

import collections
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import specs
from service import erasures, families, models, tables


def _labels_with_nothing_left() -> sa.Select[int]:
    sample, erasure = tables.Sample, tables.Erasure
    is_erased = sa.exists().where(
        erasure.model_id == sa.bindparam("model"), erasure.sample_id == sample.sample_id
    )
    asked = (
        sa.func.unnest(sa.bindparam("labels", type_=sa.ARRAY(sa.Integer)))
        .table_valued(sa.column("label", sa.Integer))
        .render_derived("asked")
    )
    left = (
        sa.select(sample.sample_id)
        .where(
            sample.dataset_id == sa.bindparam("dataset"),
            sample.split == tables.TRAIN,
            sample.label == asked.c.label,
            # An array that is known when planning: PostgreSQL looks names up in it by a hash.
            sample.sample_id != sa.all_(sa.bindparam("ids", type_=sa.ARRAY(sa.Text))),
            ~is_erased,
        )
        # Not EXISTS: that becomes a join over the whole class, where one sample left is enough.
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(asked.c.label).where(left.is_(None))


_WHOLE_LABELS = _labels_with_nothing_left()  # built once


@dataclass(frozen=True)
class Part:
    """What of a demand is unlearned and judged together; a concept may have no sample."""

    sample_ids: tuple[str, ...]
    concepts: tuple[specs.ConceptTarget, ...] = ()


def of(
    session: orm.Session,
    model: tables.Model,
    labels: dict[str, int | None],
    named: Sequence[specs.ConceptTarget] = (),
    by_concept: Collection[str] = (),
) -> dict[specs.ForgetKind, Part]:
    """Split what is named into concepts, whole classes and the rest.

    A class counts as whole when nothing of it is left in training: what is named here and what was
    named before cover it. A model that is asked in words has no classes. ``labels`` maps sample
    ids to labels; ``by_concept`` are those of them that the concepts name.
    """
    rest = {key: label for key, label in labels.items() if key not in by_concept}
    is_labelled = families.FAMILIES[models.family_of(model)].needs == "label"
    whole = _whole_labels(session, model, rest) if is_labelled else set()
    ids: dict[specs.ForgetKind, list[str]] = {}
    for sample_id, label in rest.items():
        ids.setdefault("class" if label in whole else "samples", []).append(sample_id)
    parts = {kind: Part(tuple(chosen)) for kind, chosen in ids.items()}
    if named:
        parts["concept"] = Part(tuple(key for key in labels if key in by_concept), tuple(named))
    return parts


def _whole_labels(
    session: orm.Session, model: tables.Model, labels: dict[str, int | None]
) -> set[int]:
    """Labels whose training samples are all named: by ``labels``, or by a demand before."""
    named = collections.Counter(label for label in labels.values() if label is not None)
    before = erasures.count_of(session, model, named)
    sizes = model.dataset.class_sizes
    nearly = [label for label in named if named[label] + before[label] >= sizes.get(str(label), 0)]
    if not nearly:
        return set()  # nobody need look which are left
    asked = {
        "dataset": model.dataset_id,
        "model": model.id,
        "ids": list(labels),
        "labels": nearly,
    }
    # A prepared plan for any array would compare every name with every sample.
    session.execute(sa.text("SET LOCAL plan_cache_mode = force_custom_plan"))
    return set(session.scalars(_WHOLE_LABELS, asked))
