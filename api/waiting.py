"""Conditional and waiting reads: ``ETag``, ``If-None-Match``, ``Prefer: wait=N`` (RFC 7240)."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import fastapi
import pydantic
from starlette import concurrency

from api import changes

MAX_WAIT_SECONDS = 60
RECHECK_SECONDS = 5.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)


@dataclass(frozen=True)
class Representation:
    """A rendered body, what changes it, and headers of its own.

    ``version`` is the validator where the body also tells the time; else it is made of the bytes.
    """

    body: bytes
    keys: frozenset[str] = frozenset()
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    version: str | None = None

    @property
    def etag(self) -> str:
        """The validator."""
        if self.version is not None:
            return f'"{self.version}"'
        return f'"{_digest(self.body)}"'


def represent(
    model: pydantic.BaseModel,
    keys: frozenset[str] = frozenset(),
    *,
    moving: frozenset[str] = frozenset(),
    **headers: str,
) -> Representation:
    """Render a response model.

    Args:
        model: the body.
        keys: what changes it.
        headers: of its own, with ``_`` for ``-``.
        moving: fields that a job moves on while a person reads: the validator's first half says
            all but these, see :func:`names`.
    """
    body = model.model_dump_json().encode()
    version = _digest(body)
    if moving:
        version = f"{_digest(model.model_dump_json(exclude=set(moving)).encode())}-{version}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Representation(body, keys, named, version=version)


def names(if_match: str, shown: Representation) -> bool:
    """Whether ``If-Match`` names this state; fields that move by themselves may differ."""
    state = shown.etag.strip('"').partition("-")[0]
    given = [part.strip().strip('"') for part in if_match.split(",")]
    return any(one == "*" or one.partition("-")[0] == state for one in given)


async def conditional(
    request: fastapi.Request, render: Callable[[], Representation]
) -> fastapi.Response:
    """Answer 200, or 304 when the client has it already; with ``Prefer: wait`` wait for a change.

    What counts as a change: the ETag differs from ``If-None-Match``, or, without that header, from
    what it was when the call came.
    """
    known = request.headers.get("If-None-Match")
    seconds = wait_seconds(request.headers.get("Prefer"))
    current = await concurrency.run_in_threadpool(render)
    if seconds > 0 and (known is None or has(request, current.etag)):
        watched: changes.Changes = request.app.state.changes
        current = await _until_changed(watched, render, current, seconds)
    headers = {**current.headers, "ETag": current.etag, "Cache-Control": "no-cache"}
    if seconds > 0:
        headers["Preference-Applied"] = f"wait={seconds}"
    if has(request, current.etag):
        return fastapi.Response(status_code=304, headers=headers)
    return fastapi.Response(current.body, headers=headers, media_type=current.media_type)


def has(request: fastapi.Request, etag: str) -> bool:
    """Whether ``If-None-Match`` says that the client has what this validator names."""
    known = request.headers.get("If-None-Match", "")
    candidates = [part.strip().removeprefix("W/") for part in known.split(",")]
    return "*" in candidates or etag in candidates


def wait_seconds(prefer: str | None) -> int:
    """Seconds that ``Prefer`` asks to wait, at most :data:`MAX_WAIT_SECONDS`; 0 without one."""
    found = _WAIT.search(prefer or "")
    return min(int(found.group(1)), MAX_WAIT_SECONDS) if found else 0


async def _until_changed(
    watched: changes.Changes,
    render: Callable[[], Representation],
    first: Representation,
    seconds: float,
) -> Representation:
    loop = asyncio.get_running_loop()
    end, current = loop.time() + seconds, first
    while True:
        with watched.watching(current.keys) as signal:
            current = await concurrency.run_in_threadpool(render)
            left = end - loop.time()
            if current.etag != first.etag or left <= 0:
                return current
            try:
                await asyncio.wait_for(signal.wait(), min(left, RECHECK_SECONDS))
            except TimeoutError:
                continue


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
