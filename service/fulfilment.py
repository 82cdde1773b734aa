"""What happens to a request after it was accepted. It never ends as failed: the duty stays."""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import (
    batches,
    concepts,
    erasures,
    errors,
    members,
    sealing,
    splitting,
    tables,
    telling,
)

OPEN = ("pending", "in_progress", "action_required")


def complete(session: orm.Session, request: tables.ForgetRequest, version: int) -> None:
    """Everything that the request named is gone from ``version`` and what is made from it."""
    request.result_version = version
    request.reason = None
    close(session, request, "completed", "done", result_version=version)


def complete_served(session: orm.Session, batch_id: uuid.UUID) -> None:
    """Complete the requests of a batch that wait for no other one."""
    request, member, batch = tables.ForgetRequest, tables.BatchMember, tables.Batch
    others = (
        sa.select(member.batch_id)
        .join(batch, batch.id == member.batch_id)
        .where(member.request_id == request.id, batch.state.not_in(("completed", splitting.SPLIT)))
    )
    newest = sa.func.greatest(erasures.newest_version(), concepts.newest_version())
    found = members.of(batch_id, request.status.in_(OPEN), ~others.exists())
    values = {
        "status": "completed",
        "stage": "done",
        "reason": None,
        "completed_at": sa.func.clock_timestamp(),
    }
    done = found.add_columns(newest.label("result_version"))
    members.change(session, done, values, "completed")
    nothing = members.of(batch_id, request.status == "completed", request.result_version.is_(None))
    if (lost := session.scalar(nothing.limit(1))) is not None:
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
    session: orm.Session, actor: str, request: tables.ForgetRequest, reason: str
) -> tables.ForgetRequest:
    """A person decides to try again: the request's blocked batches get a new job."""
    _require_action(request, "approve")
    blocked = session.scalars(
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id, tables.Batch.state == "blocked")
    ).all()
    for batch in blocked:
        sealing.seal(session, batch)
    waits = sa.and_(tables.ForgetRequest.status == "action_required", ~_follows_a_blocked_batch())
    for batch in blocked:
        values = {"status": "pending", "stage": "sealed", "reason": None}
        members.change(session, members.of(batch.id, waits), values, "approved")
    telling.audit(session, actor, "forget_request.approve", request.id, reason_given=bool(reason))
    return request


def deny(
    session: orm.Session, actor: str, request: tables.ForgetRequest, reason: str
) -> tables.ForgetRequest:
    """A person decides that nothing is to be erased."""
    _require_action(request, "deny")
    request.reason = "denied_by_operator"
    batches.leave(session, request)
    close(session, request, "denied", request.stage)
    telling.audit(session, actor, "forget_request.deny", request.id, reason_given=bool(reason))
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
