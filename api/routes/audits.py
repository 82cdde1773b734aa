"""``/v1/models/{model}/versions/{number}/audits``: a closer look at an unlearned version."""

import hashlib
import json
import uuid
from typing import Any

import fastapi
from fastapi import responses
from starlette import concurrency

from api import auth, presenting, relay, repeating, reports, sessions, waiting
from api.routes import registry
from api.schemas import audits as schemas
from api.schemas import base
from service import (
    audit_options,
    audits,
    database,
    errors,
    idempotency,
    models,
    plans,
    tables,
    versions,
)

router = fastapi.APIRouter(prefix="/v1/models/{model}/versions/{number}/audits", tags=["audits"])
RETRY_AFTER_SECONDS = 5


@router.post(
    "",
    status_code=202,
    response_model=schemas.AuditOut,
    dependencies=[relay.AFTER_COMMIT],
)
def request_audit(
    session: sessions.Session,
    caller: auth.Approver,
    model: base.Name,
    number: registry.Number,
    body: audit_options.AuditOptions,
    idempotency_key: repeating.IdempotencyKey = None,
) -> responses.Response:
    """Have a version compared with retrained nets, other masks and shadow nets.

    It costs several trainings, so it takes the scope of those who decide on verifications
    (``requests:approve``), not that of those who submit requests. It runs after all unlearning.
    """
    key = repeating.required(idempotency_key)
    digest = _digest(model, number, body)
    answer = idempotency.begin(session, caller.key_id, key, digest)
    if answer is None:
        owner, version = _version(session, model, number)
        versions.refuse_revoked(owner, version)
        requested = audits.request(session, caller.actor, version, body)
        plans.of_version(session, version)
        shown = _shown(session, owner, version, requested)
        answer = repeating.accepted(shown, shown.links["self"], RETRY_AFTER_SECONDS)
        idempotency.complete(session, caller.key_id, key, answer)
    return responses.JSONResponse(answer["body"], 202, answer["headers"])


@router.get("", response_model=schemas.AuditsOut)
def listing(
    session: sessions.Session, _: auth.Reader, model: base.Name, number: registry.Number
) -> schemas.AuditsOut:
    """Every audit of a version, newest first, without the results."""
    owner, version = _version(session, model, number)
    found = audits.listing(session, version)
    return schemas.AuditsOut(
        items=[presenting.audit_item(owner, version, row, job) for row, job in found]
    )


@router.get("/{audit_id}", response_model=schemas.AuditOut, responses=reports.OPENAPI)
async def poll(
    request: fastapi.Request,
    _: auth.Reader,
    model: base.Name,
    number: registry.Number,
    audit_id: uuid.UUID,
    form: reports.Form = None,
) -> fastapi.Response:
    """An audit as it stands, or, once completed, as a page (409 ``audit-unfinished`` before,
    ``audit-failed`` where there will be none).

    As JSON, ``If-None-Match`` and ``Prefer: wait=N`` are honoured.
    """
    if reports.wants_page(request, form):
        return await concurrency.run_in_threadpool(_page, model, number, audit_id)
    return await waiting.conditional(request, lambda: _represent(model, number, audit_id))


def _version(
    session: sessions.Session, model: str, number: int
) -> tuple[tables.Model, tables.Version]:
    owner = models.by_name(session, model)
    return owner, versions.by_number(session, owner, number)


def _shown(
    session: sessions.Session, owner: tables.Model, version: tables.Version, audit: tables.Audit
) -> schemas.AuditOut:
    return presenting.audit(owner, version, audit, audits.job_of(session, audit))


def _read(
    session: sessions.Session, model: str, number: int, audit_id: uuid.UUID
) -> schemas.AuditOut:
    owner, version = _version(session, model, number)
    return _shown(session, owner, version, audits.by_id(session, version, audit_id))


def _represent(model: str, number: int, audit_id: uuid.UUID) -> waiting.Representation:
    with database.transaction() as session:
        shown = _read(session, model, number, audit_id)
        return waiting.represent(shown, frozenset({str(shown.job_id)}), Vary="Accept")


def _page(model: str, number: int, audit_id: uuid.UUID) -> responses.Response:
    with database.transaction() as session:
        shown = _read(session, model, number, audit_id)
    if shown.status == "failed":
        code = (shown.error or {}).get("code")
        raise errors.Conflict("audit-failed", f"this audit failed ({code}); ask for another")
    if shown.result is None:
        detail = f"this audit is {shown.status} ({shown.stage}); there is nothing to show yet"
        raise errors.Conflict("audit-unfinished", detail)

    # Loads matplotlib, which an API that is never asked for a page does not need.
    from service import audit_page

    told: dict[str, Any] = {**shown.result, "finished_at": shown.finished_at}
    return reports.page(audit_page.render(told), audit_page.CONTENT_SECURITY_POLICY)


def _digest(model: str, number: int, options: audit_options.AuditOptions) -> str:
    told = [model, number, options.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
