"""Bodies have a limit, counted while they arrive. Blobs have their own (``api.routes.blobs``)."""

from starlette import exceptions, types

UNLIMITED_PREFIX = "/v1/blobs/"


class BodyLimit:
    """ASGI middleware: reading more than the limit raises 413 where the body is read."""

    def __init__(self, app: types.ASGIApp, limit_bytes: int) -> None:
        self._app, self._limit = app, limit_bytes

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["path"].startswith(UNLIMITED_PREFIX):
            await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> types.Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if max(seen, _declared(scope)) > self._limit:
                detail = f"the body has more than {self._limit} bytes, expected at most that"
                raise exceptions.HTTPException(413, detail)
            return message

        await self._app(scope, counted, send)


def _declared(scope: types.Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0
