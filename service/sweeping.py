"""One look for work that nobody was told of; ``service.sweeper`` looks every few seconds."""

import datetime
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from service import (
    audit_trail,
    database,
    deadlines,
    destruction,
    disposal,
    jobs,
    queue,
    sealing,
    settings,
    tables,
)

MOST_HINTS = 20  # of a queue, that wait in the broker
KEEP_SENT_DAYS = 1
KEEP_IDEMPOTENCY_DAYS = 30


@dataclass(frozen=True)
class Swept:
    """How much of each kind was done: batches sealed, deadlines told, content destroyed …"""

    sealed: int
    alarmed: int
    destroyed: int
    hinted: int
    sent: int


def sweep() -> Swept:
    """Seal what is due, tell of deadlines, chain the audit trail, hint what waits, send the outbox,
    delete what may go.

    Raises what the broker raises where it is away, after all that needs none.
    """
    with database.transaction() as session:
        sealed = sealing.seal_due(session)
    with database.transaction() as session:
        alarmed = deadlines.alarm(session)
    with database.transaction() as session:
        _drop_old_rows(session)
    audit_trail.close()
    try:
        hinted, sent = _tell_workers()
    finally:  # also where the broker is away, and after all that keeps requests moving
        with database.transaction() as session:
            disposal.enqueue_due(session)
        with database.transaction() as session:
            destroyed = destruction.destroy(session)
    return Swept(sealed, alarmed, destroyed, hinted, sent)


def _tell_workers() -> tuple[int, int]:
    """Hint what waits, and send the outbox: how many of each."""
    room = {name: max(0, MOST_HINTS - queue.backlog(name)) for name in queue.OTHER}
    with database.transaction() as session:
        waiting = jobs.unclaimed(session, settings.load().sweep_seconds, room)
        for job in waiting:
            jobs.hint(session, job)
    sent = 0
    while count := queue.relay():
        sent += count
    return len(waiting), sent


def _drop_old_rows(session: orm.Session) -> None:
    """Sent messages and old idempotency records have done their work."""
    now = sa.func.clock_timestamp()
    session.execute(
        sa.delete(tables.OutboxMessage).where(
            tables.OutboxMessage.sent_at < now - datetime.timedelta(days=KEEP_SENT_DAYS)
        )
    )
    session.execute(
        sa.delete(tables.IdempotencyRecord).where(
            tables.IdempotencyRecord.created_at
            < now - datetime.timedelta(days=KEEP_IDEMPOTENCY_DAYS)
        )
    )
