"""Requests that one job serves. A batch is open until it is sealed; then its members are fixed."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from salun_core import phrases, specs
from service import concepts, database, erasures, errors, parts, tables

_IDS = sa.bindparam("ids", type_=database.Names)
IS_OPEN = tables.Batch.state == "open"
AWAITING_APPROVAL = "awaiting_approval"  # stage of a request that a second person must allow
_LOCK_SEED = 1  # keeps these advisory locks apart from others


def _lock_key(model_id: sa.SQLColumnExpression[uuid.UUID]) -> sa.ColumnElement[int]:
    return sa.func.hashtextextended(sa.cast(model_id, sa.Text), _LOCK_SEED)


# Every submission runs these: they are built once.
_OPEN_BATCH = sa.select(tables.Batch.id).where(
    tables.Batch.model_id == sa.bindparam("model"),
    tables.Batch.profile == sa.bindparam("profile"),
    IS_OPEN,
)
_MAKE_BATCH = (
    postgresql.insert(tables.core(tables.Batch)).on_conflict_do_nothing().returning(tables.Batch.id)
)
_CLAIMED = (
    postgresql.insert(tables.core(tables.Erasure))
    .from_select(
        ["model_id", "sample_id", "batch_id"],
        sa.select(
            sa.bindparam("model", type_=sa.Uuid),
            sa.func.unnest(_IDS),
            sa.bindparam("batch", type_=sa.Uuid),
        ),
    )
    .on_conflict_do_nothing()
    .returning(tables.Erasure.sample_id)
    .cte("claimed")
)
_CLAIM_SAMPLES = sa.select(sa.func.array_agg(_CLAIMED.c.sample_id, type_=sa.ARRAY(sa.Text)))
_ABSORB = sa.text(
    # Out of open batches of the same pinned method, into the batch of the whole class.
    "WITH moved AS ("
    "UPDATE erasure e SET batch_id = :batch FROM batch b WHERE e.model_id = :model "
    "AND e.sample_id = ANY(:ids) AND e.version IS NULL AND b.id = e.batch_id "
    "AND b.state = 'open' AND b.id <> :batch "
    "AND b.method = (SELECT method FROM batch WHERE id = :batch) "
    "RETURNING b.id AS batch_id, e.sample_id), "
    "followers AS ("
    "INSERT INTO batch_member (batch_id, request_id) "
    "SELECT DISTINCT CAST(:batch AS uuid), s.request_id FROM moved v "
    "JOIN batch_member m ON m.batch_id = v.batch_id "
    "JOIN request_sample s ON s.request_id = m.request_id AND s.sample_id = v.sample_id "
    "ON CONFLICT DO NOTHING) "
    "SELECT DISTINCT batch_id FROM moved"
).bindparams(sa.bindparam("batch", type_=sa.Uuid), sa.bindparam("model", type_=sa.Uuid), _IDS)
DROP_IDLE_MEMBERS = sa.text(
    # Who has nothing left in a batch waits for it no longer.
    "DELETE FROM batch_member m WHERE m.batch_id = :batch AND NOT EXISTS ("
    "SELECT 1 FROM erasure e JOIN request_sample s ON s.sample_id = e.sample_id "
    "WHERE e.batch_id = :batch AND s.request_id = m.request_id) AND NOT EXISTS ("
    "SELECT 1 FROM concept_erasure c JOIN request_concept r ON r.concept = c.concept "
    "WHERE c.batch_id = :batch AND r.request_id = m.request_id)"
).bindparams(sa.bindparam("batch", type_=sa.Uuid))
_EARLIER = sa.select(tables.Erasure.batch_id, erasures.served_version(tables.Erasure)).where(
    tables.Erasure.model_id == sa.bindparam("model"), tables.Erasure.sample_id == sa.any_(_IDS)
)
_EARLIER_CONCEPTS = sa.select(
    tables.ConceptErasure.batch_id, erasures.served_version(tables.ConceptErasure)
).where(
    tables.ConceptErasure.model_id == sa.bindparam("model"),
    tables.ConceptErasure.concept == sa.any_(_IDS),
)


@dataclass(frozen=True)
class Placement:
    """Where the samples and concepts of one kind went: new, under way, or gone already.

    ``batch_id`` is the batch that erases the new ones, ``fresh`` the samples among them;
    ``followed`` are those that erase the rest. The counts are of samples; ``erased_in`` tells of
    concepts too.
    """

    batch_id: uuid.UUID | None
    followed: frozenset[uuid.UUID]
    fresh: frozenset[str]
    pending: int
    already_erased: int
    erased_in: tuple[int, ...]  # the versions that lack what was erased before


def hold(session: orm.Session, model_id: uuid.UUID) -> None:
    """Keep every other transaction from joining or sealing batches of a model until this one ends.

    Who joins holds the same advisory lock shared (:func:`joining`), so joins go side by side. Row
    locks would not do: under a steady stream of shared ones a batch is never free to be sealed,
    while PostgreSQL serves advisory locks in the order in which they were asked for. Take it
    before any row lock on requests, batches or the model.
    """
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_key(sa.literal(model_id)))))


def joining() -> sa.ColumnElement[None]:
    """Column for the statement that reads ``tables.Model``: holds the shared lock from there on."""
    return sa.func.pg_advisory_xact_lock_shared(_lock_key(tables.Model.id))


def absorb(
    session: orm.Session, model: tables.Model, batch_id: uuid.UUID, sample_ids: Sequence[str]
) -> None:
    """Move samples that wait in other open batches into this one, with those who named them.

    A demand for a whole class takes the samples of it along: one job less, and they are judged as
    what they are. Needs the lock of :func:`hold`.
    """
    named = {"model": model.id, "batch": batch_id, "ids": sorted(sample_ids)}
    for emptied in session.scalars(_ABSORB, named).all():
        session.execute(DROP_IDLE_MEMBERS, {"batch": emptied})
        _withdraw_if_empty(session, by_id(session, emptied))


def place(
    session: orm.Session,
    model: tables.Model,
    kind: specs.ForgetKind,
    pinned: Mapping[str, Any],
    part: parts.Part,
    *,
    shared: bool,
    absorbing: bool = False,
) -> Placement:
    """Put samples and concepts of one kind into the model's open batch, or into one of their own.

    What another demand named first stays where it is: the request then follows that batch,
    or has it erased already. Needs the lock of :func:`joining`; membership is the caller's.
    With ``absorbing`` samples that wait in other open batches come along (see :func:`absorb`).
    """
    batch_id, is_new = _open_batch(session, model, kind, pinned, shared=shared)
    if absorbing:
        absorb(session, model, batch_id, part.sample_ids)
    placed = {"model": model.id, "batch": batch_id, "ids": sorted(part.sample_ids)}
    fresh = frozenset(session.scalar(_CLAIM_SAMPLES, placed) or ())
    fresh_concepts = concepts.claim(session, model.id, batch_id, part.concepts)
    is_joined = bool(fresh or fresh_concepts)
    rest = [sample_id for sample_id in part.sample_ids if sample_id not in fresh]
    earlier = session.execute(_EARLIER, {"model": model.id, "ids": rest}).all() if rest else []
    named = {phrases.normal(one.concept) for one in part.concepts} - fresh_concepts
    asked = {"model": model.id, "ids": sorted(named)}
    earlier_concepts = session.execute(_EARLIER_CONCEPTS, asked).all() if named else []
    placed_before = [*earlier, *earlier_concepts]
    if is_new and not is_joined and all(row.batch_id != batch_id for row in earlier):
        session.execute(sa.delete(tables.Batch).where(tables.Batch.id == batch_id))
    return Placement(
        batch_id=batch_id if is_joined else None,
        followed=frozenset(row.batch_id for row in placed_before if row.version is None),
        fresh=fresh,
        pending=sum(row.version is None for row in earlier),
        already_erased=sum(row.version is not None for row in earlier),
        erased_in=tuple(row.version for row in placed_before if row.version is not None),
    )


def require_open(session: orm.Session, request: tables.ForgetRequest) -> None:
    """Raise :class:`errors.Conflict` (``batch-sealed``) unless all its batches are open."""
    sealed = [batch for batch in joined(session, request) if batch.state != "open"]
    if sealed:
        detail = f"batch {sealed[0].id} of this request is sealed; it can no longer be withdrawn"
        raise errors.Conflict("batch-sealed", detail)


def leave(session: orm.Session, request: tables.ForgetRequest) -> None:
    """Take a request out of its batches; what no other member names is not erased."""
    left = joined(session, request)
    session.execute(
        sa.delete(tables.BatchMember).where(tables.BatchMember.request_id == request.id)
    )
    for batch in left:
        _drop_orphans(session, batch)
        if batch.kind == "class" and batch.state == "open":
            _sort_again(session, batch)


def is_held(request: tables.ForgetRequest) -> bool:
    """Whether a request waits for a second person, before it enters any batch."""
    return request.status == "action_required" and request.stage == AWAITING_APPROVAL


def profile(kind: str, pinned: Mapping[str, Any]) -> str:
    """What requests must have in common to share a batch: kind and pinned method."""
    return f"{kind}:{json.dumps(pinned, sort_keys=True)}"


def by_id(session: orm.Session, batch_id: uuid.UUID) -> tables.Batch:
    """The batch; raises :class:`errors.NotFound`."""
    batch = session.get(tables.Batch, batch_id)
    if batch is None:
        raise errors.NotFound("batch-not-found", f"no batch {batch_id}")
    return batch


def open_of(model_id: uuid.UUID) -> sa.Select[tables.Batch]:
    """The statement that yields the open batches of a model, oldest first."""
    batch = tables.Batch
    return sa.select(batch).where(batch.model_id == model_id, IS_OPEN).order_by(batch.opened_at)


def due_at(batch_id: sa.SQLColumnExpression[uuid.UUID] | uuid.UUID) -> sa.Select[Any]:
    """The statement that yields when the most urgent request of a batch is due."""
    return (
        sa.select(sa.func.min(tables.ForgetRequest.due_at))
        .join(tables.BatchMember, tables.BatchMember.request_id == tables.ForgetRequest.id)
        .where(tables.BatchMember.batch_id == batch_id)
    )


def why_blocked(session: orm.Session, batch_ids: Iterable[uuid.UUID]) -> str | None:
    """The reason why a person must decide on one of these batches, or ``None``."""
    blocked = sa.select(tables.Batch.id).where(
        tables.Batch.id.in_(list(batch_ids)), tables.Batch.state == "blocked"
    )
    batch_id = session.scalar(blocked.order_by(tables.Batch.id).limit(1))
    if batch_id is None:
        return None
    job = newest_job(session, batch_id)
    status = None if job is None else job.status
    return {"succeeded": "verification_failed", "cancelled": "job_cancelled"}.get(
        status or "", "job_failed"
    )


def sample_ids(session: orm.Session, batch_id: uuid.UUID) -> list[str]:
    """What the batch is to erase and is not erased yet, sorted."""
    return list(
        session.scalars(
            sa.select(tables.Erasure.sample_id)
            .where(tables.Erasure.batch_id == batch_id, tables.Erasure.version.is_(None))
            .order_by(tables.Erasure.sample_id)
        )
    )


def subject_ids(session: orm.Session, batch_id: uuid.UUID) -> set[str]:
    """The persons that the batch's requests name."""
    request, member = tables.ForgetRequest, tables.BatchMember
    named = sa.select(database.json_texts(request.body, "$.targets[*].subject_id"))
    of_batch = named.join(member, member.request_id == request.id)
    return set(session.scalars(of_batch.where(member.batch_id == batch_id)))


def concept_targets(session: orm.Session, batch_id: uuid.UUID) -> list[specs.ConceptTarget]:
    """The concepts that the batch is to erase and that are not erased yet, by name."""
    erasure = tables.ConceptErasure
    return concepts.targets(
        session, sa.and_(erasure.batch_id == batch_id, erasure.version.is_(None))
    )


def newest_job(session: orm.Session, batch_id: uuid.UUID) -> tables.Job | None:
    """The job that serves, or last served, a batch."""
    return session.scalar(
        sa.select(tables.Job)
        .where(tables.Job.subject_id == batch_id)
        .order_by(tables.Job.id.desc())
        .limit(1)
    )


def joined(session: orm.Session, request: tables.ForgetRequest) -> Sequence[tables.Batch]:
    """The batches that a request waits for."""
    return session.scalars(
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id)
    ).all()


def _open_batch(
    session: orm.Session,
    model: tables.Model,
    kind: specs.ForgetKind,
    pinned: Mapping[str, Any],
    *,
    shared: bool,
) -> tuple[uuid.UUID, bool]:
    """The batch to join and whether it was made for this; unless shared it always is."""
    made = {
        "model_id": model.id,
        "kind": kind,
        "profile": profile(kind, pinned),
        "method": dict(pinned),
    }
    if not shared:
        return session.execute(_MAKE_BATCH, {**made, "state": "filling"}).scalar_one(), True
    wanted = {"model": model.id, "profile": made["profile"]}
    if (existing := session.scalar(_OPEN_BATCH, wanted)) is not None:
        return existing, False
    if (opened := session.scalar(_MAKE_BATCH, {**made, "state": "open"})) is not None:
        return opened, True
    return session.execute(_OPEN_BATCH, wanted).scalar_one(), False  # opened in this moment


def _has_members(session: orm.Session, batch: tables.Batch) -> bool:
    return bool(
        session.scalar(
            sa.select(sa.func.count())
            .select_from(tables.BatchMember)
            .where(tables.BatchMember.batch_id == batch.id)
        )
    )


def _drop_orphans(session: orm.Session, batch: tables.Batch) -> None:
    """What of a batch no member names any more is not to be erased."""
    dropped = session.scalars(
        sa.text(
            "DELETE FROM erasure WHERE batch_id = :batch AND version IS NULL AND NOT EXISTS ("
            "SELECT 1 FROM batch_member m JOIN request_sample s ON s.request_id = m.request_id "
            "WHERE m.batch_id = :batch AND s.sample_id = erasure.sample_id) RETURNING "
            "(SELECT label FROM sample JOIN model ON model.dataset_id = sample.dataset_id "
            "WHERE model.id = erasure.model_id AND sample.sample_id = erasure.sample_id)"
        ),
        {"batch": batch.id},
    ).all()
    erasures.note(session, batch.model_id, dropped, sign=-1)
    concepts.drop_orphans(session, batch.id)
    _withdraw_if_empty(session, batch)


def _sort_again(session: orm.Session, batch: tables.Batch) -> None:
    """What is left of a class that nobody wants forgotten whole any more is so many samples."""
    model = session.get_one(tables.Model, batch.model_id)
    left = session.execute(
        sa.select(tables.Erasure.sample_id, tables.Sample.label)
        .join(tables.Sample, tables.Sample.sample_id == tables.Erasure.sample_id)
        .where(tables.Erasure.batch_id == batch.id, tables.Sample.dataset_id == model.dataset_id)
    ).all()
    kinds = parts.of(session, model, {row.sample_id: row.label for row in left})
    if "samples" in kinds:
        other, _ = _open_batch(session, model, "samples", batch.method, shared=True)
        absorb(session, model, other, kinds["samples"].sample_ids)


def _withdraw_if_empty(session: orm.Session, batch: tables.Batch) -> None:
    if batch.state not in ("verified", "completed") and not _has_members(session, batch):
        batch.state = "withdrawn"
