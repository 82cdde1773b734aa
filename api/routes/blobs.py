"""``/v1/blobs``: content by its SHA-256, uploaded once, served with ranges."""

import base64

import fastapi
from fastapi import responses
from starlette import concurrency, datastructures, types

from api import auth, sessions, waiting
from api import errors as api_errors
from api.schemas import base, registry
from service import destruction, errors, settings, storage, tables, versions

router = fastapi.APIRouter(prefix="/v1/blobs/sha256", tags=["blobs"])
WRITE_BYTES = 2**20


@router.put(
    "/{digest}",
    status_code=201,
    response_model=registry.BlobOut,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def upload(request: fastapi.Request, _: auth.Writer, digest: base.Digest) -> registry.BlobOut:
    """Store content under its digest; anything else than that content is refused."""
    limit = settings.load().max_blob_bytes
    declared = request.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared) > limit:
        detail = f"got Content-Length {declared}, expected at most {limit}"
        raise errors.Invalid("body-too-large", detail)
    with storage.incoming(limit) as writer:
        pending = bytearray()
        async for chunk in request.stream():
            pending += chunk
            if len(pending) >= WRITE_BYTES:
                await concurrency.run_in_threadpool(writer.write, bytes(pending))
                pending.clear()
        await concurrency.run_in_threadpool(writer.write, bytes(pending))
        stored = await concurrency.run_in_threadpool(_keep, writer, digest)
    return registry.BlobOut(digest=stored.digest, size=stored.size)


@router.head("/{digest}", response_class=responses.FileResponse)
@router.get("/{digest}", response_class=responses.FileResponse)
def download(
    request: fastapi.Request,
    session: sessions.Session,
    caller: auth.ReaderOfModels,
    digest: base.Digest,
) -> responses.Response:
    """The content, whole or by ``Range``; 410 when only revoked versions hold it.

    Who only pulls gets the files of versions that are served.
    """
    return file_response(request, session, digest, uploads=caller.may("models:write"))


class Content(responses.FileResponse):
    """A file or a part of it; a range that it cannot give is told as a problem."""

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Send it."""
        asked = datastructures.Headers(scope=scope).get("Range", "")
        if scope["method"] != "GET" or not asked.startswith("bytes="):  # to be ignored: RFC 9110
            rest = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": rest}
        refused = 0

        async def unless_refused(message: types.Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = message["status"]
            if not refused:
                await send(message)

        await super().__call__(scope, receive, unless_refused)
        if refused:
            size = int(self.headers["Content-Length"])
            detail = f"expected a Range such as bytes=0-{size - 1}: the content has {size} bytes"
            code = "range-not-satisfiable" if refused == 416 else "invalid-request"
            headers = {"Content-Range": f"bytes */{size}"} if refused == 416 else {}
            await api_errors.problem(refused, code, detail, headers=headers)(scope, receive, send)


def file_response(
    request: fastapi.Request,
    session: sessions.Session,
    digest: str,
    headers: dict[str, str] | None = None,
    *,
    uploads: bool = False,
) -> responses.Response:
    """Serve content with a strong ETag and ``Repr-Digest`` (RFC 9530); 304 to who has it."""
    if session.get(tables.Blob, digest) is None or not storage.exists(digest):
        raise errors.NotFound("blob-not-found", f"no blob {digest}")
    versions.refuse_unservable_blob(session, digest, uploads=uploads)
    encoded = base64.b64encode(bytes.fromhex(digest)).decode()
    headers = {
        "ETag": f'"{digest}"',
        "Repr-Digest": f"sha-256=:{encoded}:",
        "Cache-Control": "private, no-cache",
        **(headers or {}),
    }
    if waiting.has(request, headers["ETag"]):
        return responses.Response(status_code=304, headers=headers)
    path = storage.path_of(digest)
    return Content(path, media_type="application/octet-stream", headers=headers)


def _keep(writer: storage.Incoming, digest: str) -> storage.Stored:
    """Make the content visible; what was condemned and is sent again is wanted again."""
    writer.require(digest)
    stored = writer.settle()
    with destruction.arriving(digest) as session:
        destruction.want(session, stored)
        writer.commit(stored)
    return stored
