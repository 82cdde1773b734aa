"""One answer for one ``Idempotency-Key``: the first one, to whoever repeats the call."""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import errors, tables


def begin(
    session: orm.Session, api_key_id: uuid.UUID, key: str, body_digest: str
) -> dict[str, Any] | None:
    """The stored answer to this call, or ``None`` when it is the first and the caller shall answer.

    A repeat that arrives while the first is under way waits for it (PostgreSQL's unique index), and
    so never runs twice. Raises :class:`errors.Invalid` (``idempotency-key-reused``) when the key
    came with another body before.
    """
    record = tables.IdempotencyRecord
    row = {"api_key_id": api_key_id, "idempotency_key": key, "body_digest": body_digest}
    if session.execute(_BEGIN, row).one_or_none() is not None:
        return None
    earlier = session.execute(
        sa.select(record.body_digest, record.response).where(
            record.api_key_id == api_key_id, record.idempotency_key == key
        )
    ).one()
    if earlier.body_digest != body_digest:
        detail = (
            "this Idempotency-Key came before with another body; "
            "expected the same body again, or a new key for a new request"
        )
        raise errors.Invalid("idempotency-key-reused", detail)
    response: dict[str, Any] = earlier.response
    return response


def complete(
    session: orm.Session, api_key_id: uuid.UUID, key: str, response: dict[str, Any]
) -> None:
    """Keep the answer, in the transaction that it tells of."""
    session.execute(_COMPLETE, {"caller": api_key_id, "key": key, "answer": response})


_BEGIN = (
    postgresql.insert(tables.core(tables.IdempotencyRecord))
    .on_conflict_do_nothing()
    .returning(tables.IdempotencyRecord.created_at)
)
_COMPLETE = (
    sa.update(tables.core(tables.IdempotencyRecord))
    .where(
        tables.IdempotencyRecord.api_key_id == sa.bindparam("caller"),
        tables.IdempotencyRecord.idempotency_key == sa.bindparam("key"),
    )
    .values(response=sa.bindparam("answer"))
)
