"""schemathesis drives every operation of the OpenAPI document: whatever it sends, no 5xx."""

from typing import Any

import hypothesis
import pytest
import schemathesis

from tests import conftest

EXAMPLES = 8


@pytest.fixture(scope="session")
def openapi(api: conftest.Api) -> Any:
    return schemathesis.openapi.from_url(f"{api.running.base_url}/openapi.json")


schema = schemathesis.pytest.from_fixture("openapi")


@schema.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_no_operation_answers_5xx(case: schemathesis.Case[Any], api: conftest.Api) -> None:
    answer = case.call(headers={"Authorization": f"Bearer {api.running.admin_key}"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and case.method != "HEAD":
        assert answer.headers["Content-Type"] == ["application/problem+json"]


def test_the_document_is_openapi_3_1_and_names_the_contract(api: conftest.Api) -> None:
    document = api.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    paths = document["paths"]
    for path in (
        "/v1/forget-requests",
        "/v1/forget-requests:validate",
        "/v1/forget-requests/{request_id}",
        "/v1/forget-requests/{request_id}/events",
        "/v1/forget-requests/{request_id}/report",
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/cancel",
        "/v1/batches/{batch_id}",
        "/v1/models/{model}/batches:flush",
        "/v1/blobs/sha256/{digest}",
        "/v1/datasets",
        "/v1/models/{model}/versions",
        "/v1/models/{model}/aliases/{alias}",
        "/{model}/resolve/{revision}/{path}",
    ):
        assert path in paths, path
