"""``/v1/jobs`` and ``/v1/batches``: the GPU work behind requests."""

import uuid
from collections.abc import AsyncIterable

import fastapi
from fastapi import sse

from api import auth, events, presenting, relay, sessions, waiting
from api.schemas import base
from api.schemas import forget_requests as schemas
from service import batches, cancellation, database, jobs, models, sealing

router = fastapi.APIRouter(prefix="/v1", tags=["jobs and batches"])


def _must_exist(_: auth.Reader, session: sessions.Session, job_id: uuid.UUID) -> None:
    """Unknown ids are told before a stream begins: afterwards it could only break off."""
    jobs.by_id(session, job_id)


@router.get("/jobs/{job_id}", response_model=schemas.JobOut)
async def poll(request: fastapi.Request, _: auth.Reader, job_id: uuid.UUID) -> fastapi.Response:
    """A job as it stands; ``If-None-Match`` and ``Prefer: wait=N`` are honoured."""
    return await waiting.conditional(request, lambda: _represent(job_id))


@router.get(
    "/jobs/{job_id}/events",
    response_class=sse.EventSourceResponse,
    dependencies=[fastapi.Depends(_must_exist)],
)
async def stream(
    request: fastapi.Request,
    _: auth.Reader,
    job_id: uuid.UUID,
    last_event_id: events.LastEventId,
) -> AsyncIterable[sse.ServerSentEvent]:
    """What happens to a job, as it happens; ``Last-Event-ID`` resumes."""
    async for event in events.follow(request, lambda: _followed(job_id), last_event_id):
        yield event


@router.post("/jobs/{job_id}/cancel", response_model=schemas.JobOut)
def cancel(session: sessions.Session, caller: auth.Admin, job_id: uuid.UUID) -> schemas.JobOut:
    """Stop a job: at once when queued, at its next step when running. The duty stays."""
    row = cancellation.cancel(session, caller.actor, job_id)
    session.flush()
    session.refresh(row)
    return presenting.job(session, row)


@router.get("/batches/{batch_id}", response_model=schemas.BatchOut)
def batch(session: sessions.Session, _: auth.Reader, batch_id: uuid.UUID) -> schemas.BatchOut:
    """A batch and what is in it."""
    return presenting.batch(session, batches.by_id(session, batch_id))


@router.post(
    "/models/{model}/batches:flush",
    status_code=202,
    response_model=schemas.BatchesOut,
    dependencies=[relay.AFTER_COMMIT],
)
def flush(session: sessions.Session, caller: auth.Approver, model: base.Name) -> schemas.BatchesOut:
    """Seal the model's open batches now."""
    sealed = sealing.flush(session, caller.actor, models.by_name(session, model))
    session.flush()
    for row in sealed:
        session.refresh(row)
    return schemas.BatchesOut(items=[presenting.batch(session, row) for row in sealed])


def _represent(job_id: uuid.UUID) -> waiting.Representation:
    with database.transaction() as session:
        shown = presenting.job(session, jobs.by_id(session, job_id))
        return waiting.represent(shown, frozenset({str(job_id)}))


def _followed(job_id: uuid.UUID) -> events.Followed:
    with database.transaction() as session:
        row = jobs.by_id(session, job_id)
        shown = presenting.job(session, row)
        progress = shown.model_dump(
            mode="json", include={"stage", "step", "total_steps", "fraction", "eta_seconds"}
        )
        return events.Followed([job_id], progress, row.status not in jobs.UNFINISHED)
