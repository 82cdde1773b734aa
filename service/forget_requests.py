"""Forget requests: submitted, resolved, batched, withdrawn, decided."""

import datetime
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import specs
from service import (
    api_keys,
    batches,
    errors,
    jobs,
    ledger,
    models,
    settings,
    tables,
    telling,
    versions,
)

OPEN = ("pending", "in_progress", "action_required")
# Of several batches a client sees the one that is at work, then one that needs a person.
_TOLD_FIRST = {"sealed": 0, "open": 1, "filling": 1, "blocked": 2, "verified": 3, "completed": 4}


@dataclass(frozen=True)
class Demand:
    """What a caller asks for; ``body`` is the same as JSON, ``digest`` its SHA-256."""

    model: str
    targets: tuple[specs.Target, ...]
    method: Mapping[str, Any]
    subject_request_id: uuid.UUID | None
    priority: str
    body: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class Preview:
    """What a demand would do."""

    matched: int
    already_erased: int
    pending: int
    unknown: tuple[errors.Problem, ...]
    share: float
    jobs: tuple[specs.ForgetKind, ...]
    expected_completion_at: datetime.datetime


@dataclass(frozen=True)
class View:
    """A request with the batch and the job that serve it now."""

    request: tables.ForgetRequest
    model: str
    batch_id: uuid.UUID | None
    job: tables.Job | None
    expected_completion_at: datetime.datetime | None


def submit(session: orm.Session, caller: api_keys.Caller, demand: Demand) -> tables.ForgetRequest:
    """Write a request, its targets, its place in a batch, and what tells of them.

    A repeated ``subject_request_id`` with the same body returns the first request. Raises
    :class:`errors.Invalid` (``invalid-target``, ``forget-budget-exceeded``, ``invalid-method``,
    ``model-not-ready``) and :class:`errors.Conflict` (``subject-request-conflict``).
    """
    if (earlier := _same_subject_request(session, demand)) is not None:
        return earlier
    model = _served_model(session, demand)
    resolution = _resolved(session, model, demand)
    parts = _checked_parts(session, model, demand, resolution)
    request = tables.ForgetRequest(
        model_id=model.id,
        api_key_id=caller.key_id,
        subject_request_id=demand.subject_request_id,
        body=demand.body,
        body_digest=demand.digest,
        stage="queued",
        unknown=len(resolution.unknown),
    )
    session.add(request)
    session.flush()
    telling.event(session, request.id, "received", samples=len(resolution.labels))
    _write_samples(session, request, list(resolution.labels))
    erased_in: list[int] = []
    for kind, (method, sample_ids) in parts.items():
        placement = batches.join(session, model, request, kind, method, sample_ids)
        request.matched += placement.matched
        request.pending += placement.pending
        erased_in += placement.erased_in
    request.already_erased = len(erased_in)
    if request.matched == 0 and request.pending == 0:
        complete(session, request, max(erased_in))
    telling.audit(
        session,
        caller.actor,
        "forget_request.submit",
        request.id,
        body_sha256=demand.digest,
        matched=request.matched,
        unknown=request.unknown,
    )
    session.flush()
    session.refresh(request)
    return request


def preview(session: orm.Session, demand: Demand) -> Preview:
    """What :func:`submit` would do, without doing it; unknown targets are told, not raised."""
    model = _served_model(session, demand)
    resolution = ledger.resolve(session, model, demand.targets)
    states = dict(
        session.execute(
            sa.select(tables.Erasure.sample_id, tables.Erasure.version).where(
                tables.Erasure.model_id == model.id,
                tables.Erasure.sample_id
                == sa.any_(sa.literal(list(resolution.labels), sa.ARRAY(sa.Text))),
            )
        ).tuples().all()
    )
    fresh = {key: label for key, label in resolution.labels.items() if key not in states}
    size = ledger.training_size(session, model)
    kinds = tuple(ledger.by_part(session, model, fresh))
    ahead = _jobs_ahead(session, model.id, None) + max(len(kinds), 1)
    now = session.scalar(sa.select(sa.func.clock_timestamp()))
    if now is None:
        now = datetime.datetime.now(datetime.UTC)
    return Preview(
        matched=len(fresh),
        already_erased=sum(version is not None for version in states.values()),
        pending=sum(version is None for version in states.values()),
        unknown=resolution.unknown + resolution.unusable,
        share=len(resolution.labels) / size if size else 0.0,
        jobs=kinds,
        expected_completion_at=now
        + datetime.timedelta(seconds=ahead * _typical_job_seconds(session, model.id)),
    )


def by_id(
    session: orm.Session, request_id: uuid.UUID, *, lock: bool = False
) -> tables.ForgetRequest:
    """The request; raises :class:`errors.NotFound`."""
    request = session.get(tables.ForgetRequest, request_id, with_for_update=lock or None)
    if request is None:
        raise errors.NotFound("forget-request-not-found", f"no forget request {request_id}")
    return request


def view(session: orm.Session, request: tables.ForgetRequest) -> View:
    """A request as a client sees it."""
    model = session.get_one(tables.Model, request.model_id)
    batch = session.scalar(
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id)
        .order_by(sa.case(_TOLD_FIRST, value=tables.Batch.state, else_=9), tables.Batch.id)
        .limit(1)
    )
    job = None if batch is None else batches.newest_job(session, batch.id)
    return View(
        request=request,
        model=model.name,
        batch_id=None if batch is None else batch.id,
        job=job,
        expected_completion_at=_expected(session, request, job),
    )


def listing(
    session: orm.Session,
    *,
    status: str | None,
    model: str | None,
    due_before: datetime.datetime | None,
    after: uuid.UUID | None,
    limit: int,
) -> Sequence[tables.ForgetRequest]:
    """Requests behind ``after``, oldest first; one more than ``limit`` tells of a next page."""
    statement = sa.select(tables.ForgetRequest).order_by(tables.ForgetRequest.id).limit(limit + 1)
    if status is not None:
        statement = statement.where(tables.ForgetRequest.status == status)
    if model is not None:
        statement = statement.where(
            tables.ForgetRequest.model_id == models.by_name(session, model).id
        )
    if due_before is not None:
        statement = statement.where(tables.ForgetRequest.due_at < due_before)
    if after is not None:
        statement = statement.where(tables.ForgetRequest.id > after)
    return session.scalars(statement).all()


def withdraw(session: orm.Session, actor: str, request_id: uuid.UUID) -> tables.ForgetRequest:
    """Withdraw a request; raises :class:`errors.Conflict` (``batch-sealed``) if it is too late."""
    request = by_id(session, request_id, lock=True)
    if request.status == "cancelled":
        return request
    if request.status != "pending":
        detail = f"this request is {request.status}; only a pending one can be withdrawn"
        raise errors.Conflict("batch-sealed", detail)
    batches.require_open(session, request)
    batches.leave(session, request)
    _close(session, request, "cancelled", request.stage)
    telling.audit(session, actor, "forget_request.withdraw", request.id)
    return request


def complete(session: orm.Session, request: tables.ForgetRequest, version: int) -> None:
    """Everything that the request named is gone from ``version`` and what is made from it."""
    request.result_version = version
    request.reason = None
    _close(session, request, "completed", "done", result_version=version)


def block(session: orm.Session, batch_id: uuid.UUID, reason: str) -> None:
    """The batch could not be served: its open requests need a person."""
    for request in batches.members(session, batch_id):
        if request.status in OPEN:
            request.status, request.reason = "action_required", reason
            _tell(session, request, "action_required", reason=reason)


def advance(session: orm.Session, batch_id: uuid.UUID, stage: str) -> None:
    """The batch's job entered a stage."""
    for request in batches.members(session, batch_id):
        if request.status in OPEN:
            request.status, request.stage, request.reason = "in_progress", stage, None
            _tell(session, request, "stage", stage=stage)


def wait_again(session: orm.Session, batch_id: uuid.UUID) -> None:
    """The batch's job went back to the queue; the duty stays."""
    for request in batches.members(session, batch_id):
        if request.status == "in_progress":
            request.status, request.stage = "pending", "queued"
            _tell(session, request, "stage", stage="queued")


def approve(
    session: orm.Session, actor: str, request: tables.ForgetRequest, reason: str
) -> tables.ForgetRequest:
    """A person decides to try again: the request's blocked batches get a new job."""
    _require_action(request, "approve")
    blocked = session.scalars(
        sa.select(tables.Batch)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Batch.id)
        .where(tables.BatchMember.request_id == request.id, tables.Batch.state == "blocked")
        .with_for_update(of=tables.Batch)
    ).all()
    model = session.get_one(tables.Model, request.model_id)
    for batch in blocked:
        batches.seal(session, model, batch)
        for member in batches.members(session, batch.id):
            if member.status == "action_required":
                member.status, member.stage, member.reason = "pending", "sealed", None
                _tell(session, member, "approved")
    telling.audit(session, actor, "forget_request.approve", request.id, reason_given=bool(reason))
    return request


def deny(
    session: orm.Session, actor: str, request: tables.ForgetRequest, reason: str
) -> tables.ForgetRequest:
    """A person decides that nothing is to be erased."""
    _require_action(request, "deny")
    request.reason = "denied_by_operator"
    batches.leave(session, request)
    _close(session, request, "denied", request.stage)
    telling.audit(session, actor, "forget_request.deny", request.id, reason_given=bool(reason))
    return request


def report(session: orm.Session, request: tables.ForgetRequest) -> dict[str, Any]:
    """The newest verification report made for a request, passed or not.

    Raises :class:`errors.Conflict` (``request-unfinished``) while there is none.
    """
    version = session.scalar(
        sa.select(tables.Version)
        .join(tables.Job, tables.Job.id == tables.Version.job_id)
        .join(tables.BatchMember, tables.BatchMember.batch_id == tables.Job.subject_id)
        .where(tables.BatchMember.request_id == request.id, tables.Version.report.is_not(None))
        .order_by(tables.Version.number.desc())
        .limit(1)
    )
    if version is None and request.result_version is not None:
        model = session.get_one(tables.Model, request.model_id)
        version = versions.by_number(session, model, request.result_version)
    if version is None or version.report is None:
        detail = f"this request is {request.status} ({request.stage}); there is no report yet"
        raise errors.Conflict("request-unfinished", detail)
    return {"version": version.number, **version.report}


# --- private --------------------------------------------------------------------------------


def _same_subject_request(session: orm.Session, demand: Demand) -> tables.ForgetRequest | None:
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


def _served_model(session: orm.Session, demand: Demand) -> tables.Model:
    try:
        model = models.by_name(session, demand.model)
    except errors.NotFound as missing:
        problem = errors.Problem("/model", "unknown-model", missing.detail)
        raise errors.Invalid("invalid-target", missing.detail, [problem]) from missing
    if model.head is None:
        detail = f"model {model.name!r} has no published version yet; nothing is served to forget"
        problem = errors.Problem("/model", "model-not-ready", detail)
        raise errors.Invalid("invalid-target", detail, [problem])
    return model


def _resolved(session: orm.Session, model: tables.Model, demand: Demand) -> ledger.Resolution:
    resolution = ledger.resolve(session, model, demand.targets)
    problems = list(resolution.unusable)
    if not resolution.labels:
        problems += resolution.unknown
    if problems:
        detail = f"{len(problems)} targets name nothing to forget: {problems[0].detail}"
        raise errors.Invalid("invalid-target", detail, problems[: ledger.MAX_PROBLEMS])
    return resolution


def _checked_parts(
    session: orm.Session, model: tables.Model, demand: Demand, resolution: ledger.Resolution
) -> dict[specs.ForgetKind, tuple[specs.UnlearningSpec, list[str]]]:
    size = ledger.training_size(session, model)
    limit = models.policy_of(model).max_forget_share
    share = (len(resolution.labels) + ledger.forgotten_count(session, model)) / max(size, 1)
    if share > limit:
        detail = (
            f"this and what is forgotten already come to {share:.1%} of the training set; "
            f"the model's policy allows {limit:.1%}"
        )
        raise errors.Invalid("forget-budget-exceeded", detail)
    parts = ledger.by_part(session, model, resolution.labels)
    return {kind: (_method(kind, demand.method), ids) for kind, ids in parts.items()}


def _method(kind: specs.ForgetKind, pinned: Mapping[str, Any]) -> specs.UnlearningSpec:
    try:
        named = specs.UnlearningSpec.model_validate(pinned).method
        default = specs.default_spec(kind, method=named).model_dump()
        return specs.UnlearningSpec.model_validate({**default, **pinned})
    except pydantic.ValidationError as error:
        problems = [
            errors.Problem("/method/" + "/".join(map(str, item["loc"])), item["type"], item["msg"])
            for item in error.errors()
        ]
        detail = f"method: {problems[0].detail}"
        raise errors.Invalid("invalid-method", detail, problems) from error


def _write_samples(
    session: orm.Session, request: tables.ForgetRequest, sample_ids: Sequence[str]
) -> None:
    session.execute(
        sa.insert(tables.RequestSample).from_select(
            ["request_id", "sample_id"],
            sa.select(
                sa.literal(request.id),
                sa.func.unnest(sa.literal(list(sample_ids), sa.ARRAY(sa.Text))),
            ),
        )
    )


def _close(
    session: orm.Session,
    request: tables.ForgetRequest,
    status: str,
    stage: str,
    **data: Any,  # noqa: ANN401
) -> None:
    request.status, request.stage = status, stage
    request.completed_at = sa.func.clock_timestamp()
    _tell(session, request, status, **data)


def _tell(
    session: orm.Session,
    request: tables.ForgetRequest,
    kind: str,
    **data: Any,  # noqa: ANN401
) -> None:
    request.updated_at = sa.func.clock_timestamp()
    telling.event(session, request.id, kind, **data)
    telling.changed(session, request.id)


def _require_action(request: tables.ForgetRequest, verb: str) -> None:
    if request.status != "action_required":
        detail = f"cannot {verb} a request that is {request.status}; expected action_required"
        raise errors.Conflict("not-awaiting-decision", detail)


def _expected(
    session: orm.Session, request: tables.ForgetRequest, job: tables.Job | None
) -> datetime.datetime | None:
    if request.status not in {"pending", "in_progress"}:
        return request.completed_at
    if job is not None and job.eta_seconds is not None and job.lease_expires_at is not None:
        lease = settings.load().lease_seconds
        return job.lease_expires_at + datetime.timedelta(seconds=job.eta_seconds - lease)
    ahead = 1 + (0 if job is None else _jobs_ahead(session, request.model_id, job))
    typical = _typical_job_seconds(session, request.model_id)
    return request.received_at + datetime.timedelta(seconds=ahead * typical)


def _jobs_ahead(session: orm.Session, model_id: uuid.UUID, job: tables.Job | None) -> int:
    statement = (
        sa.select(sa.func.count())
        .select_from(tables.Job)
        .where(tables.Job.line == f"model:{model_id}", tables.Job.status.in_(("queued", "running")))
    )
    if job is not None:
        statement = statement.where(tables.Job.id < job.id)
    return session.scalar(statement) or 0


def _typical_job_seconds(session: orm.Session, model_id: uuid.UUID) -> float:
    """95th percentile of the model's finished jobs; 5 minutes before the first."""
    run_time = sa.func.extract("epoch", tables.Job.finished_at - tables.Job.started_at)
    typical = session.scalar(
        sa.select(sa.func.percentile_cont(0.95).within_group(run_time)).where(
            tables.Job.line == f"model:{model_id}",
            tables.Job.kind == jobs.UNLEARNING,
            tables.Job.status == "succeeded",
        )
    )
    return 300.0 if typical is None else float(typical)
