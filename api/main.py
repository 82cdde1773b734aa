"""The HTTP front end: ``uvicorn api.main:app``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import fastapi

from api import changes, document, errors, head, limits, relay
from api.routes import (
    api_keys,
    audit_events,
    audits,
    blobs,
    datasets,
    forget_requests,
    health,
    hub,
    jobs,
    metrics,
    registry,
)
from salun_core import __version__
from service import settings

_DESCRIPTION = (
    "Machine unlearning as a service: submit a deletion request, watch it, pull the result."
)


@contextlib.asynccontextmanager
async def _lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
    app.state.changes = changes.Changes()
    app.state.relay = relay.Relay()
    app.state.relay.start()
    listening = asyncio.create_task(app.state.changes.listen())
    try:
        yield
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        app.state.relay.stop()


def create() -> fastapi.FastAPI:
    """The application with its routes and error handlers."""
    app = fastapi.FastAPI(
        title="salun-service",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=_lifespan,
    )
    app.add_middleware(limits.BodyLimit, limit_bytes=settings.load().max_body_bytes)
    app.add_middleware(head.Head)
    errors.install(app)
    hub.install(app)
    for routes in (
        health, metrics, forget_requests, jobs, datasets, blobs, registry, audits, audit_events,
        api_keys, hub,
    ):  # fmt: skip
        app.include_router(routes.router)
    document.install(app)
    return app


app = create()
