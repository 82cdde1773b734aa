"""The header that makes a POST safe to repeat."""

from typing import Annotated

import fastapi

from service import errors

IdempotencyKey = Annotated[
    str | None,
    fastapi.Header(
        alias="Idempotency-Key",
        max_length=255,
        description="Required. The same key with the same body gets the first answer again.",
    ),
]


def required(key: str | None) -> str:
    """The key; raises :class:`errors.Invalid` (``idempotency-key-required``) without one."""
    if not key:
        detail = "expected a header Idempotency-Key (any text of your own, new for each one)"
        raise errors.Invalid("idempotency-key-required", detail)
    return key
