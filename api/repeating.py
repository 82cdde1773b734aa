"""The header that makes a POST safe to repeat."""

from typing import Annotated, Any

import fastapi

from api.schemas import base
from service import errors

IdempotencyKey = Annotated[
    str | None,
    fastapi.Header(
        alias="Idempotency-Key",
        max_length=255,
        description="Required. The same key with the same body gets the first answer again.",
    ),
]


def accepted(shown: base.Output, location: str, retry_after_seconds: int) -> dict[str, Any]:
    """The 202 to give, and to give again, for what will be done later: body and headers."""
    headers = {"Location": location, "Retry-After": str(retry_after_seconds)}
    return {"body": shown.model_dump(mode="json"), "headers": headers}


def required(key: str | None) -> str:
    """The key; raises :class:`errors.Invalid` (``idempotency-key-required``) without one."""
    if not key:
        detail = "expected a header Idempotency-Key (any text of your own, new for each one)"
        raise errors.Invalid("idempotency-key-required", detail)
    return key
