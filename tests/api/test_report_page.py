"""A report over HTTP: as JSON or as a page, whichever the caller prefers."""

from typing import Any

import pytest

from api import reports
from tests import conftest, material

# What Firefox sends for a page.
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.fixture(scope="module")
def done(api: conftest.Api) -> dict[str, Any]:
    """A completed request for one sample."""
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": material.train_ids()[:12]}
    return api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML ; Q=0.5 , */*;q=0.1", True),
        ("text/*", True),
        ("text/html;charset=utf-8, application/json;q=0.9", True),
        ("application/json;q=0, */*", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/html;q=0.5, application/json;q=0.501", False),
        ("text/html;q=0, */*;q=0.1", False),
        ("text/html;q=nan, application/json;q=0.1", False),
        ("text/html;q=2", False),
        ("image/png", False),
        (",;,q=1,text/", False),
    ],
)
def test_html_only_where_it_is_preferred(accept: str, html: bool) -> None:
    assert reports.prefers_html(accept) is html


def test_a_browser_gets_a_page_and_programs_get_json(
    api: conftest.Api, done: dict[str, Any]
) -> None:
    model, number = done["model"], done["result_version"]
    for path in (
        f"/v1/forget-requests/{done['id']}/report",
        f"/v1/models/{model}/versions/{number}/report",
    ):
        page = api.http.get(path, headers={"Accept": BROWSER})
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Vary"] == "Accept"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in policy
        assert f"Version {number} of {model} has forgotten 12 samples" in page.text
        assert page.text.count("<svg") >= 5

        plain = api.http.get(path)
        assert plain.headers["Content-Type"] == "application/json"
        assert plain.headers["Vary"] == "Accept"
        assert plain.json()["evidence"]["forget_count"] == 12

        assert api.http.get(f"{path}?format=html").text == page.text
        forced = api.http.get(f"{path}?format=json", headers={"Accept": BROWSER})
        assert forced.content == plain.content
        assert api.http.get(f"{path}?format=pdf").status_code == 422


def test_the_page_tells_when_and_by_which_bytes(api: conftest.Api, done: dict[str, Any]) -> None:
    version = api.http.get(f"/v1/models/{done['model']}/versions/{done['result_version']}").json()
    page = api.http.get(f"/v1/forget-requests/{done['id']}/report?format=html").text
    assert version["manifest_digest"] in page
    assert f"{version['created_at'][:10]} {version['created_at'][11:16]} UTC" in page


def test_a_refusal_stays_a_problem_document(api: conftest.Api, done: dict[str, Any]) -> None:
    answer = api.http.get(
        f"/v1/models/{done['model']}/versions/1/report", headers={"Accept": BROWSER}
    )
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_openapi_shows_both_forms(api: conftest.Api) -> None:
    paths = api.http.get("/openapi.json").json()["paths"]
    for path in (
        "/v1/forget-requests/{request_id}/report",
        "/v1/models/{model}/versions/{number}/report",
    ):
        content = paths[path]["get"]["responses"]["200"]["content"]
        assert content["application/json"]["schema"]["type"] == "object"
        assert content["text/html"]["schema"] == {"type": "string"}
