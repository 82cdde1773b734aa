"""A batch that failed is split in two, again and again, until those to blame stand alone.

Requests that name the same sample or concept stay together. Every half gets a job of its own; the
batch that was split keeps its members, so that their reports are found, and serves them no more.
What of a batch must be judged in another way than the rest is set apart before it is begun.
"""

import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import specs
from service import batches, database, members, models, sealing, tables, telling

SPLIT = "split"
_SET_APART = sa.text(
    "WITH moved AS (UPDATE erasure SET batch_id = :new WHERE batch_id = :old "
    "AND version IS NULL AND sample_id = ANY(:ids) RETURNING sample_id) "
    "INSERT INTO batch_member (batch_id, request_id) "
    "SELECT DISTINCT CAST(:new AS uuid), m.request_id FROM moved v "
    "JOIN request_sample s ON s.sample_id = v.sample_id "
    "JOIN batch_member m ON m.request_id = s.request_id AND m.batch_id = :old"
).bindparams(
    sa.bindparam("old", type_=sa.Uuid),
    sa.bindparam("new", type_=sa.Uuid),
    sa.bindparam("ids", type_=database.Names),
)
Group = Sequence[uuid.UUID]  # requests that share something


def split(session: orm.Session, batch: tables.Batch) -> bool:
    """Queue two halves in the place of a batch, if it can be split; whether it could.

    It cannot where all that its requests name hangs together, or where its family was split
    ``max_batch_splits`` times already. Needs the lock of :func:`service.batches.hold`.
    """
    policy = models.policy_of(session.get_one(tables.Model, batch.model_id))
    groups = _groups(session, batch.id)
    if len(groups) < 2 or _splits(session, batch) >= policy.max_batch_splits:
        return False
    batch.state = SPLIT
    middle = len(groups) // 2
    for part in (groups[:middle], groups[middle:]):
        half = _moved(session, batch, [request for group in part for request in group])
        sealing.seal(session, half, "worker", "split")
        telling.audit(session, "worker", "batch.split", half.id, parent=str(batch.id))
    return True


def set_apart(
    session: orm.Session,
    batch: tables.Batch,
    kind: specs.ForgetKind,
    sample_ids: Sequence[str],
) -> None:
    """Queue a batch of another kind with these samples of a sealed one, and with who names them.

    Needs the lock of :func:`service.batches.hold`.
    """
    other = _beside(session, batch, kind, batch.parent_id)
    moved = {"old": batch.id, "new": other.id, "ids": list(sample_ids)}
    session.execute(_SET_APART, moved)
    session.execute(batches.DROP_IDLE_MEMBERS, {"batch": batch.id})
    sealing.seal(session, other, "worker", "split")
    telling.audit(session, "worker", "batch.set_apart", other.id, of=str(batch.id), kind=kind)


def _groups(session: orm.Session, batch_id: uuid.UUID) -> list[Group]:
    """The members that still wait for something of the batch, by what they share, urgent first."""
    named = session.execute(
        sa.text(
            "SELECT m.request_id, 's' || e.sample_id AS name FROM batch_member m "
            "JOIN request_sample s ON s.request_id = m.request_id "
            "JOIN erasure e ON e.sample_id = s.sample_id AND e.batch_id = m.batch_id "
            "WHERE m.batch_id = :batch AND e.version IS NULL "
            "UNION ALL SELECT m.request_id, 'c' || c.concept FROM batch_member m "
            "JOIN request_concept r ON r.request_id = m.request_id "
            "JOIN concept_erasure c ON c.concept = r.concept AND c.batch_id = m.batch_id "
            "WHERE m.batch_id = :batch AND c.version IS NULL"
        ),
        {"batch": batch_id},
    ).all()
    first_to_name: dict[str, uuid.UUID] = {}
    leader: dict[uuid.UUID, uuid.UUID] = {}

    def leader_of(request: uuid.UUID) -> uuid.UUID:
        while (above := leader.setdefault(request, request)) != request:
            leader[request] = leader[above]
            request = above
        return request

    for request, name in named:
        other = first_to_name.setdefault(name, request)
        leader[leader_of(request)] = leader_of(other)
    groups: dict[uuid.UUID, list[uuid.UUID]] = {}
    for member in members.requests(session, batch_id):
        if member.id in leader:
            groups.setdefault(leader_of(member.id), []).append(member.id)
    return list(groups.values())


def _moved(session: orm.Session, batch: tables.Batch, requests: Group) -> tables.Batch:
    """A new batch with these members and what they name of the old one."""
    half = _beside(session, batch, batch.kind, batch.id)
    session.add_all(tables.BatchMember(batch_id=half.id, request_id=one) for one in requests)
    moved = {"old": batch.id, "new": half.id, "requests": list(requests)}
    for statement in (
        "UPDATE erasure e SET batch_id = :new FROM request_sample s WHERE e.batch_id = :old "
        "AND e.version IS NULL AND s.sample_id = e.sample_id AND s.request_id = ANY(:requests)",
        "UPDATE concept_erasure c SET batch_id = :new FROM request_concept r "
        "WHERE c.batch_id = :old AND c.version IS NULL AND r.concept = c.concept "
        "AND r.request_id = ANY(:requests)",
    ):
        session.execute(sa.text(statement), moved)
    return half


def _beside(
    session: orm.Session,
    batch: tables.Batch,
    kind: str,
    parent_id: uuid.UUID | None,
) -> tables.Batch:
    """An empty batch of the same model and method."""
    other = tables.Batch(
        model_id=batch.model_id,
        kind=kind,
        profile=batches.profile(kind, batch.method),
        method=batch.method,
        parent_id=parent_id,
        state="filling",
    )
    session.add(other)
    session.flush()
    return other


def _splits(session: orm.Session, batch: tables.Batch) -> int:
    """How often the batch that this one comes from, and its parts, were split."""
    root = batch
    while root.parent_id is not None:
        root = batches.by_id(session, root.parent_id)
    family = sa.select(tables.Batch.id).where(tables.Batch.id == root.id).cte(recursive=True)
    family = family.union_all(
        sa.select(tables.Batch.id).where(tables.Batch.parent_id == family.c.id)
    )
    split_ones = sa.select(sa.func.count()).where(
        tables.Batch.id.in_(sa.select(family.c.id)), tables.Batch.state == SPLIT
    )
    return session.scalar(split_ones) or 0
