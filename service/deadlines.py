"""The clock of a request: GDPR Art. 12(3), one month from receipt, and what moves it.

It can be extended once, by up to two further months, before the first month is over, and stands
still while a proof of identity is awaited. The sweeper tells when much of it is used up.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import (
    batches,
    database,
    errors,
    forget_requests,
    fulfilment,
    sealing,
    tables,
)

MOST_MONTHS = 2
ALARMS = (50, 80, 95)  # percent of the time from receipt to the due date
OVERDUE = 100
IDENTITY = "identity_unproven"
RISK = "deadline_risk"


def extend(
    session: orm.Session, actor: str, request: tables.ForgetRequest, months: int, reason: str
) -> None:
    """Give a held request up to two months more, counted from receipt, month ends clamped.

    Raises :class:`errors.Conflict`: ``request-closed``, ``already-extended``, ``deadline-passed``
    and ``clock-paused`` (the due date is not known then).
    """
    _require_open(request)
    if request.paused_at is not None:
        raise errors.Conflict("clock-paused", "the clock stands still; resume it first")
    if request.extended_months:
        detail = (
            f"this request was extended by {request.extended_months} months already; "
            "Art. 12(3) allows it once"
        )
        raise errors.Conflict("already-extended", detail)
    paused = request.due_at - _months_after(session, request, 1)
    if database.now(session) > request.due_at:
        due = request.due_at.isoformat()
        detail = f"this request was due at {due}; expected it to be extended before"
        raise errors.Conflict("deadline-passed", detail)
    request.extended_months = months
    request.due_at = _months_after(session, request, 1 + months) + paused
    request.alarm_percent = 0
    if request.reason == RISK:
        request.reason = None
    sealing.restamp(session, [batch.id for batch in batches.joined(session, request)])
    fulfilment.tell(session, request, "extended", months=months)
    fulfilment.note_decision(session, actor, request, "extend", reason, months=months)


def pause(session: orm.Session, actor: str, request: tables.ForgetRequest, reason: str) -> None:
    """Stop the clock of a held request until its sender has proved who they are.

    It leaves its batch: nothing is erased on an unproven word. Raises :class:`errors.Conflict`:
    ``identity-verified``, ``clock-paused``, ``batch-sealed`` and ``request-closed``.
    """
    _require_open(request)
    if request.paused_at is not None:
        raise errors.Conflict("clock-paused", "the clock of this request stands still already")
    attestation: dict[str, Any] = request.body.get("attestation") or {}
    if attestation.get("identity_verified"):
        detail = (
            "the request says that the identity was verified; the clock may stand still only "
            "while a proof of identity is awaited"
        )
        raise errors.Conflict("identity-verified", detail)
    if request.status != "pending":
        detail = f"this request is {request.status}; only a pending one can be paused"
        raise errors.Conflict("batch-sealed", detail)
    batches.require_open(session, request)
    batches.leave(session, request)
    request.paused_at = sa.func.clock_timestamp()
    request.stage, request.reason = "received", IDENTITY
    request.matched = request.pending = 0
    fulfilment.tell(session, request, "paused")
    fulfilment.note_decision(session, actor, request, "pause_clock", reason)


def resume(session: orm.Session, actor: str, request: tables.ForgetRequest, reason: str) -> None:
    """Let the clock of a held request go on; it is due as much later as the clock stood still.

    Where others used up meanwhile what the policy allows it goes on too, and a person decides.
    Raises :class:`errors.Conflict` (``clock-running``).
    """
    if request.paused_at is None:
        raise errors.Conflict("clock-running", "the clock of this request is not paused")
    request.due_at += database.now(session) - request.paused_at
    request.paused_at = None
    fulfilment.tell(session, request, "resumed")
    fulfilment.note_decision(session, actor, request, "resume_clock", reason)
    forget_requests.enter_or_wait(session, actor, request)


def alarm(session: orm.Session) -> int:
    """Tell of every open request that has used up 50, 80, 95 or 100 % of its time; how many.

    Each level is told once, in the request's event stream; from 95 % on a request without another
    ``reason`` carries ``deadline_risk``.
    """
    request = tables.ForgetRequest
    now = sa.func.clock_timestamp()
    used = (
        100
        * sa.func.extract("epoch", now - request.received_at)
        / sa.func.extract("epoch", request.due_at - request.received_at)
    )
    level = sa.case(
        *((used >= percent, percent) for percent in (OVERDUE, *reversed(ALARMS))), else_=0
    )
    reached = session.execute(
        sa.select(request, level)
        .where(
            request.status.in_(fulfilment.OPEN),
            request.paused_at.is_(None),
            level > request.alarm_percent,
        )
        .order_by(request.due_at)
        .with_for_update(skip_locked=True)
    ).all()
    for one, percent in reached:
        one.alarm_percent = percent
        if one.alarm_percent >= ALARMS[-1] and one.reason is None:
            one.reason = RISK
        fulfilment.tell(session, one, "deadline_alarm", percent=one.alarm_percent)
    return len(reached)


def _months_after(session: orm.Session, request: tables.ForgetRequest, months: int) -> Any:  # noqa: ANN401
    """So many calendar months after receipt, in UTC: 31 January is followed by 28 February."""
    received = sa.func.timezone("UTC", sa.literal(request.received_at))
    moved = received + sa.func.make_interval(0, months)
    return session.scalar(sa.select(sa.func.timezone("UTC", moved)))


def _require_open(request: tables.ForgetRequest) -> None:
    if request.status not in fulfilment.OPEN:
        detail = f"this request is {request.status}; its clock is no longer running"
        raise errors.Conflict("request-closed", detail)
