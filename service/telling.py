"""What is written in the same transaction as what it tells of: events, audit entries, outbox."""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import tables

CHANNEL = "salun_changes"


def event(session: orm.Session, subject_id: uuid.UUID, event_type: str, **data: Any) -> None:  # noqa: ANN401
    """Append to the subject's event stream; :func:`changed` wakes those who watch it."""
    session.add(tables.Event(subject_id=subject_id, type=event_type, data=data))


def event_from(
    subject_id: sa.ColumnElement[uuid.UUID],
    event_type: str,
    data: sa.ColumnElement[dict[str, Any]],
) -> sa.Insert:
    """The statement behind :func:`event`, to be part of another one that yields the subject."""
    row = sa.select(subject_id, sa.literal(event_type), data)
    return sa.insert(tables.core(tables.Event)).from_select(["subject_id", "type", "data"], row)


def changed(session: orm.Session, key: object) -> None:
    """Wake those who wait for ``key``, once this transaction commits.

    Not for the path of a submission: PostgreSQL commits transactions that notify one by one.
    """
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, str(key))))


def audit(
    session: orm.Session,
    actor: str,
    action: str,
    object_id: object,
    **detail: Any,  # noqa: ANN401
) -> None:
    """Note who did what; ``detail`` holds counts and digests, never an identity."""
    session.add(
        tables.AuditEntry(actor=actor, action=action, object_id=str(object_id), detail=detail)
    )


def audit_from(
    actor: sa.ColumnElement[str],
    action: str,
    object_id: sa.ColumnElement[Any],
    detail: sa.ColumnElement[dict[str, Any]],
) -> sa.Insert:
    """The statement behind :func:`audit`, to be part of another one that yields the object."""
    row = sa.select(
        actor,
        sa.literal(action),
        sa.cast(object_id, sa.Text),
        detail,
    )
    return sa.insert(tables.core(tables.AuditEntry)).from_select(
        ["actor", "action", "object_id", "detail"], row
    )


def outbox(session: orm.Session, topic: str, **payload: Any) -> None:  # noqa: ANN401
    """Leave a message to be sent at least once after this transaction commits.

    Whoever commits calls :func:`service.queue.relay` next; if it dies before, a sweep does.
    """
    session.add(tables.OutboxMessage(topic=topic, payload=payload))
