"""Reads the body of a forget request: JSON, or NDJSON for long lists of ids."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import fastapi
import pydantic
from fastapi import exceptions

from api.schemas import forget_requests as schemas
from service import demands, errors, tombstones

JSON, NDJSON = "application/json", "application/x-ndjson"
FORGET_REQUEST_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/ForgetRequestIn"}},
            NDJSON: {
                "schema": {
                    "type": "string",
                    "description": (
                        "First line: the JSON body with targets [] or left out; then one sample "
                        "id (a JSON string or bare text) a line."
                    ),
                }
            },
        },
    }
}


@dataclass(frozen=True)
class Sent:
    """A body as it came, not looked at yet."""

    media_type: str
    raw: bytes


async def received(request: fastapi.Request) -> Sent:
    """Dependency: the whole body, within the limit of ``api.limits``."""
    return Sent(media_type(request) or JSON, await request.body())


def media_type(request: fastapi.Request) -> str:
    """What ``Content-Type`` names, without parameters; empty without one."""
    return request.headers.get("Content-Type", "").split(";")[0].strip().lower()


def forget_request(
    sent: Annotated[Sent, fastapi.Depends(received)],
) -> schemas.ForgetRequestIn:
    """The body of a forget request; raises what FastAPI raises for a bad one."""
    if sent.media_type not in {JSON, NDJSON}:
        got = sent.media_type[:60]
        detail = f"got Content-Type {got!r}, expected {JSON} or {NDJSON}"
        raise fastapi.HTTPException(415, detail)
    as_lines = sent.media_type == NDJSON
    try:
        data = _from_lines(sent.raw) if as_lines else json.loads(sent.raw)
        return schemas.ForgetRequestIn.model_validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        raise exceptions.RequestValidationError(found) from error
    except (ValueError, RecursionError) as error:
        detail = f"expected {'lines of ' if as_lines else ''}JSON: {_where(error)}"
        raise errors.Invalid(
            "invalid-request", detail, [errors.Problem("", "json-invalid", detail)]
        ) from error


def demand(body: schemas.ForgetRequestIn) -> demands.Demand:
    """The body as a frozen demand; its mark is over canonical JSON, so that spelling is free."""
    content = body.model_dump(mode="json")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return demands.Demand(
        model=body.model,
        targets=body.targets,
        method=body.method or {},
        subject_request_id=body.subject_request_id,
        priority=body.priority,
        body=content,
        digest=tombstones.of_body(canonical),
    )


def _from_lines(raw: bytes) -> Any:  # noqa: ANN401
    first, *lines = raw.decode().split("\n")  # no other character ends a line of NDJSON
    envelope = json.loads(first)
    if not isinstance(envelope, dict):
        msg = "the first line is not a JSON object"
        raise ValueError(msg)
    ids = [_id(line.strip()) for line in lines if line.strip()]
    targets = envelope.get("targets") or []
    if not isinstance(targets, list) or not ids:
        return {**envelope, "targets": targets}  # told what is wrong with them like any body
    return {**envelope, "targets": [*targets, {"kind": "sample", "ids": ids}]}


def _id(line: str) -> Any:  # noqa: ANN401
    return json.loads(line) if line.startswith('"') else line


def _where(error: Exception) -> str:
    """What is wrong without repeating what was sent."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return "the text is not UTF-8, is too deeply nested or has no first line"
