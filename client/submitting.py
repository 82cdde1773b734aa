"""Posting what must not be done twice."""

from client import errors, http


def submit(api: http.Api, path: str, body: http.Json, chosen: str) -> http.Json:
    """POST with an ``Idempotency-Key``; where nothing answers, say how to repeat it safely.

    Raises ApiError, UnreachableError.
    """
    try:
        return api.post(path, body, idempotency_key=chosen)
    except errors.UnreachableError as error:
        # It may have been accepted: the same key makes asking again harmless.
        raise errors.UnreachableError(
            f"{error}; repeat it with --idempotency-key {chosen}"
        ) from error
