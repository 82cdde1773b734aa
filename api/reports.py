"""A verification report in the form that the caller prefers: JSON, or a page for people.

Content negotiation after RFC 9110, section 12: without a preference it is JSON.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import fastapi
from fastapi import responses

from service import tables

HTML, JSON = "text/html", "application/json"
OPENAPI: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report; a page for people where `text/html` is preferred.",
        "content": {HTML: {"schema": {"type": "string"}}},
    }
}
"""Beside the JSON schema, which the response model gives."""

Form = Annotated[
    Literal["html", "json"] | None,
    fastapi.Query(alias="format", description="Overrides what `Accept` prefers."),
]
_HEADERS = {"Vary": "Accept", "Cache-Control": "private, no-cache"}
_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def answer(
    request: fastapi.Request, form: Form, report: Mapping[str, Any], version: tables.Version
) -> responses.Response:
    """Render a report; a page also tells of the version itself.

    Drawing a page takes about a second: call it outside of a transaction.
    """
    if not wants_page(request, form):
        return responses.JSONResponse(dict(report), headers=_HEADERS)

    # Loads matplotlib, which an API that is never asked for a page does not need.
    from service import report_page, report_pictures

    return page(
        report_page.render(
            {
                **report,
                "version": version.number,
                "created_at": version.created_at,
                "manifest_digest": version.manifest_digest,
            },
            report_pictures.read(report),
        ),
        report_page.CONTENT_SECURITY_POLICY,
    )


def wants_page(request: fastapi.Request, form: Form) -> bool:
    """Whether the caller shall get a page, by ``format`` or else by ``Accept``."""
    accept = ",".join(request.headers.getlist("accept"))
    return form == "html" or (form is None and prefers_html(accept))


def page(text: str, policy: str) -> responses.Response:
    """A page of ours, with its Content Security Policy and no more rights than it needs."""
    guards = {
        "Content-Security-Policy": f"{policy}; frame-ancestors 'self'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return responses.HTMLResponse(text, headers={**_HEADERS, **guards})


def prefers_html(accept: str) -> bool:
    """Whether ``Accept`` gives HTML a higher quality than JSON."""
    ranges = dict(_range(part) for part in accept.split(",") if part.strip())
    html, as_json = (
        next(
            (ranges[name] for name in (media, f"{media.split('/')[0]}/*", "*/*") if name in ranges),
            0.0,
        )
        for media in (HTML, JSON)
    )
    return html > as_json


def _range(part: str) -> tuple[str, float]:
    """A media range and its quality; a quality that is none counts as 0."""
    media, *parameters = (item.strip().lower() for item in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return media, float(value) if _QUALITY.fullmatch(value.strip()) else 0.0
    return media, 1.0
