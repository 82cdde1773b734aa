"""The requests of a batch change together, and it is told: one statement, be they ten thousand."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import tables, telling


def of(batch_id: uuid.UUID, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The statement that yields the ids of a batch's requests that fulfil the conditions."""
    request, member = tables.ForgetRequest, tables.BatchMember
    return (
        sa.select(request.id)
        .join(member, member.request_id == request.id)
        .where(member.batch_id == batch_id, *conditions)
    )


def requests(session: orm.Session, batch_id: uuid.UUID) -> Sequence[tables.ForgetRequest]:
    """The requests of a batch, most urgent first."""
    request = tables.ForgetRequest
    found = of(batch_id).with_only_columns(request)
    return session.scalars(found.order_by(request.due_at, request.id)).all()


def count(session: orm.Session, batch_id: uuid.UUID) -> int:
    """How many requests a batch has."""
    return session.scalar(sa.select(sa.func.count()).select_from(of(batch_id).subquery())) or 0


def change(
    session: orm.Session,
    found: sa.Select[Any],
    values: Mapping[str, Any],
    kind: str,
    *,
    wakes: bool = True,
    **data: Any,  # noqa: ANN401
) -> None:
    """Set ``values`` on every found request and note an event ``kind`` with ``data`` of each.

    Columns that ``found`` yields beside the id are set as well, and told. Unless ``wakes`` is false
    those who watch a request are woken (see :func:`service.telling.changed`).
    """
    session.flush()
    request = tables.core(tables.ForgetRequest)
    # Locked in one order: two that change the same requests wait for each other, no deadlock.
    locked = found.order_by(tables.ForgetRequest.id).with_for_update(
        of=tables.ForgetRequest, key_share=True
    )
    rows = locked.cte("found")
    own = [column for column in rows.c if column.name != "id"]
    changed = (
        sa.update(request)
        .where(request.c.id == rows.c.id)
        .values(
            **values,
            **{column.name: column for column in own},
            updated_at=sa.func.clock_timestamp(),
        )
        .returning(request.c.id, *(request.c[column.name] for column in own))
        .cte("changed")
    )
    pairs = [part for column in own for part in (column.name, changed.c[column.name])]
    told = sa.literal(data, postgresql.JSONB).op("||")(sa.func.jsonb_build_object(*pairs))
    woken = sa.func.pg_notify(telling.CHANNEL, sa.cast(changed.c.id, sa.Text))
    statement = sa.select(changed.c.id, *([woken] if wakes else []))
    ids = session.scalars(
        statement.add_cte(telling.event_from(changed.c.id, kind, told).cte("told"))
    ).all()
    _read_anew(session, set(ids))


def _read_anew(session: orm.Session, ids: set[uuid.UUID]) -> None:
    for one in list(session.identity_map.values()):
        if isinstance(one, tables.ForgetRequest):
            # Not ``one.id``: of one that is to be read anew already it would be read at once.
            identity = sa.inspect(one).identity
            if identity is not None and identity[0] in ids:
                session.expire(one)
