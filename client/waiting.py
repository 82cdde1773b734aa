"""Waiting for work that the service does, with live progress."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from client import http, progress

FINAL_STATUSES = frozenset({"completed", "denied", "cancelled", "action_required"})

_HOLD_SECONDS = 10
_POLL_SECONDS = 0.4


def forget_request(api: http.Api, request_id: str, *, as_json: bool) -> http.Json:
    """Show a forget request's progress until it is final or needs a person; return its state."""
    return until(
        api,
        http.path("v1", "forget-requests", request_id),
        lambda state: state["status"] in FINAL_STATUSES,
        title=f"request {request_id}",
        as_json=as_json,
    )


def until(
    api: http.Api,
    address: str,
    is_final: Callable[[Mapping[str, Any]], bool],
    *,
    title: str,
    as_json: bool,
) -> http.Json:
    """GET a resource until ``is_final``, held by the service where it can; return the last state.

    ``as_json`` prints each state as a JSON line. Raises ApiError, UnreachableError.
    """
    headers: dict[str, str] = {}
    with progress.stages(title, as_json=as_json) as shown:
        while True:
            asked_at = time.monotonic()
            response = api.call("GET", address, headers=headers, timeout=_HOLD_SECONDS + 30.0)
            if response.status_code != httpx.codes.NOT_MODIFIED:
                state: http.Json = response.json()
                shown.show(state)
                if is_final(state):
                    return state
                if "ETag" in response.headers:
                    headers = {
                        "If-None-Match": response.headers["ETag"],
                        "Prefer": f"wait={_HOLD_SECONDS}",
                    }
            spare = _POLL_SECONDS - (time.monotonic() - asked_at)
            time.sleep(max(0.0, spare))
