"""Errors as ``application/problem+json`` (RFC 9457). The only place that knows HTTP statuses."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import fastapi
from fastapi import exceptions, responses
from sqlalchemy import exc
from starlette import exceptions as starlette_exceptions

from api import bodies
from service import errors

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger("salun.api")
_UNREADABLE = "There was an error parsing the body"  # FastAPI's own words
_E = TypeVar("_E", bound=Exception)

_STATUS_OF_CODE = {
    "idempotency-key-required": 400,
    "body-too-large": 413,
    "version-revoked": 410,
    "precondition-required": 428,
}
_STATUS_OF_KIND: Mapping[type[errors.Refusal], int] = {
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.Gone: 410,
    errors.PreconditionFailed: 412,
    errors.Forbidden: 403,
}


class Unauthenticated(Exception):
    """No key, or one that is unknown or revoked."""


class ProblemResponse(responses.JSONResponse):
    """A problem document."""

    media_type = MEDIA_TYPE


def problem(
    status: int,
    code: str,
    detail: str,
    problems: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """Render one problem; ``type`` is stable and ends in ``code``."""
    content: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
    }
    if problems:
        content["errors"] = list(problems)
    return ProblemResponse(content, status, headers)


def status_of(refusal: errors.Refusal) -> int:
    """The HTTP status of a refusal."""
    return _STATUS_OF_CODE.get(refusal.code) or _STATUS_OF_KIND[type(refusal)]


def install(app: fastapi.FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(errors.Refusal, _refusal)
    app.add_exception_handler(Unauthenticated, _unauthenticated)
    app.add_exception_handler(exceptions.RequestValidationError, _invalid_body)
    app.add_exception_handler(starlette_exceptions.HTTPException, _http)
    app.add_exception_handler(exc.OperationalError, _database_down)
    app.add_exception_handler(exc.TimeoutError, _database_down)
    app.add_exception_handler(Exception, _unexpected)


def answer(refused: errors.Refusal | Unauthenticated) -> ProblemResponse:
    """The problem document of a refusal."""
    if isinstance(refused, Unauthenticated):
        detail = "expected a valid key in 'Authorization: Bearer <key>'; got none, or one not known"
        return problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})
    problems = [
        {"pointer": item.pointer, "code": item.code, "detail": item.detail}
        for item in refused.problems
    ]
    return problem(status_of(refused), refused.code, refused.detail, problems)


def _refusal(_: fastapi.Request, error: Exception) -> ProblemResponse:
    return answer(_as(error, errors.Refusal))


def _unauthenticated(_: fastapi.Request, error: Exception) -> ProblemResponse:
    return answer(_as(error, Unauthenticated))


def _invalid_body(request: fastapi.Request, error: Exception) -> ProblemResponse:
    """The body, a parameter or a header does not have the shape; never repeats what was sent."""
    invalid = _as(error, exceptions.RequestValidationError)
    kind = bodies.media_type(request)
    unread = any(
        tuple(item["loc"]) == ("body",) and item["type"] == "model_attributes_type"
        for item in invalid.errors()
    )
    if (
        unread
        and kind != bodies.JSON
        and not (kind.startswith("application/") and kind.endswith("+json"))
    ):
        got = f"Content-Type {kind[:60]!r}" if kind else "no Content-Type"
        return problem(415, "unsupported-media-type", f"got {got}, expected {bodies.JSON}")
    problems = [_item(found) for found in invalid.errors()]
    about_targets = any(item["pointer"].startswith("/targets") for item in problems)
    code = "invalid-target" if about_targets else "invalid-request"
    first = problems[0]
    detail = f"{first['pointer'] or 'the body'}: {first['detail']}"
    return problem(422, code, detail, problems[:20])


def _item(found: Mapping[str, Any]) -> dict[str, str]:
    """One thing that is wrong, as an entry of ``errors``."""
    pointer, detail = _pointer(found["loc"]), str(found["msg"])
    if found["type"] == "json_invalid":  # told with a place in the text, which is no member
        pointer = ""
        detail = f"expected JSON, got {found['ctx']['error']} at character {found['loc'][-1]}"
    return {"pointer": pointer, "code": str(found["type"]).replace("_", "-"), "detail": detail}


def _pointer(location: Sequence[int | str]) -> str:
    """An RFC 6901 pointer into the body, or ``/header/…``, ``/query/…``, ``/path/…``."""
    kinds = {"sample", "class", "subject", "concept"}
    parts = [str(part) for index, part in enumerate(location) if index or part != "body"]
    if len(parts) > 2 and parts[0] == "targets":  # pydantic names the union's branch as well
        parts = [part for index, part in enumerate(parts) if index != 2 or part not in kinds]
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _http(request: fastapi.Request, error: Exception) -> ProblemResponse:
    raised = _as(error, starlette_exceptions.HTTPException)
    if raised.status_code == 400 and raised.detail == _UNREADABLE:
        return problem(422, "invalid-request", "the body: expected JSON in UTF-8")
    phrase = HTTPStatus(raised.status_code).phrase
    code = "body-too-large" if raised.status_code == 413 else phrase.lower().replace(" ", "-")
    detail = str(raised.detail)
    if detail == phrase:  # the framework's own: no route, or none for this method
        detail = f"{phrase}: {request.method} on this path; /openapi.json lists what there is"
    return problem(raised.status_code, code, detail, headers=raised.headers)


def _database_down(_: fastapi.Request, error: Exception) -> ProblemResponse:
    _log.error("the database did not answer: %s", type(error).__name__)
    detail = "the database does not answer; what was asked may not have been done, try again"
    return problem(503, "database-unavailable", detail, headers={"Retry-After": "2"})


def _unexpected(_: fastapi.Request, error: Exception) -> ProblemResponse:
    _log.error("unexpected %s", type(error).__name__, exc_info=error)
    detail = "an unexpected error, which was logged; look whether it was done before you try again"
    return problem(500, "internal-error", detail)


def _as(error: Exception, kind: type[_E]) -> _E:
    if not isinstance(error, kind):
        raise error
    return error
