"""Forget requests: submitted, placed in batches, withdrawn, decided."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from salun_core import phrases
from service import (
    api_keys,
    batches,
    concepts,
    database,
    demands,
    erasures,
    errors,
    fulfilment,
    ledger,
    models,
    parts,
    sealing,
    tables,
    telling,
)


def submit(
    session: orm.Session, caller: api_keys.Caller, demand: demands.Demand
) -> tables.ForgetRequest:
    """Write a request, its targets, its place in a batch, and what tells of them.

    A demand over the model's budget is written too, but gets no place before a second person
    approves. A repeated ``subject_request_id`` with the same body returns the first request. Raises
    :class:`errors.Invalid` (``invalid-target``, ``forget-budget-exceeded``, ``invalid-method``,
    ``model-not-ready``, ``reason-required``) and :class:`errors.Conflict`
    (``subject-request-conflict``).
    """
    demands.check(demand)
    if (earlier := _same_subject_request(session, demand)) is not None:
        return earlier
    model = demands.served_model(session, demand)
    # The hot path: the policy is parsed, and erasures are counted, once.
    policy = models.policy_of(model)
    before = erasures.count(session, model)
    resolution = demands.resolved(session, model, policy, demand, before)
    is_held = demands.needs_second_person(session, model, policy.budget, demand, resolution, before)
    placements = [] if is_held else _place(session, model, policy, demand, resolution)
    request = _insert(session, model, caller, demand, resolution, placements, is_held=is_held)
    concepts.note(session, request.id, [phrases.normal(one.concept) for one in resolution.concepts])
    if is_held:
        telling.event(session, request.id, "action_required", reason=request.reason)
    else:
        _settle(session, caller.actor, policy, demand, request, placements)
    session.flush()
    return request


def enter(session: orm.Session, actor: str, request: tables.ForgetRequest) -> None:
    """Place a request that was kept out of the batches until now; needs ``by_id(lock=True)``.

    It is resolved anew: others may have erased meanwhile what it names. Names that are gone
    altogether leave it ``action_required`` (``target_unresolved``). Raises :class:`errors.Invalid`
    (``forget-budget-exceeded``) where others have used up what the policy allows.
    """
    demand = demands.of_request(session, request)
    model = demands.served_model(session, demand)
    resolution = ledger.resolve(session, model, demand.targets)
    if not resolution.labels and not resolution.concepts:
        fulfilment.require_person(session, request, "target_unresolved")
        return
    policy = models.policy_of(model)
    demands.check_share(session, model, policy, resolution, erasures.count(session, model))
    placements = _place(session, model, policy, demand, resolution)
    request.status, request.stage, request.reason = "pending", "queued", None
    fresh = _fresh(placements)
    request.matched = len(fresh)
    request.pending = sum(placement.pending for placement in placements)
    request.already_erased = sum(placement.already_erased for placement in placements)
    session.flush()
    erasures.note(session, model.id, [resolution.labels[one] for one in fresh])
    samples = [{"request_id": request.id, "sample_id": name} for name in resolution.labels]
    for table, rows in (
        (tables.RequestSample, samples),
        (tables.BatchMember, _memberships(request, placements)),
    ):
        if rows:
            inserted = postgresql.insert(tables.core(table)).on_conflict_do_nothing()
            session.execute(inserted, rows)
    fulfilment.tell(session, request, "stage", stage="queued")
    _settle(session, actor, policy, demand, request, placements)
    session.flush()


def enter_or_wait(session: orm.Session, actor: str, request: tables.ForgetRequest) -> None:
    """The same as :func:`enter`; what is over the policy's limit now waits for a person."""
    try:
        enter(session, actor, request)
    except errors.Invalid as refused:
        if refused.code != "forget-budget-exceeded":
            raise
        request.stage = batches.AWAITING_APPROVAL
        fulfilment.require_person(session, request, "budget_exceeded")


def approve(
    session: orm.Session,
    caller: api_keys.Caller,
    request: tables.ForgetRequest,
    reason: str,
    method: Mapping[str, Any] | None = None,
) -> tables.ForgetRequest:
    """A person decides to go on with a request that is ``action_required``.

    One over budget enters a batch, if it is not its own submitter who says so
    (:class:`errors.Forbidden`, ``second-person-required``); others get a new job, by another
    ``method`` where one is given (:class:`errors.Invalid`, ``invalid-method``).
    """
    if not batches.is_held(request):
        return fulfilment.approve(session, caller.actor, request, reason, method)
    if method is not None:
        detail = "got a method for a request that no recipe was tried for yet; expected none"
        raise errors.Invalid(
            "invalid-method", detail, [errors.Problem("/method", "invalid-method", detail)]
        )
    if caller.key_id == request.api_key_id:
        detail = "got the key that submitted this request; expected a second person's key"
        raise errors.Forbidden("second-person-required", detail)
    enter(session, caller.actor, request)
    fulfilment.note_decision(session, caller.actor, request, "approve", reason)
    return request


def by_id(
    session: orm.Session, request_id: uuid.UUID, *, lock: bool = False
) -> tables.ForgetRequest:
    """The request; raises :class:`errors.NotFound`.

    With ``lock`` nobody else changes it, or the batches of its model, until the transaction ends.
    """
    request = session.get(tables.ForgetRequest, request_id)
    if request is None:
        raise errors.NotFound("forget-request-not-found", f"no forget request {request_id}")
    if lock:
        batches.hold(session, request.model_id)
        session.refresh(request, with_for_update=True)
    return request


def withdraw(session: orm.Session, actor: str, request_id: uuid.UUID) -> tables.ForgetRequest:
    """Withdraw a request; raises :class:`errors.Conflict` (``batch-sealed``) if it is too late."""
    request = by_id(session, request_id, lock=True)
    if request.status == "cancelled":
        return request
    if request.status != "pending" and not batches.is_held(request):
        detail = f"this request is {request.status}; only a pending one can be withdrawn"
        raise errors.Conflict("batch-sealed", detail)
    batches.require_open(session, request)
    batches.leave(session, request)
    request.paused_at = None
    fulfilment.close(session, request, "cancelled", request.stage)
    telling.audit(session, actor, "forget_request.withdraw", request.id)
    return request


def _place(
    session: orm.Session,
    model: tables.Model,
    policy: models.ModelPolicy,
    demand: demands.Demand,
    resolution: ledger.Resolution,
) -> list[batches.Placement]:
    """Every part of a demand into the batch of its kind."""
    shared = policy.window_seconds() > 0
    kinds = parts.of(session, model, resolution.labels, resolution.concepts, resolution.by_concept)
    return [
        batches.place(
            session,
            model,
            kind,
            demand.method,
            part,
            shared=shared,
            absorbing=kind == "class" and demand.names_a_class,
        )
        for kind, part in kinds.items()
    ]


def _settle(
    session: orm.Session,
    actor: str,
    policy: models.ModelPolicy,
    demand: demands.Demand,
    request: tables.ForgetRequest,
    placements: Sequence[batches.Placement],
) -> None:
    """Complete at once what is erased already; seal at once what shall not wait for others.

    What follows a batch makes it as urgent as itself, and waits for a person where it does.
    """
    followed = _followed(placements)
    if not followed and not _opened(placements):
        fulfilment.complete(session, request)
    if followed and (reason := batches.why_blocked(session, followed)):
        fulfilment.require_person(session, request, reason)
    if demand.is_expedited or policy.window_seconds() == 0:
        # An open batch is others' too: for who has the model's batches alone, and for the sweep.
        rule, states = "window", {"filling"}
        if demand.is_expedited:
            rule, states = "expedited", {"filling", "open"}
        for batch_id in sorted(_joined(placements)):
            batch = batches.by_id(session, batch_id)
            if batch.state in states:
                sealing.seal(session, batch, actor, rule)
    if followed:
        sealing.restamp(session, followed)


def _fresh(placements: Sequence[batches.Placement]) -> list[str]:
    """The samples that nobody named before."""
    return [one for placement in placements for one in placement.fresh]


def _opened(placements: Sequence[batches.Placement]) -> set[uuid.UUID]:
    """The batches that a demand put something into."""
    return {placement.batch_id for placement in placements if placement.batch_id is not None}


def _followed(placements: Sequence[batches.Placement]) -> set[uuid.UUID]:
    """The batches of others that erase what a demand names too."""
    return set[uuid.UUID]().union(*(placement.followed for placement in placements))


def _joined(placements: Sequence[batches.Placement]) -> set[uuid.UUID]:
    """The batches that a demand waits for."""
    return _opened(placements) | _followed(placements)


def _memberships(
    request: tables.ForgetRequest, placements: Sequence[batches.Placement]
) -> list[dict[str, uuid.UUID]]:
    return [
        {"batch_id": batch_id, "request_id": request.id} for batch_id in sorted(_joined(placements))
    ]


def _same_subject_request(
    session: orm.Session, demand: demands.Demand
) -> tables.ForgetRequest | None:
    if demand.subject_request_id is None:
        return None
    # Two calls at once would both find nothing: the lock makes the second wait for the first.
    key = demand.subject_request_id.int & (2**63 - 1)
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
    earlier = session.scalar(
        sa.select(tables.ForgetRequest).where(
            tables.ForgetRequest.subject_request_id == demand.subject_request_id
        )
    )
    if earlier is not None and earlier.body_digest != demand.digest:
        detail = (
            f"subject_request_id {demand.subject_request_id} came before with another body; "
            "expected the same body again, or a new id"
        )
        raise errors.Conflict("subject-request-conflict", detail)
    return earlier


def _insert(
    session: orm.Session,
    model: tables.Model,
    caller: api_keys.Caller,
    demand: demands.Demand,
    resolution: ledger.Resolution,
    placements: Sequence[batches.Placement],
    *,
    is_held: bool,
) -> tables.ForgetRequest:
    """The request and everything that hangs on it, in one statement: this is the hot path."""
    fresh = _fresh(placements)
    told = {"body_mark": demand.digest, "matched": len(fresh), "unknown": len(resolution.unknown)}
    row = {
        "model_id": model.id,
        "api_key_id": caller.key_id,
        "subject_request_id": demand.subject_request_id,
        "body": demand.body,
        "body_digest": demand.digest,
        "matched": len(fresh),
        "pending": sum(placement.pending for placement in placements),
        "already_erased": sum(placement.already_erased for placement in placements),
        "unknown": len(resolution.unknown),
        "ids": list(resolution.labels),
        "batches": list(_joined(placements)),
        "status": "action_required" if is_held else "pending",
        "stage": batches.AWAITING_APPROVAL if is_held else "queued",
        "reason": "budget_exceeded" if is_held else None,
        "received": {"samples": len(resolution.labels)},
        "actor": caller.actor,
        "told": told,
        **erasures.change(resolution.labels[one] for one in fresh),
    }
    return session.scalars(_INSERT, row).one()


def _insertion() -> sa.Select[tables.ForgetRequest]:
    table = tables.core(tables.ForgetRequest)
    columns = ("model_id", "api_key_id", "subject_request_id", "body", "body_digest")
    state = ("status", "stage", "reason")
    counts = ("matched", "pending", "already_erased", "unknown")
    request = (
        sa.insert(table)
        .values({name: sa.bindparam(name) for name in columns + state + counts})
        .returning(table)
        .cte("request")
    )
    samples = sa.insert(tables.core(tables.RequestSample)).from_select(
        ["request_id", "sample_id"],
        sa.select(request.c.id, sa.func.unnest(sa.bindparam("ids", type_=database.Names))),
    )
    members = sa.insert(tables.core(tables.BatchMember)).from_select(
        ["request_id", "batch_id"],
        sa.select(request.c.id, sa.func.unnest(sa.bindparam("batches", type_=sa.ARRAY(sa.Uuid)))),
    )
    counted = erasures.counted(request.c.model_id)
    entity = orm.aliased(tables.ForgetRequest, request)
    return sa.select(entity).add_cte(
        samples.cte("samples"),
        members.cte("members"),
        counted.cte("counted"),
        telling.event_from(
            request.c.id, "received", sa.bindparam("received", type_=postgresql.JSONB)
        ).cte("event"),
        telling.audit_from(
            sa.bindparam("actor", type_=sa.Text),
            "forget_request.submit",
            request.c.id,
            sa.bindparam("told", type_=postgresql.JSONB),
        ).cte("audit"),
    )


_INSERT = _insertion()
