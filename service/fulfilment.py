"""What happens to a request after it was accepted. It never ends as failed: the duty stays."""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import (
    batches,
    deployments,
    erasures,
    errors,
    families,
    members,
    models,
    sealing,
    splitting,
    tables,
    telling,
)

OPEN = ("pending", "in_progress", "action_required")


def complete(session: orm.Session, request: tables.ForgetRequest) -> None:
    """Everything that the request names is gone from what is served."""
    own = sa.select(tables.ForgetRequest.id).where(tables.ForgetRequest.id == request.id)
    _end(session, request.model_id, own)
    session.refresh(request)


def complete_served(session: orm.Session, batch: tables.Batch) -> None:
    """Complete the requests of a batch that wait for no other one."""
    request, member, other = tables.ForgetRequest, tables.BatchMember, tables.Batch
    others = (
        sa.select(member.batch_id)
        .join(other, other.id == member.batch_id)
        .where(member.request_id == request.id, other.state.not_in(("completed", splitting.SPLIT)))
    )
    session.flush()  # this batch's own state
    _end(session, batch.model_id, members.of(batch.id, request.status.in_(OPEN), ~others.exists()))


def complete_deployed(session: orm.Session, model_id: uuid.UUID) -> None:
    """Complete the requests of a model that waited for deployments and wait for none any more.

    Needs the model's row, locked: nobody serves another version meanwhile.
    """
    request = tables.ForgetRequest
    waiting = sa.select(request.id).where(
        request.model_id == model_id,
        request.status == "in_progress",
        request.stage == deployments.PROPAGATING,
    )
    _end(session, model_id, waiting)


def _end(session: orm.Session, model_id: uuid.UUID, found: sa.Select[Any]) -> None:
    """Complete what no deployment lags behind with; the rest waits for its next report."""
    request = tables.ForgetRequest
    newest = erasures.newest_version()
    found = found.add_columns(newest.label("result_version"))
    lags = deployments.lags(session, model_id)
    waiting = {"status": "in_progress", "stage": deployments.PROPAGATING, "reason": None}
    late = found.where(lags, request.stage != deployments.PROPAGATING)
    members.change(session, late, waiting, "stage", stage=deployments.PROPAGATING)
    done = {
        "status": "completed",
        "stage": "done",
        "reason": None,
        "completed_at": sa.func.clock_timestamp(),
    }
    members.change(session, found.where(~lags, newest.is_not(None)), done, "completed")
    if (lost := session.scalar(found.where(newest.is_(None)).limit(1))) is not None:
        msg = f"request {lost} has nothing erased"
        raise RuntimeError(msg)


def block(session: orm.Session, batch_id: uuid.UUID, reason: str) -> None:
    """The batch could not be served: its open requests need a person."""
    is_open = tables.ForgetRequest.status.in_(OPEN)
    values = {"status": "action_required", "reason": reason}
    members.change(session, members.of(batch_id, is_open), values, "action_required", reason=reason)


def require_person(session: orm.Session, request: tables.ForgetRequest, reason: str) -> None:
    """The service cannot go on with this request alone."""
    request.status, request.reason = "action_required", reason
    tell(session, request, "action_required", reason=reason)


def advance(session: orm.Session, batch_id: uuid.UUID, stage: str) -> None:
    """The batch's job entered a stage; who waits for a person, for another batch, still does."""
    is_served = tables.ForgetRequest.status.in_(("pending", "in_progress"))
    values = {"status": "in_progress", "stage": stage, "reason": None}
    members.change(session, members.of(batch_id, is_served), values, "stage", stage=stage)


def wait_again(session: orm.Session, batch_id: uuid.UUID) -> None:
    """The batch's job went back to the queue; the duty stays."""
    is_served = tables.ForgetRequest.status == "in_progress"
    values = {"status": "pending", "stage": "queued"}
    members.change(session, members.of(batch_id, is_served), values, "stage", stage="queued")


def approve(
    session: orm.Session,
    actor: str,
    request: tables.ForgetRequest,
    reason: str,
    method: Mapping[str, Any] | None = None,
) -> tables.ForgetRequest:
    """A person decides to try again: the request's blocked batches get a new job.

    With a ``method`` by that recipe, for all that wait in them (:class:`errors.Invalid`,
    ``invalid-method``).
    """
    _require_action(request, "approve")
    if method is not None:
        model = session.get_one(tables.Model, request.model_id)
        families.check_method(models.family_of(model), method)
    blocked = session.scalars(
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id, tables.Batch.state == "blocked")
    ).all()
    for batch in blocked:
        if method is not None:
            batch.method = dict(method)
            batch.profile = batches.profile(batch.kind, method)
        sealing.seal(session, batch, actor, "approved")
    waits = sa.and_(tables.ForgetRequest.status == "action_required", ~_follows_a_blocked_batch())
    for batch in blocked:
        values = {"status": "pending", "stage": "sealed", "reason": None}
        members.change(session, members.of(batch.id, waits), values, "approved")
    note_decision(session, actor, request, "approve", reason, other_method=method is not None)
    return request


def deny(
    session: orm.Session, actor: str, request: tables.ForgetRequest, reason: str
) -> tables.ForgetRequest:
    """A person decides that nothing is to be erased."""
    _require_action(request, "deny")
    request.reason = "denied_by_operator"
    batches.leave(session, request)
    close(session, request, "denied", request.stage)
    note_decision(session, actor, request, "deny", reason)
    return request


def close(
    session: orm.Session,
    request: tables.ForgetRequest,
    status: str,
    stage: str,
    **data: Any,  # noqa: ANN401
) -> None:
    """End a request, whichever way, and tell it."""
    request.status, request.stage = status, stage
    request.completed_at = sa.func.clock_timestamp()
    tell(session, request, status, **data)


def note_decision(
    session: orm.Session,
    actor: str,
    request: tables.ForgetRequest,
    decision: str,
    reason: str,
    **detail: Any,  # noqa: ANN401
) -> None:
    """A person decided, and says why: the request's event stream keeps it.

    The audit trail has only who and what: a reason may name somebody, and entries stay for good.
    """
    telling.event(session, request.id, "decided", decision=decision, reason=reason)
    action = f"forget_request.{decision}"
    telling.audit(session, actor, action, request.id, reason_given=bool(reason), **detail)


def tell(
    session: orm.Session,
    request: tables.ForgetRequest,
    kind: str,
    **data: Any,  # noqa: ANN401
) -> None:
    """Note in its event stream that a request changed, and wake those who watch it."""
    request.updated_at = sa.func.clock_timestamp()
    telling.event(session, request.id, kind, **data)
    telling.changed(session, request.id)


def _follows_a_blocked_batch() -> sa.Exists:
    """Beside a request: whether one of its batches waits for a person."""
    member, batch = orm.aliased(tables.BatchMember), orm.aliased(tables.Batch)
    return sa.exists().where(
        member.request_id == tables.ForgetRequest.id,
        batch.id == member.batch_id,
        batch.state == "blocked",
    )


def _require_action(request: tables.ForgetRequest, verb: str) -> None:
    if request.status != "action_required":
        detail = f"cannot {verb} a request that is {request.status}; expected action_required"
        raise errors.Conflict("not-awaiting-decision", detail)
