"""``/v1/forget-requests``: submit, look, wait, withdraw, decide."""

import datetime
import uuid
from collections.abc import AsyncIterable
from typing import Annotated, Any, Literal

import fastapi
from fastapi import responses, sse
from starlette import concurrency

from api import auth, bodies, events, presenting, relay, repeating, reports, sessions, waiting
from api.schemas import base
from api.schemas import forget_requests as schemas
from service import (
    database,
    deadlines,
    demands,
    errors,
    forget_requests,
    fulfilment,
    idempotency,
    request_views,
)

router = fastapi.APIRouter(prefix="/v1/forget-requests", tags=["forget requests"])
RETRY_AFTER_SECONDS = 1
MAX_PAGE = 500
_MOVING = frozenset({"progress", "expected_completion_at"})

IfMatch = Annotated[str | None, fastapi.Header(alias="If-Match")]
Body = Annotated[schemas.ForgetRequestIn, fastapi.Depends(bodies.forget_request)]


def _must_exist(_: auth.Reader, session: sessions.Session, request_id: uuid.UUID) -> None:
    """Unknown ids are told before a stream begins: afterwards it could only break off."""
    forget_requests.by_id(session, request_id)


@router.post(
    "",
    status_code=202,
    response_model=schemas.ForgetRequestOut,
    openapi_extra=bodies.FORGET_REQUEST_OPENAPI,
)
async def submit(
    request: fastapi.Request,
    credentials: auth.Credentials,
    sent: Annotated[bodies.Sent, fastapi.Depends(bodies.received)],
    idempotency_key: repeating.IdempotencyKey = None,
) -> responses.Response:
    """Accept a demand: it is durable when the 202 leaves."""
    answer = await concurrency.run_in_threadpool(_accept, credentials, sent, idempotency_key)
    if answer["body"]["job_id"] is not None:
        relay.nudge(request)
    return responses.JSONResponse(answer["body"], 202, answer["headers"])


def _accept(
    credentials: auth.Credentials, sent: bodies.Sent, idempotency_key: str | None
) -> dict[str, Any]:
    """One transaction in one thread, from the key to the stored answer."""
    with database.transaction() as session:
        caller = auth.caller_of(session, credentials)
        caller.require("requests:submit")
        demand = bodies.demand(bodies.forget_request(sent))
        key = repeating.required(idempotency_key)
        earlier = idempotency.begin(session, caller.key_id, key, demand.digest)
        if earlier is not None:
            return earlier
        submitted = forget_requests.submit(session, caller, demand)
        shown = presenting.forget_request(request_views.view(session, submitted))
        answer = repeating.accepted(shown, shown.links["self"], RETRY_AFTER_SECONDS)
        idempotency.complete(session, caller.key_id, key, answer)
    return answer


@router.post(
    ":validate",
    response_model=schemas.PreviewOut,
    openapi_extra=bodies.FORGET_REQUEST_OPENAPI,
)
def validate(
    session: sessions.Session,
    _: auth.Submitter,
    body: Body,
) -> schemas.PreviewOut:
    """Say what a demand would match and when it would be done, and change nothing."""
    return presenting.preview(demands.preview(session, bodies.demand(body)))


@router.get("", response_model=schemas.ForgetRequestPage)
def listing(
    session: sessions.Session,
    _: auth.ReaderOfRequests,
    status: schemas.Status | None = None,
    model: base.Name | None = None,
    due_before: Annotated[datetime.datetime | None, fastapi.Query()] = None,
    cursor: uuid.UUID | None = None,
    limit: Annotated[int, fastapi.Query(ge=1, le=MAX_PAGE)] = 50,
    order: Literal["oldest", "newest"] = "oldest",
) -> schemas.ForgetRequestPage:
    """Requests, ``order`` first; ``next_cursor`` goes into ``cursor`` for the next page."""
    if due_before is not None and due_before.tzinfo is None:
        due_before = due_before.replace(tzinfo=datetime.UTC)
    found = request_views.listing(
        session,
        status=status,
        model=model,
        due_before=due_before,
        after=cursor,
        limit=limit,
        newest_first=order == "newest",
    )
    page = found[:limit]
    return schemas.ForgetRequestPage(
        items=[presenting.forget_request(request_views.view(session, item)) for item in page],
        next_cursor=str(page[-1].id) if len(found) > limit else None,
    )


@router.get("/{request_id}", response_model=schemas.ForgetRequestOut)
async def poll(
    request: fastapi.Request, _: auth.ReaderOfRequests, request_id: uuid.UUID
) -> fastapi.Response:
    """A request as it stands; ``If-None-Match`` and ``Prefer: wait=N`` are honoured."""
    return await waiting.conditional(request, lambda: _represent(request_id))


@router.delete("/{request_id}", status_code=202, response_model=schemas.ForgetRequestOut)
def withdraw(
    session: sessions.Session, caller: auth.Submitter, request_id: uuid.UUID
) -> schemas.ForgetRequestOut:
    """Withdraw a request while its batch is open; afterwards 409 ``batch-sealed``."""
    return _shown(session, forget_requests.withdraw(session, caller.actor, request_id))


@router.post(
    "/{request_id}/approve",
    response_model=schemas.ForgetRequestOut,
    dependencies=[relay.AFTER_COMMIT],
)
def approve(
    session: sessions.Session,
    caller: auth.Approver,
    request_id: uuid.UUID,
    body: base.ApprovalIn,
    if_match: IfMatch = None,
) -> schemas.ForgetRequestOut:
    """Go on with a request that needs a person (``action_required``).

    One that waits for a second person (``awaiting_approval``) enters a batch; others get a new job,
    by another ``method`` where one is given.
    """
    held = _matching(session, request_id, if_match)
    forget_requests.approve(session, caller, held, body.reason, body.method)
    return _shown(session, held)


@router.post("/{request_id}/deny", response_model=schemas.ForgetRequestOut)
def deny(
    session: sessions.Session,
    caller: auth.Approver,
    request_id: uuid.UUID,
    body: base.ReasonIn,
    if_match: IfMatch = None,
) -> schemas.ForgetRequestOut:
    """Decide that nothing is to be erased."""
    held = _matching(session, request_id, if_match)
    fulfilment.deny(session, caller.actor, held, body.reason)
    return _shown(session, held)


@router.post("/{request_id}/extend", response_model=schemas.ForgetRequestOut)
def extend(
    session: sessions.Session,
    caller: auth.Approver,
    request_id: uuid.UUID,
    body: base.ExtensionIn,
    if_match: IfMatch = None,
) -> schemas.ForgetRequestOut:
    """Take up to two months more (GDPR Art. 12(3)): once, before the due date."""
    held = _matching(session, request_id, if_match)
    deadlines.extend(session, caller.actor, held, body.months, body.reason)
    return _shown(session, held)


@router.post("/{request_id}/pause-clock", response_model=schemas.ForgetRequestOut)
def pause_clock(
    session: sessions.Session,
    caller: auth.Approver,
    request_id: uuid.UUID,
    body: base.ReasonIn,
    if_match: IfMatch = None,
) -> schemas.ForgetRequestOut:
    """Stop the clock while a proof of identity is awaited; nothing is erased meanwhile."""
    held = _matching(session, request_id, if_match)
    deadlines.pause(session, caller.actor, held, body.reason)
    return _shown(session, held)


@router.post(
    "/{request_id}/resume-clock",
    response_model=schemas.ForgetRequestOut,
    dependencies=[relay.AFTER_COMMIT],
)
def resume_clock(
    session: sessions.Session,
    caller: auth.Approver,
    request_id: uuid.UUID,
    body: base.ReasonIn,
    if_match: IfMatch = None,
) -> schemas.ForgetRequestOut:
    """The identity is proved: the request joins a batch, due as much later as it was paused."""
    held = _matching(session, request_id, if_match)
    deadlines.resume(session, caller.actor, held, body.reason)
    return _shown(session, held)


@router.get("/{request_id}/report", response_model=dict[str, Any], responses=reports.OPENAPI)
def report(
    request: fastapi.Request,
    _: auth.ReaderOfRequests,
    request_id: uuid.UUID,
    form: reports.Form = None,
) -> responses.Response:
    """The verification report, passed or not, as JSON or as a page; 409 while there is none."""
    with database.transaction() as session:
        held = forget_requests.by_id(session, request_id)
        version, found = request_views.report(session, held)
    return reports.answer(request, form, {"version": version.number, **found}, version)


@router.get(
    "/{request_id}/events",
    response_class=sse.EventSourceResponse,
    dependencies=[fastapi.Depends(_must_exist)],
)
async def stream(
    request: fastapi.Request,
    _: auth.Reader,
    request_id: uuid.UUID,
    last_event_id: events.LastEventId,
) -> AsyncIterable[sse.ServerSentEvent]:
    """What happens to a request, as it happens; ``Last-Event-ID`` resumes."""
    async for event in events.follow(request, lambda: _followed(request_id), last_event_id):
        yield event


def _shown(session: sessions.Session, held: Any) -> schemas.ForgetRequestOut:  # noqa: ANN401
    session.flush()
    session.refresh(held)
    return presenting.forget_request(request_views.view(session, held))


def _represent(request_id: uuid.UUID) -> waiting.Representation:
    with database.transaction() as session:
        found = request_views.view(session, forget_requests.by_id(session, request_id))
        keys = {str(request_id)} | ({str(found.job.id)} if found.job is not None else set())
        return waiting.represent(presenting.forget_request(found), frozenset(keys), moving=_MOVING)


def _followed(request_id: uuid.UUID) -> events.Followed:
    with database.transaction() as session:
        found = request_views.view(session, forget_requests.by_id(session, request_id))
        shown = presenting.forget_request(found)
        return events.Followed(
            subjects=[request_id] + ([found.job.id] if found.job is not None else []),
            progress=None if shown.progress is None else shown.progress.model_dump(mode="json"),
            ended=shown.status in {"completed", "denied", "cancelled", "action_required"},
        )


def _matching(session: sessions.Session, request_id: uuid.UUID, if_match: str | None) -> Any:  # noqa: ANN401
    held = forget_requests.by_id(session, request_id, lock=True)
    if if_match is None:
        detail = "expected If-Match with the ETag that GET of this request gave"
        raise errors.Invalid("precondition-required", detail)
    shown = presenting.forget_request(request_views.view(session, held))
    if not waiting.names(if_match, waiting.represent(shown, moving=_MOVING)):
        detail = "the request has changed since that ETag; read it again"
        raise errors.PreconditionFailed("precondition-failed", detail)
    return held
