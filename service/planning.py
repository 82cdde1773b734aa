"""Makes the plan of an unlearning job when it is first claimed.

Later attempts read the same plan, so a resumed job ends in the same bits as an undisturbed one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import specs
from service import (
    batches,
    composing,
    concepts,
    database,
    destruction,
    erasures,
    errors,
    families,
    jobs,
    ledger,
    models,
    plans,
    renaming,
    splitting,
    tables,
    tombstones,
    versions,
)


def pinned(claimed: jobs.Claim) -> plans.Plan:
    """The job's plan: made at the first claim and read back later.

    Made again where the model has got another head since; what was computed by the old one goes.
    """
    plan = plans.kept(claimed.inputs)
    if plan is None:
        return _pin(claimed)
    if _is_outdated(plan):
        _discard(claimed)
        return _pin(claimed)
    return plan


def of_upload(session: orm.Session, version: tables.Version) -> plans.Plan | None:
    """What an uploaded version is asked about: all that its model has erased before it came.

    But for what is deleted already, and of generators single samples. ``None`` where nothing is
    left to ask.
    """
    model = session.get_one(tables.Model, version.model_id)
    previous = _erased_before(session, model)
    kept = ledger.labels_of(session, model, list(previous))
    gone = concepts.targets(session, concepts.erased_by(model.id))
    labels = sorted(set(erasures.forgotten_labels(session, model)).intersection(kept.values()))
    if not (gone or labels or (kept and model.family == "classifier")):
        return None
    return plans.Plan(
        model=model.name,
        dataset=model.dataset.name,
        kind="samples",
        base_version=version.number,
        recipes=(),
        forget_ids=(),
        previous_ids=[name for name in previous if name in kept],
        previous_by=[number for name, number in previous.items() if name in kept],
        withheld_ids=(),
        excluded_labels=labels,
        target_digest=tombstones.of_targets([]),
        family=models.family_of(model),
        previous_concepts=[one.model_dump(mode="json") for one in gone],
        sampling=models.policy_of(model).sampling.model_dump(mode="json"),
    )


def _pin(claimed: jobs.Claim) -> plans.Plan:
    """Make the plan, unless it is pinned; how often batches were halved holds for any plan."""
    _let_disposal_end(claimed)
    with database.transaction() as session:
        batch = session.get_one(tables.Batch, claimed.subject_id)
        batches.hold(session, batch.model_id)  # a part may become a batch of its own
        jobs.check(session, claimed)
        plan = _make(session, batch)
    inputs = {
        "plan": plans.keep(plan),
        "base_version": plan.base_version,
        "target_digest": plan.target_digest,
        "recipes": plan.recipes,
        "seed": plan.ladder[0].seed,
    }
    before = claimed.inputs or {}
    if jobs.BATCH_HALVINGS in before:
        inputs[jobs.BATCH_HALVINGS] = before[jobs.BATCH_HALVINGS]
    return plans.read(jobs.pin_inputs(claimed, inputs))


def _let_disposal_end(claimed: jobs.Claim) -> None:
    """Wait for one for another model over the same data: it deletes samples and renames their ids.

    One that comes later sees that this job runs, and deletes nothing. Nothing is held meanwhile
    that submissions wait for.
    """
    with database.transaction() as session:
        batch = session.get_one(tables.Batch, claimed.subject_id)
        model = session.get_one(tables.Model, batch.model_id)
        session.get_one(tables.Dataset, model.dataset_id, with_for_update={"read": True})


def _is_outdated(plan: plans.Plan) -> bool:
    with database.transaction() as session:
        return models.by_name(session, plan.model).head != plan.planned_on


def _discard(claimed: jobs.Claim) -> None:
    """Take a job's plan back, and the steps that were taken by it."""
    with database.transaction() as session:
        job = jobs.hold(session, claimed)
        destruction.condemn(session, jobs.artifacts(session, job))
        session.execute(sa.delete(tables.JobStep).where(tables.JobStep.job_id == job.id))
        job.inputs = None


def _still_there(session: orm.Session, model: tables.Model, batch: tables.Batch) -> list[str]:
    """The batch's samples but those that were deleted while they were demanded again.

    Of these a demand wrote the ids once more: they become marks now.
    """
    named = batches.sample_ids(session, batch.id)
    deleted = ledger.deleted(session, model, named)
    if deleted:
        subjects = batches.subject_ids(session, batch.id)
        persons = renaming.persons_gone(session, model.dataset_id, subjects)
        renaming.to_marks(session, model.dataset_id, deleted, persons)
    return [name for name in named if name not in deleted]


def _make(session: orm.Session, batch: tables.Batch) -> plans.Plan:
    model = session.get_one(tables.Model, batch.model_id)
    if model.head is None:
        raise errors.Conflict("model-not-ready", f"model {model.name!r} has no head version")
    forget_ids = _still_there(session, model, batch)
    kind = cast("specs.ForgetKind", batch.kind)
    previous = _erased_before(session, model)
    previous_ids = list(previous)
    bound_ids = _about_to_be_served(session, model, batch, tables.Batch.state != "open")
    gone = [*forget_ids, *previous_ids, *bound_ids]
    whole = ledger.classes_without(session, model, gone)
    withheld_ids = [*bound_ids, *_open_to_withhold(session, model, batch, gone, whole)]
    if kind != "concept":
        named = forget_ids
        kind, forget_ids = _of_one_kind(session, model, batch, named, whole)
        if batch.parent_id is None:  # see _about_to_be_served
            withheld_ids += set(named) - set(forget_ids)
    withheld_ids.sort()
    left = model.training_size - len(forget_ids) - len(previous_ids)
    composed = composing.decide(session, model)
    excluded = erasures.forgotten_labels(session, model)
    anew = []
    if composed.base_version != model.head:
        base = versions.by_number(session, model, composed.base_version)
        anew = erasures.samples(
            session, model, tables.Erasure.version.not_in(versions.forgets(base))
        )
    request = _Asked(kind, len(forget_ids) + len(anew), left, batch.method)
    if kind == "class" and erasures.any_of_other_labels(session, model, anew, excluded):
        request = request.as_samples()
    ladder, wanted = _ladder(session, model, request)
    if composed.retrain_first:
        ladder = sorted(ladder, key=lambda spec: spec.method != "retrain")
    targets = batches.concept_targets(session, batch.id)
    before = concepts.targets(session, concepts.erased_by(model.id))
    return plans.Plan(
        model=model.name,
        dataset=model.dataset.name,
        kind=kind,
        base_version=composed.base_version,
        head_version=model.head,
        composition=composed.name,
        recipes=[spec.model_dump(mode="json") for spec in ladder],
        forget_ids=forget_ids,
        previous_ids=previous_ids,
        previous_by=list(previous.values()),
        withheld_ids=withheld_ids,
        excluded_labels=excluded,
        withheld_labels=sorted(
            ledger.classes_without(session, model, [*previous_ids, *withheld_ids]) - {*excluded}
        ),
        target_digest=tombstones.of_targets([*forget_ids, *(one.concept for one in targets)]),
        family=models.family_of(model),
        concepts=[one.model_dump(mode="json") for one in targets],
        previous_concepts=[one.model_dump(mode="json") for one in before],
        sampling=models.policy_of(model).sampling.model_dump(mode="json"),
        wanted=wanted,
    )


def _of_one_kind(
    session: orm.Session,
    model: tables.Model,
    batch: tables.Batch,
    sample_ids: Sequence[str],
    whole: Collection[int],
) -> tuple[specs.ForgetKind, list[str]]:
    """The kind of a batch as things are now, and those of its samples that are of that kind.

    ``whole`` are the classes of which training keeps nothing. Others took back what they wanted
    forgotten of a class, or wait for a person: what is kept of it must stay as good as it was, and
    the rest look like what was never seen. Or others name all the rest of it meanwhile: then
    nothing shall be given for it any more. What is of the other kind than the rest becomes a batch
    of its own.
    """
    label_of = ledger.labels_of(session, model, sample_ids) if whole else {}
    kinds: dict[specs.ForgetKind, list[str]] = {}
    for name in sample_ids:
        own: specs.ForgetKind = "class" if label_of.get(name) in whole else "samples"
        kinds.setdefault(own, []).append(name)
    kind = cast("specs.ForgetKind", batch.kind)
    if kind not in kinds:
        kind = next(iter(kinds), kind)
    for other in kinds.keys() - {kind}:
        splitting.set_apart(session, batch, other, kinds[other])
    return kind, kinds.get(kind, [])


@dataclass(frozen=True)
class _Asked:
    """What the recipes follow from."""

    kind: specs.ForgetKind
    forget_count: int
    retain_count: int
    pinned: Mapping[str, Any]

    def as_samples(self) -> "_Asked":
        """For a class together with samples of other classes.

        Matched targets spread a class of which nothing is kept by themselves; a search along the
        way would compare that class with unseen samples.
        """
        return replace(self, kind="samples", pinned={"line_search": False, **self.pinned})


def _ladder(
    session: orm.Session, model: tables.Model, asked: _Asked
) -> tuple[Sequence[specs.Recipe], Mapping[str, int] | None]:
    """The rungs, and how long the first was to be where it had to be cut."""
    family = families.FAMILIES[models.family_of(model)]
    head = versions.by_number(session, model, model.head or 0)
    size = sum(file.size for file in versions.files_of(session, head))
    most = family.most_retrained_bytes
    ladder: tuple[specs.Recipe, ...] = family.recipes.ladder(
        asked.kind,
        asked.forget_count,
        asked.retain_count,
        asked.pinned,
        retrain=most is None or size <= most,
    )
    most_steps = models.policy_of(model).max_job_steps
    if most_steps is None:
        return ladder, None
    affordable = family.recipes.within(ladder, asked.forget_count, asked.retain_count, most_steps)
    if affordable[0] in ladder:
        return affordable, None
    first = ladder[0].model_dump(include={"epochs", "steps"})
    return affordable, first


def _open_to_withhold(
    session: orm.Session,
    model: tables.Model,
    batch: tables.Batch,
    gone: Sequence[str],
    whole: Collection[int],
) -> list[str]:
    """What others may still take back, and the job is not to train on either.

    But for classes that would be lost with it: of ``gone`` alone only ``whole`` ones are.
    """
    named = _about_to_be_served(session, model, batch, tables.Batch.state == "open")
    at_risk = ledger.classes_without(session, model, [*gone, *named]) - {*whole}
    label_of = ledger.labels_of(session, model, named) if at_risk else {}
    return [name for name in named if label_of.get(name) not in at_risk]


def _about_to_be_served(
    session: orm.Session,
    model: tables.Model,
    batch: tables.Batch,
    condition: sa.ColumnElement[bool],
) -> list[str]:
    """What other batches that fulfil a condition are to erase, sorted.

    Not those under suspicion: where a batch failed because of what another part of it names, every
    part would fail that goes without the same. Until somebody has decided, the model keeps it.
    """
    other = tables.Batch
    others = sa.select(other.id).where(
        other.model_id == batch.model_id,
        other.id != batch.id,
        other.parent_id.is_(None),
        other.state != "blocked",
        condition,
    )
    erasure = tables.Erasure
    return erasures.samples(
        session, model, sa.and_(erasure.version.is_(None), erasure.batch_id.in_(others))
    )


def _erased_before(session: orm.Session, model: tables.Model) -> dict[str, int]:
    """Sample ids in order, and the version that forgot each."""
    erasure = tables.Erasure
    found = session.execute(
        sa.select(erasure.sample_id, erasure.version)
        .where(erasure.model_id == model.id, erasure.version.is_not(None))
        .order_by(erasure.sample_id)
    )
    return {sample_id: version for sample_id, version in found if version is not None}
