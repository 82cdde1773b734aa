"""The OpenAPI document: what FastAPI derives of the routes, and what it cannot see there."""

from typing import Any

import fastapi
from pydantic import json_schema

from api import errors
from api.schemas import base
from api.schemas import forget_requests as schemas

_REF = "#/components/schemas/{model}"


def install(app: fastapi.FastAPI) -> None:
    """Let the application serve the whole contract at ``/openapi.json`` and ``/docs``."""
    derive = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(derive())
        return derive()

    app.openapi = whole  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    """The body of a forget request, which two forms share, and errors as they are sent."""
    models = [(model, "validation") for model in (schemas.ForgetRequestIn, base.Problem)]
    _, made = json_schema.models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    known = document["components"]["schemas"]
    known |= made["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)
    told = {errors.MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=base.Problem.__name__)}}}
    for path in document["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            answers.pop("422", None)
            answers["default"] = {"description": "A problem (RFC 9457).", "content": told}
