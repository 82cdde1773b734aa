"""Server-Sent Events: stored events in order, and progress as it changes."""

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import fastapi
import sqlalchemy as sa
from fastapi import sse
from starlette import concurrency

from api import changes
from service import database, errors, tables

RECHECK_SECONDS = 5.0
# Of two transactions the one that drew its number first may commit last.
OVERLAP = datetime.timedelta(minutes=1)


def _position(
    last_event_id: Annotated[
        str | None, fastapi.Header(alias="Last-Event-ID", description="resume behind this event")
    ] = None,
) -> int:
    if last_event_id is None:
        return 0
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 18:
        detail = "Last-Event-ID: expected the number of an event of this stream"
        raise errors.Invalid("invalid-request", detail)
    return int(last_event_id)


# A dependency: what is wrong with it must be told before the stream begins.
LastEventId = Annotated[int, fastapi.Depends(_position)]


@dataclass(frozen=True)
class Followed:
    """Whose events to send, the progress right now, and whether nothing more will come."""

    subjects: Sequence[uuid.UUID]
    progress: dict[str, Any] | None
    ended: bool


async def follow(
    request: fastapi.Request, look: Callable[[], Followed], last_event_id: int
) -> AsyncIterator[sse.ServerSentEvent]:
    """Every stored event behind ``last_event_id``, then new ones until the subject has ended.

    One that is committed after a later one comes after it, as long as the stream is open; who
    resumes behind it may get the later one twice.
    """
    watched: changes.Changes = request.app.state.changes
    floor, told = last_event_id, None
    sent: dict[int, datetime.datetime] = {}
    while True:
        followed = await concurrency.run_in_threadpool(look)
        with watched.watching(map(str, followed.subjects)) as signal:
            followed = await concurrency.run_in_threadpool(look)
            for row in await concurrency.run_in_threadpool(_after, followed.subjects, floor):
                if row.id in sent:
                    continue
                sent[row.id] = row.created_at
                yield sse.ServerSentEvent(event=row.type, id=str(row.id), data=_data(row))
            settled = datetime.datetime.now(datetime.UTC) - OVERLAP
            floor = max([floor, *(number for number, at in sent.items() if at < settled)])
            sent = {number: at for number, at in sent.items() if number > floor}
            if followed.progress is not None and followed.progress != told:
                told = followed.progress
                yield sse.ServerSentEvent(event="progress", data=told)
            if followed.ended or await request.is_disconnected():
                return
            try:
                await asyncio.wait_for(signal.wait(), RECHECK_SECONDS)
            except TimeoutError:
                continue


def _after(subjects: Sequence[uuid.UUID], floor: int) -> Sequence[tables.Event]:
    with database.transaction() as session:
        return session.scalars(
            sa.select(tables.Event)
            .where(tables.Event.subject_id.in_(subjects), tables.Event.id > floor)
            .order_by(tables.Event.id)
        ).all()


def _data(row: tables.Event) -> dict[str, Any]:
    return {"at": row.created_at.isoformat(), **row.data}
