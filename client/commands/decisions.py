"""``salun approve``, ``deny``, ``extend`` and ``withdraw``: what a person decides of a request."""

from typing import Annotated

import typer

from client import console, http, json_objects, render, session
from client.commands.requests import RequestId

Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept")]


def approve(
    request_id: RequestId,
    reason: Reason,
    method: Annotated[
        str | None,
        typer.Option(
            help="Another recipe than the one that failed, as JSON or @FILE; {} for the default"
        ),
    ] = None,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Go on with a request that needs a person (status action_required).

    What goes over the model's budget must be approved by another key than the one that submitted.

    Examples:

    salun approve 01a3… --reason "the picture was put back"

    salun approve 01a3… --reason "another recipe" --method '{"epochs": 8}'
    """
    with session.opened(url, key, as_json=as_json) as api:
        body = {
            "reason": reason,
            **({} if method is None else {"method": json_objects.parse("--method", method)}),
        }
        _decide(api, "approve", request_id, body, as_json=as_json)


def deny(
    request_id: RequestId,
    reason: Reason,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Decide that nothing is to be erased for a request that needs a person.

    Example: salun deny 01a3… --reason "not the person who asks"
    """
    with session.opened(url, key, as_json=as_json) as api:
        _decide(api, "deny", request_id, {"reason": reason}, as_json=as_json)


def extend(
    request_id: RequestId,
    reason: Reason,
    months: Annotated[int, typer.Option(min=1, max=2, help="How many months more")] = 2,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Take up to two months more (GDPR Art. 12(3)): once, before the due date.

    Example: salun extend 01a3… --months 1 --reason "many demands at once"
    """
    with session.opened(url, key, as_json=as_json) as api:
        body = {"reason": reason, "months": months}
        _decide(api, "extend", request_id, body, as_json=as_json)


def withdraw(
    request_id: RequestId,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Take a request back, as long as its batch waits for others.

    Example: salun withdraw 01a3…
    """
    with session.opened(url, key, as_json=as_json) as api:
        answer = api.call("DELETE", http.path("v1", "forget-requests", request_id))
    _show(answer.json(), as_json=as_json)


def _decide(api: http.Api, what: str, request_id: str, body: http.Json, *, as_json: bool) -> None:
    """Decide on the request as it stands now."""
    address = http.path("v1", "forget-requests", request_id)
    etag = api.call("GET", address).headers["ETag"]
    found = api.post(f"{address}/{what}", body, headers={"If-Match": etag})
    _show(found, as_json=as_json)


def _show(found: http.Json, *, as_json: bool) -> None:
    if as_json:
        console.print_json(found)
    else:
        render.forget_request(found)
