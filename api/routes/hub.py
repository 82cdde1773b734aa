"""The Hugging Face hub's read protocol, so that stock clients pull with ``HF_ENDPOINT`` set to us.

Revisions are aliases, version numbers, ``main`` (= ``production``) and the sha, a truncated
manifest digest, of versions that passed. A revoked revision answers 410 **with** ``X-Error-Code:
RevisionNotFound``: without that header clients quietly serve old weights from their cache.
"""

from typing import Annotated, Any

import fastapi
import sqlalchemy as sa
from fastapi import responses
from sqlalchemy import orm

from api import auth, errors, sessions
from api.routes import blobs
from api.schemas import base
from service import aliases, api_keys, models, tables, versions
from service import errors as refusals

router = fastapi.APIRouter(tags=["hub read protocol"])
Revision = Annotated[str, fastapi.Path(min_length=1, max_length=96, pattern=base.NO_NUL)]


class HubError(Exception):
    """A refusal with the ``X-Error-Code`` that stock clients act on."""

    def __init__(
        self,
        refusal: refusals.Refusal | errors.Unauthenticated,
        code: str,
        commit: str | None = None,
    ) -> None:
        super().__init__(str(refusal))
        self.refusal, self.code, self.commit = refusal, code, commit


def _puller(credentials: auth.Credentials) -> api_keys.Caller:
    """The caller. A key that is refused is told with a code too, like what was revoked."""
    try:
        caller = auth.identify(credentials)
        caller.require("models:pull")
    except (errors.Unauthenticated, refusals.Forbidden) as refused:
        raise HubError(refused, "RevisionNotFound") from refused
    return caller


Puller = Annotated[api_keys.Caller, fastapi.Depends(_puller)]


def install(app: fastapi.FastAPI) -> None:
    """Render :class:`HubError` with its headers."""
    app.add_exception_handler(HubError, _render)


@router.get("/api/models/{model}")
def model_info(session: sessions.Session, _: Puller, model: base.Name) -> dict[str, Any]:
    """What ``main`` is now."""
    return _info(session, model, "main")


@router.get("/api/models/{model}/revision/{revision}")
def revision_info(
    session: sessions.Session, _: Puller, model: base.Name, revision: Revision
) -> dict[str, Any]:
    """The sha of a revision and its files."""
    return _info(session, model, revision)


@router.get("/api/models/{model}/tree/{revision}")
def tree(
    session: sessions.Session, _: Puller, model: base.Name, revision: Revision
) -> list[dict[str, Any]]:
    """The files of a revision with sizes and digests."""
    version = _resolve(session, model, revision)[1]
    return [
        {
            "type": "file",
            "path": file.path,
            "size": file.size,
            "oid": file.digest[: versions.SHA_LENGTH],
            "lfs": {"oid": file.digest, "size": file.size, "pointerSize": 134},
        }
        for file in versions.files_of(session, version)
    ]


@router.head("/{model}/resolve/{revision}/{path:path}", response_class=responses.FileResponse)
@router.get("/{model}/resolve/{revision}/{path:path}", response_class=responses.FileResponse)
def resolve(
    request: fastapi.Request,
    session: sessions.Session,
    _: Puller,
    model: base.Name,
    revision: Revision,
    path: str,
) -> responses.Response:
    """One file of a revision."""
    version = _resolve(session, model, revision)[1]
    commit = versions.sha_of(version)
    for file in versions.files_of(session, version):
        if file.path == path:
            headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(file.size)}
            return blobs.file_response(request, session, file.digest, headers)
    missing = refusals.NotFound(
        "entry-not-found", f"revision {revision!r} has no file {path[:200]!r}"
    )
    raise HubError(missing, "EntryNotFound", commit)


def _info(session: orm.Session, model: str, revision: str) -> dict[str, Any]:
    owner, version = _resolve(session, model, revision)
    return {
        "id": owner.name,
        "modelId": owner.name,
        "sha": versions.sha_of(version),
        "lastModified": version.created_at.isoformat().replace("+00:00", "Z"),
        "private": True,
        "siblings": [{"rfilename": file.path} for file in versions.files_of(session, version)],
    }


def _resolve(
    session: orm.Session, model: str, revision: str
) -> tuple[tables.Model, tables.Version]:
    """The version that a revision names; raises :class:`HubError`."""
    try:
        owner = models.by_name(session, model)
    except refusals.NotFound as missing:
        raise HubError(missing, "RepoNotFound") from missing
    try:
        version = _named(session, owner, revision)
        versions.refuse_unservable(owner, version)
    except (refusals.NotFound, refusals.Gone) as refusal:
        raise HubError(refusal, "RevisionNotFound") from refusal
    return owner, version


def _named(session: orm.Session, owner: tables.Model, revision: str) -> tables.Version:
    if revision.isascii() and revision.isdigit() and len(revision) < 10:
        return versions.by_number(session, owner, int(revision))
    by_sha = session.scalar(
        sa.select(tables.Version).where(
            tables.Version.model_id == owner.id,
            sa.func.left(tables.Version.manifest_digest, versions.SHA_LENGTH) == revision,
        )
    )
    if by_sha is not None:
        return by_sha
    alias = models.PRODUCTION if revision == "main" else revision
    return versions.by_number(session, owner, aliases.point(session, owner, alias).version)


def _render(_: fastapi.Request, error: Exception) -> responses.Response:
    if not isinstance(error, HubError):
        raise error
    answer = errors.answer(error.refusal)
    answer.headers["X-Error-Code"] = error.code
    if isinstance(error.refusal, refusals.Refusal):
        answer.headers["X-Error-Message"] = error.refusal.code
    if error.commit is not None:
        answer.headers["X-Repo-Commit"] = error.commit
    return answer
