"""What an unlearning job works on, fixed when it is first claimed.

Later attempts read the same plan, so a resumed job ends in the same bits as an undisturbed one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import recipes, specs
from service import batches, database, errors, jobs, ledger, models, storage, tables


@dataclass(frozen=True)
class Plan:
    """The pinned inputs of a job.

    ``forget_ids`` is the batch; ``previous_ids`` what earlier versions lack; ``withheld_ids`` what
    other batches are about to erase. The retain set is the training split without any of them.
    ``recipes`` are the rungs of the ladder; ``epochs_wanted`` those of the first before the
    policy's ``max_job_steps`` cut them, ``None`` where it did not.
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
    epochs_wanted: int | None = None

    @property
    def ladder(self) -> list[specs.UnlearningSpec]:
        """The recipes to try, one after another, until a result passes."""
        return [specs.UnlearningSpec.model_validate(recipe) for recipe in self.recipes]


def pinned(claimed: jobs.Claim) -> Plan:
    """The job's plan: made now if this is the first claim, read back otherwise."""
    plan = _kept(claimed.inputs)
    if plan is None:
        with database.transaction() as session:
            plan = _make(session, session.get_one(tables.Batch, claimed.subject_id))
        stored = storage.put([json.dumps(asdict(plan), sort_keys=True).encode()])
        inputs = jobs.pin_inputs(
            claimed,
            {
                "plan": stored.digest,
                "base_version": plan.base_version,
                "target_digest": plan.target_digest,
                "recipes": plan.recipes,
                "seed": plan.ladder[0].seed,
            },
        )
        plan = _read(inputs)
    return plan


def of_version(session: orm.Session, version: tables.Version) -> Plan:
    """The plan by which an unlearned version was made.

    Raises :class:`errors.Conflict` (``plan-missing``) where it is not kept whole.
    """
    job = None if version.job_id is None else session.get(tables.Job, version.job_id)
    plan = None if job is None else _kept(job.inputs)
    if plan is None:
        detail = f"the plan that version {version.number} was made by is not in the store"
        raise errors.Conflict("plan-missing", detail)
    return plan


def without_erased(session: orm.Session, version: tables.Version, plan: Plan) -> Plan:
    """The plan of a version with everything withheld that its model must forget since.

    Whatever the version itself erased stays in its sets: nothing but ``withheld_ids`` differs.
    """
    model = session.get_one(tables.Model, version.model_id)
    own = {*plan.forget_ids, *plan.previous_ids}
    named = {*plan.withheld_ids, *_named(session, model, sa.true())}
    return replace(plan, withheld_ids=sorted(named - own))


def _kept(inputs: dict[str, Any] | None) -> Plan | None:
    """The plan that a job's inputs name, if it is in the store whole."""
    if inputs is None or not storage.is_intact(inputs["plan"]):
        return None
    return _read(inputs)


def _read(inputs: dict[str, Any]) -> Plan:
    return Plan(**json.loads(storage.read(inputs["plan"])))


def _make(session: orm.Session, batch: tables.Batch) -> Plan:
    model = session.get_one(tables.Model, batch.model_id)
    if model.head is None:
        raise errors.Conflict("model-not-ready", f"model {model.name!r} has no head version")
    forget_ids = batches.sample_ids(session, batch.id)
    kind: specs.ForgetKind = "class" if batch.kind == "class" else "samples"
    previous_ids = _named(session, model, tables.Erasure.version.is_not(None))
    left = ledger.training_size(model) - len(forget_ids) - len(previous_ids)
    whole = ladder = recipes.ladder(kind, len(forget_ids), left, batch.method)
    most_steps = models.policy_of(model).max_job_steps
    if most_steps is not None:
        ladder = recipes.within(whole, len(forget_ids), left, most_steps)
    return Plan(
        model=model.name,
        dataset=model.dataset.name,
        kind=kind,
        base_version=model.head,
        recipes=[spec.model_dump(mode="json") for spec in ladder],
        forget_ids=forget_ids,
        previous_ids=previous_ids,
        withheld_ids=_named(
            session,
            model,
            sa.and_(tables.Erasure.version.is_(None), tables.Erasure.batch_id != batch.id),
        ),
        excluded_labels=ledger.forgotten_labels(session, model),
        target_digest=ledger.ids_digest(forget_ids),
        epochs_wanted=None if ladder[0] in whole else whole[0].epochs,
    )


def _named(
    session: orm.Session, model: tables.Model, condition: sa.ColumnElement[bool]
) -> list[str]:
    return list(
        session.scalars(
            sa.select(tables.Erasure.sample_id)
            .where(tables.Erasure.model_id == model.id, condition)
            .order_by(tables.Erasure.sample_id)
        )
    )
