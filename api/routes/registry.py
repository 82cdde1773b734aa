"""``/v1/models``: registered nets, their versions, and the pointers that serving systems pull."""

import asyncio
import uuid
from typing import Annotated, Any

import fastapi
import pydantic
from fastapi import responses
from starlette import concurrency

from api import auth, presenting, reports, sessions, waiting
from api.schemas import base, registry
from service import (
    aliases,
    artifacts,
    database,
    deployments,
    errors,
    jobs,
    models,
    publication,
    settings,
    tables,
    validation,
    versions,
)

router = fastapi.APIRouter(prefix="/v1", tags=["models and versions"])
Number = Annotated[int, fastapi.Path(ge=1, lt=2**31)]
IfMatch = Annotated[str | None, fastapi.Header(alias="If-Match")]


@router.post("/models", status_code=201, response_model=registry.ModelOut)
def register(
    session: sessions.Session,
    caller: auth.Writer,
    body: registry.ModelIn,
    response: fastapi.Response,
) -> registry.ModelOut:
    """Register a net over a dataset that is ready."""
    try:
        policy = models.ModelPolicy.model_validate(body.policy or {})
    except pydantic.ValidationError as error:
        found = [{**item, "loc": ("body", "policy", *item["loc"])} for item in error.errors()]
        raise fastapi.exceptions.RequestValidationError(found) from error
    model = models.register(session, caller.actor, body.name, body.family, body.dataset, policy)
    response.headers["Location"] = f"/v1/models/{model.name}"
    return presenting.model(session, model)


@router.get("/models", response_model=registry.ModelsOut)
def list_models(session: sessions.Session, _: auth.ReaderOfModels) -> registry.ModelsOut:
    """Every model, by name."""
    found = models.listing(session)
    return registry.ModelsOut(items=[presenting.model(session, row) for row in found])


@router.get("/models/{model}", response_model=registry.ModelOut)
def show(session: sessions.Session, _: auth.ReaderOfModels, model: base.Name) -> registry.ModelOut:
    """A net with its aliases and policy."""
    return presenting.model(session, models.by_name(session, model))


@router.post("/models/{model}/versions", status_code=202, response_model=registry.VersionOut)
async def add_version(
    request: fastapi.Request,
    caller: auth.Writer,
    model: base.Name,
    body: registry.VersionIn,
    response: fastapi.Response,
) -> registry.VersionOut:
    """Add a base version: checked here, then by a worker against the architecture.

    The call waits a little for the worker, so that a version that does not fit is refused with 422
    and never exists. When the worker is busy the answer is 202 with state ``staged``; poll it.
    Once the model has forgotten something, ``trained_without`` must say that the net never knew it.
    """
    files = [artifacts.FileRef(file.path, file.digest, file.size) for file in body.files]
    number, job_id = await concurrency.run_in_threadpool(
        _stage, caller.actor, model, files, body.trained_without
    )
    request.app.state.relay.nudge()
    await _until_finished(request, job_id)
    shown = await concurrency.run_in_threadpool(_validated, model, number)
    response.headers["Location"] = f"/v1/models/{model}/versions/{number}"
    response.headers["Retry-After"] = "1"
    return shown


@router.get("/models/{model}/versions", response_model=registry.VersionsOut)
def list_versions(
    session: sessions.Session, _: auth.ReaderOfModels, model: base.Name
) -> registry.VersionsOut:
    """Every version, newest first."""
    owner = models.by_name(session, model)
    rows = versions.listing(session, owner)
    return registry.VersionsOut(items=[presenting.version(session, owner, row) for row in rows])


@router.get("/models/{model}/versions/{number}", response_model=registry.VersionOut)
def show_version(
    session: sessions.Session, _: auth.ReaderOfModels, model: base.Name, number: Number
) -> registry.VersionOut:
    """A version's state and files; 410 once revoked."""
    owner, version = _unrevoked(session, model, number)
    return presenting.version(session, owner, version)


@router.get("/models/{model}/versions/{number}/manifest")
def manifest(
    request: fastapi.Request,
    session: sessions.Session,
    _: auth.Puller,
    model: base.Name,
    number: Number,
) -> responses.Response:
    """The manifest's very bytes; their SHA-256 is ``manifest_digest``. 304 to who has it."""
    owner, version = _unrevoked(session, model, number)
    versions.refuse_unservable(owner, version)
    headers = {"ETag": f'"{version.manifest_digest}"', "Cache-Control": "private, no-cache"}
    if waiting.has(request, headers["ETag"]):
        return responses.Response(status_code=304, headers=headers)
    return responses.Response(version.manifest, media_type="application/json", headers=headers)


@router.get(
    "/models/{model}/versions/{number}/report",
    response_model=dict[str, Any],
    responses=reports.OPENAPI,
)
def report(
    request: fastapi.Request,
    _: auth.Puller,
    model: base.Name,
    number: Number,
    form: reports.Form = None,
) -> responses.Response:
    """The verification report of an unlearned version, passed or not, as JSON or as a page."""
    with database.transaction() as session:
        version = _unrevoked(session, model, number)[1]
    if version.report is None:
        raise errors.NotFound("report-not-found", f"version {number} was uploaded, not unlearned")
    return reports.answer(request, form, version.report, version)


@router.post("/models/{model}/versions/{number}/revoke", response_model=registry.VersionOut)
def revoke(
    session: sessions.Session,
    caller: auth.Admin,
    model: base.Name,
    number: Number,
    body: base.ReasonIn,
) -> registry.VersionOut:
    """Refuse a version from now on (410)."""
    owner = models.by_name(session, model, lock=True)
    version = versions.revoke(session, caller.actor, owner, number, body.reason)
    return presenting.version(session, owner, version)


@router.get("/models/{model}/aliases/{alias}", response_model=registry.PointerOut)
async def pointer(
    request: fastapi.Request, _: auth.ReaderOfModels, model: base.Name, alias: base.Name
) -> fastapi.Response:
    """The pull pointer; ``If-None-Match`` and ``Prefer: wait=N`` hold until it moves.

    Its ETag also changes when any version is revoked: who kept one for readers looks again.
    """
    return await waiting.conditional(request, lambda: _pointer(model, alias))


@router.put(
    "/models/{model}/aliases/{alias}",
    response_model=registry.PointerOut,
)
def move_alias(
    session: sessions.Session,
    caller: auth.Writer,
    model: base.Name,
    alias: base.Name,
    body: registry.AliasIn,
    response: fastapi.Response,
    if_match: IfMatch = None,
) -> registry.PointerOut:
    """Move an alias; never to a version that lacks a completed erasure.

    ``If-Match`` is the ETag of the pointer, or ``*`` with any state, or ``"0"`` for a new alias.
    """
    if if_match is None:
        detail = 'expected If-Match with the pointer\'s ETag, or "0" for a new alias'
        raise errors.Invalid("precondition-required", detail)
    owner = publication.hold_model(session, models.by_name(session, model).id)
    serial = _serial(session, owner, alias, if_match)
    publication.move_alias(session, caller.actor, owner, alias, body.version, serial)
    session.flush()
    session.expire_all()
    found = aliases.point(session, owner, alias)
    response.headers["ETag"] = _represent_pointer(found).etag
    return registry.PointerOut.model_validate(vars(found))


@router.post("/deployments/{deployment}/reports", response_model=registry.DeploymentReportOut)
def report_deployment(
    session: sessions.Session,
    _: auth.Puller,
    deployment: base.Name,
    body: registry.DeploymentReportIn,
) -> registry.DeploymentReportOut:
    """A serving system says what it runs. From now on requests are complete once it has pulled."""
    owner = models.by_name(session, body.model)
    version = versions.by_number(session, owner, body.version)
    up_to_date = publication.note_deployment(
        session, deployment, owner, version, body.manifest_digest, body.loaded_at
    )
    return registry.DeploymentReportOut(
        deployment=deployment,
        model=owner.name,
        version=version.number,
        manifest_digest=body.manifest_digest,
        up_to_date=up_to_date,
        min_version=aliases.min_version(session, owner),
    )


@router.get("/models/{model}/deployments", response_model=registry.DeploymentsOut)
def list_deployments(
    session: sessions.Session, _: auth.ReaderOfDeployments, model: base.Name
) -> registry.DeploymentsOut:
    """What serving systems said last that they run."""
    found = deployments.listing(session, models.by_name(session, model))
    items = [registry.DeploymentOut.model_validate(vars(one)) for one in found]
    return registry.DeploymentsOut(items=items)


@router.delete("/models/{model}/deployments/{deployment}", status_code=204)
def remove_deployment(
    session: sessions.Session, caller: auth.Writer, model: base.Name, deployment: base.Name
) -> None:
    """A deployment serves the model no more: no request waits for it."""
    publication.remove_deployment(session, caller.actor, models.by_name(session, model), deployment)


def _unrevoked(
    session: sessions.Session, model: str, number: int
) -> tuple[tables.Model, tables.Version]:
    owner = models.by_name(session, model)
    version = versions.by_number(session, owner, number)
    versions.refuse_revoked(owner, version)
    return owner, version


def _pointer(model: str, alias: str) -> waiting.Representation:
    with database.transaction() as session:
        owner = models.by_name(session, model)
        return _represent_pointer(aliases.point(session, owner, alias), str(owner.id))


def _represent_pointer(found: aliases.Pointer, *keys: str) -> waiting.Representation:
    """The validator names the pointer's state, not the moment at which it was issued."""
    body = registry.PointerOut.model_validate(vars(found)).model_dump_json().encode()
    version = f"{found.serial}-{found.version}-{found.min_version}-{found.withdrawn}"
    return waiting.Representation(body, frozenset(keys), version=version)


def _serial(
    session: sessions.Session, owner: tables.Model, alias: str, if_match: str
) -> int | None:
    """The serial that ``If-Match`` names; ``None`` stands for an alias that is not there."""
    try:
        current = aliases.point(session, owner, alias)
    except errors.NotFound:
        return None if if_match.strip() in {'"0"', "0"} else -1
    given = if_match.strip().strip('"').partition("-")[0]  # the serial tells of every move
    return current.serial if given in {"*", str(current.serial)} else -1


def _stage(
    actor: str, model: str, files: list[artifacts.FileRef], trained_without: int | None
) -> tuple[int, uuid.UUID]:
    with database.transaction() as session:
        owner = models.by_name(session, model, lock=True)
        version, job = validation.stage(session, actor, owner, files, trained_without)
        return version.number, job.id


async def _until_finished(request: fastapi.Request, job_id: uuid.UUID) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.load().validation_wait_seconds
    with request.app.state.changes.watching([str(job_id)]) as signal:
        while not await concurrency.run_in_threadpool(_is_finished, job_id):
            left = end - loop.time()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(signal.wait(), min(left, 1.0))
            except TimeoutError:
                continue
            signal.clear()


def _is_finished(job_id: uuid.UUID) -> bool:
    with database.transaction() as session:
        return jobs.by_id(session, job_id).status not in jobs.UNFINISHED


def _validated(model: str, number: int) -> registry.VersionOut:
    """The version as it stands, or the refusal that the worker found."""
    with database.transaction() as session:
        owner = models.by_name(session, model, lock=True)
        version = versions.by_number(session, owner, number)
        problems = [errors.Problem(**item) for item in version.errors]
        if not problems:
            return presenting.version(session, owner, version)
        validation.discard(session, version)
    if problems[0].code == "erasure-regression":
        raise errors.Conflict("erasure-regression", problems[0].detail)
    raise errors.Invalid("unsafe-artifact", problems[0].detail, problems)
