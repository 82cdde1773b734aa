"""The audit trail: who did what, in an order that stays, each entry chained to the one before.

Entries are written by the transactions that they tell of, and those commit in any order: a reader
who goes on behind the highest id could miss one. So an entry takes its position afterwards, when it
can be seen, together with the digest of all that it says and of the entry before it. Who keeps a
digest can tell later whether anything up to it was changed, left out or put in.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import database, tables

BEGINNING = "0" * 64
"""What the first entry has for the digest before it."""
_AT_ONCE = 2_000
_MOST_TURNS = 10  # of one call: what a long history leaves is for the next sweeps


def close() -> int:
    """Chain the entries that are not chained yet, 20,000 at most; returns how many."""
    total = 0
    for _ in range(_MOST_TURNS):
        with database.transaction() as session:
            chained = _chain(session)
        total += chained
        if chained < _AT_ONCE:
            break
    return total


def listing(
    session: orm.Session,
    *,
    after: int,
    limit: int,
    action: str | None = None,
    object_id: str | None = None,
) -> Sequence[tables.AuditEntry]:
    """Chained entries behind a position, in order; one more than ``limit`` if there are more."""
    entry = tables.AuditEntry
    statement = sa.select(entry).where(entry.position > after).order_by(entry.position)
    if action is not None:
        statement = statement.where(entry.action == action)
    if object_id is not None:
        statement = statement.where(entry.object_id == object_id)
    return session.scalars(statement.limit(limit + 1)).all()


def told(entry: tables.AuditEntry) -> dict[str, Any]:
    """What a chained entry says, as it is shown and as its digest is made of it."""
    at = entry.created_at.astimezone(datetime.UTC)
    return {
        "position": entry.position,
        "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "actor": entry.actor,
        "action": entry.action,
        "object_id": entry.object_id,
        "detail": entry.detail,
        "previous_digest": entry.previous_digest,
    }


def digest_of(said: Mapping[str, Any]) -> str:
    """SHA-256 of what an entry says as JSON: keys sorted, no blanks, ASCII with ``\\u`` escapes,
    numbers as Python's ``json`` writes them."""
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _chain(session: orm.Session) -> int:
    one_by_one = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended("audit trail", 0))
    session.execute(sa.select(one_by_one))
    entry = tables.AuditEntry
    last = session.execute(
        sa.select(entry.position, entry.digest)
        .where(entry.position.is_not(None))
        .order_by(entry.position.desc())
        .limit(1)
    ).one_or_none()
    before, digest = (last.position, last.digest) if last else (0, BEGINNING)
    waiting = session.scalars(
        sa.select(entry).where(entry.position.is_(None)).order_by(entry.id).limit(_AT_ONCE)
    ).all()
    for position, one in enumerate(waiting, start=(before or 0) + 1):
        one.position, one.previous_digest = position, digest
        one.digest = digest = digest_of(told(one))
    return len(waiting)
