"""What the next version is made from, so that a model does not drift with every request.

``reanchor`` (default): from the anchor, forgetting anew all that was erased since it together with
the batch; however many requests came, a served version is one unlearning run away from a net that
was trained. ``chain``: from the served version, at most ``max_chain`` links, then anchored anew.
Once the anchor was purged, or bytes of what was erased since it are gone, the served version is the
next anchor. A net that lost too much accuracy against the first anchor is retrained.
"""

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import orm

from service import families, models, storage, tables, versions

Name = Literal["reanchor", "chain"]


@dataclass(frozen=True)
class Composition:
    """From which version a job starts, as what, and whether retraining is tried first."""

    name: Name
    base_version: int
    retrain_first: bool


def decide(session: orm.Session, model: tables.Model) -> Composition:
    """How the next job on a model composes with what was erased before."""
    head = versions.by_number(session, model, model.head or 0)
    policy = models.policy_of(model)
    retrain_first = float(head.lineage.get("drift", 0.0)) > policy.max_drift
    links = int(head.lineage.get("chain_length", 0))
    is_chained = policy.composition == "chain" and links < policy.max_chain
    if is_chained or not families.FAMILIES[models.family_of(model)].reanchors:
        return Composition("chain", head.number, retrain_first)
    anchor = versions.by_number(session, model, head.lineage.get("anchor", head.number))
    if not _is_usable(session, model, anchor):
        anchor = head
    return Composition("reanchor", anchor.number, retrain_first)


def lineage(
    session: orm.Session,
    model: tables.Model,
    composition: Name,
    base_version: int,
    *,
    retrained: bool,
    lost_accuracy: float,
) -> dict[str, Any]:
    """Where a version comes from: ``forgets`` names the versions whose erasures it has too.

    Args:
        session: the publishing transaction's.
        model: its head is the newest version that forgot.
        composition: of the plan.
        base_version: whose weights the run started from.
        retrained: nothing of the base's weights is in it: it is an anchor itself.
        lost_accuracy: on the test set against the base, in [-1, 1].
    """
    head = versions.by_number(session, model, model.head or 0)
    base = versions.by_number(session, model, base_version)
    drift = 0.0 if retrained else float(base.lineage.get("drift", 0.0)) + lost_accuracy
    told = {"forgets": versions.forgets(head), "drift": round(drift, 6), "composition": composition}
    if retrained:
        return {**told, "composition": "retrain", "anchor": None, "chain": [], "chain_length": 0}
    is_anchored = composition == "reanchor"
    chain = [base.number] if is_anchored else [*base.lineage.get("chain", []), base.number]
    anchor = base.number if is_anchored else base.lineage.get("anchor", base.number)
    return {**told, "anchor": anchor, "chain": chain, "chain_length": len(chain)}


def _is_usable(session: orm.Session, model: tables.Model, anchor: tables.Version) -> bool:
    """Whether all that a run from the anchor needs is still there."""
    if anchor.state == "purged" or _lost_samples(session, model, anchor):
        return False
    files = versions.files_of(session, anchor)
    return all(storage.exists(file.digest) for file in files)


def _lost_samples(session: orm.Session, model: tables.Model, anchor: tables.Version) -> bool:
    """Whether samples that were erased since the anchor are in the ledger no more."""
    erasure, sample = tables.Erasure, tables.Sample
    lost = (
        sa.select(erasure.sample_id)
        .outerjoin(
            sample,
            sa.and_(sample.dataset_id == model.dataset_id, sample.sample_id == erasure.sample_id),
        )
        .where(
            erasure.model_id == model.id,
            erasure.version.not_in(versions.forgets(anchor)),
            sample.sample_id.is_(None),
        )
        .limit(1)
    )
    return session.scalar(lost) is not None
