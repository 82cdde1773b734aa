"""A plan: what an unlearning job works on, kept as JSON in the store beside what the job makes.

``service.planning`` makes it; reports, audits and disposal read it afterwards.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import generation_specs, specs
from service import (
    composing,
    destruction,
    erasures,
    errors,
    families,
    ledger,
    pace,
    storage,
    tables,
)


@dataclass(frozen=True)
class Plan:
    """The pinned inputs of a job.

    ``forget_ids`` is the batch; ``previous_ids`` what earlier versions lack, ``previous_by`` the
    version that forgot each of them; ``withheld_ids`` what other batches are about to erase; what
    can still be taken back only as far as no class is lost with it. The retain set is the training
    split without any of them. Classes with nothing left were erased before (``excluded_labels``) or
    are to be next (``withheld_labels``: nothing is asked of them).
    A run starts from ``base_version`` and replaces ``head_version``; ``composition`` says whether
    what was erased before is forgotten anew (``reanchor``) or was forgotten already (``chain``).
    ``recipes`` are the rungs of the ladder; ``wanted`` is how long the first was to be (``epochs``
    or ``steps``) before the policy's ``max_job_steps`` cut it, ``None`` where it did not. Of a
    generator, ``concepts`` are those of the batch and ``previous_concepts`` those that earlier
    versions no longer draw; JSON, like ``sampling``.
    """

    model: str
    dataset: str
    kind: specs.ForgetKind
    base_version: int
    recipes: Sequence[dict[str, Any]]
    forget_ids: Sequence[str]
    previous_ids: Sequence[str]
    withheld_ids: Sequence[str]
    excluded_labels: Sequence[int]
    target_digest: str
    family: specs.Family = "classifier"
    concepts: Sequence[dict[str, Any]] = ()
    withheld_labels: Sequence[int] = ()
    previous_by: Sequence[int] = ()
    previous_concepts: Sequence[dict[str, Any]] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, int] | None = None
    head_version: int | None = None
    composition: composing.Name = "chain"

    @property
    def absent_labels(self) -> tuple[int, ...]:
        """Classes, but the batch's own, of which training keeps nothing."""
        return tuple(sorted({*self.excluded_labels, *self.withheld_labels}))

    @property
    def planned_on(self) -> int:
        """The version that was served when the plan was made; no other may be served since."""
        return self.base_version if self.head_version is None else self.head_version

    @property
    def forgets_anew(self) -> bool:
        """Whether the base still knows what was erased before: it is forgotten together."""
        return self.base_version != self.planned_on

    @property
    def ladder(self) -> list[Any]:
        """The recipes to try, one after another, until a result passes; the family's own specs."""
        parse = families.FAMILIES[self.family].recipes.parse
        return [parse(recipe) for recipe in self.recipes]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to forget."""
        return not self.forget_ids and not self.concepts

    @property
    def concept_targets(self) -> tuple[specs.ConceptTarget, ...]:
        """The concepts of the batch."""
        return tuple(map(specs.ConceptTarget.model_validate, self.concepts))

    @property
    def previous_targets(self) -> tuple[specs.ConceptTarget, ...]:
        """The concepts that were erased before."""
        return tuple(map(specs.ConceptTarget.model_validate, self.previous_concepts))

    @property
    def sampled(self) -> generation_specs.Sampling:
        """How the model is sampled from."""
        return generation_specs.Sampling.model_validate(self.sampling)


def keep(plan: Plan) -> str:
    """Store a plan; returns its digest, which stands in the job's inputs."""
    content = json.dumps(asdict(plan), sort_keys=True).encode()
    return storage.put([content], destruction.arriving).digest


def kept(inputs: dict[str, Any] | None) -> Plan | None:
    """The plan that a job's inputs name, if it is in the store whole."""
    if inputs is None or not storage.is_intact(inputs["plan"]):
        return None
    return read(inputs)


def read(inputs: dict[str, Any]) -> Plan:
    """The plan that a job's inputs name."""
    return Plan(**json.loads(storage.read(inputs["plan"])))


def of_version(session: orm.Session, version: tables.Version) -> Plan:
    """The plan by which an unlearned version was made.

    Raises :class:`errors.Conflict` (``plan-missing``) where it is not kept whole.
    """
    job = None if version.job_id is None else session.get(tables.Job, version.job_id)
    plan = None if job is None else kept(job.inputs)
    if plan is None:
        detail = f"the plan that version {version.number} was made by is not in the store"
        raise errors.Conflict("plan-missing", detail)
    return plan


def without_erased(session: orm.Session, version: tables.Version, plan: Plan) -> Plan:
    """The plan of a version with everything withheld that its model must forget since.

    Whatever the version itself erased stays in its sets, but for what it took of a class that has
    lost everything since: nets that are retrained for comparison do not know that class, so nothing
    is asked of it. Raises :class:`errors.Conflict` (``nothing-to-audit``) where that was all.
    """
    model = session.get_one(tables.Model, version.model_id)
    own = {*plan.forget_ids, *plan.previous_ids}
    named = {*plan.withheld_ids, *erasures.samples(session, model, sa.true())}
    withheld = sorted(named - own)
    gone = ledger.classes_without(session, model, [*own, *withheld])
    gone -= ledger.classes_without(session, model, list(own))  # the version's own doing
    labels = sorted({*plan.withheld_labels, *gone})
    label_of = ledger.labels_of(session, model, plan.forget_ids) if gone else {}
    forget = [one for one in plan.forget_ids if label_of.get(one) not in gone]
    if plan.forget_ids and not forget:
        detail = (
            f"all that version {version.number} forgot is of classes that the model has forgotten "
            "as a whole since; audit the version that did so"
        )
        raise errors.Conflict("nothing-to-audit", detail)
    withheld = sorted({*withheld, *plan.forget_ids} - {*forget})
    return replace(plan, forget_ids=forget, withheld_ids=withheld, withheld_labels=labels)


def rename(session: orm.Session, dataset_id: uuid.UUID, marks: Mapping[str, str]) -> None:
    """Write the plans of finished jobs over a dataset anew, with marks for the ids of what is gone.

    Needs that no job over the dataset is half done.
    """
    planned = sa.select(tables.Job).where(
        tables.Job.line.in_(pace.lines_over(session, dataset_id)),
        tables.Job.inputs["plan"].as_string().is_not(None),
    )
    for job in session.scalars(planned):
        plan = kept(job.inputs)
        if plan is None or job.inputs is None:
            continue
        renamed = replace(
            plan,
            forget_ids=[marks.get(one, one) for one in plan.forget_ids],
            previous_ids=[marks.get(one, one) for one in plan.previous_ids],
            withheld_ids=[marks.get(one, one) for one in plan.withheld_ids],
        )
        if renamed != plan:
            destruction.condemn(session, [job.inputs["plan"]])
            job.inputs = {**job.inputs, "plan": keep(renamed)}
