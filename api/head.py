"""HEAD wherever GET is (RFC 9110, 9.1): the same answer without its content."""

import functools

from starlette import datastructures, routing, types


class Head:
    """ASGI middleware: runs GET, unless a route of its own answers HEAD, and sends the headers."""

    def __init__(self, app: types.ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] != "HEAD" or _has_its_own(scope):
            await self._app(scope, receive, functools.partial(_allowing_head, send))
            return

        async def headers_alone(message: types.Message) -> None:
            # The answer ends with its headers: a stream of events is not waited for.
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        await self._app({**scope, "method": "GET"}, receive, headers_alone)


async def _allowing_head(send: types.Send, message: types.Message) -> None:
    """What refuses a method says that HEAD goes where GET does."""
    if message["type"] == "http.response.start" and message["status"] == 405:
        headers = datastructures.MutableHeaders(raw=message["headers"])
        allowed = [name.strip() for name in headers.get("Allow", "").split(",")]
        if "GET" in allowed and "HEAD" not in allowed:
            headers["Allow"] = ", ".join([*allowed, "HEAD"])
    await send(message)


def _has_its_own(scope: types.Scope) -> bool:
    return any(route.matches(scope)[0] == routing.Match.FULL for route in scope["app"].routes)
