"""schemathesis drives every operation of the OpenAPI document: whatever it sends, no 5xx."""

from typing import Any

import hypothesis
import schemathesis
from schemathesis.core import result

from tests import conftest

EXAMPLES = 8


@schemathesis.serializer("application/x-ndjson")
def lines(_: object, value: object) -> bytes:
    """Ids as they come: schemathesis knows no NDJSON."""
    return str(value).encode("utf-8", "replace")


def test_no_operation_answers_5xx(api: conftest.Api) -> None:
    headers = {"Authorization": f"Bearer {api.running.admin_key}"}
    schema = schemathesis.openapi.from_url(f"{api.running.base_url}/openapi.json")
    found = list(schema.get_all_operations())
    operations = [item.ok() for item in found if isinstance(item, result.Ok)]
    assert len(operations) == len(found)
    assert len(operations) > 30
    for operation in operations:

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def drive(case: schemathesis.Case[Any]) -> None:
            answer = case.call(headers=headers, timeout=60)
            said = f"{case.method} {case.path}: {answer.status_code} {answer.text[:500]}"
            assert answer.status_code < 500, said
            if answer.status_code >= 400 and case.method != "HEAD":
                assert answer.headers.get("content-type") == ["application/problem+json"], said

        drive()
    assert api.http.get("/readyz").status_code == 200


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
        "/v1/models/{model}/deployments",
        "/v1/models/{model}/deployments/{deployment}",
        "/v1/forget-requests/{request_id}/extend",
        "/v1/forget-requests/{request_id}/pause-clock",
        "/v1/forget-requests/{request_id}/resume-clock",
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/cancel",
        "/v1/batches/{batch_id}",
        "/v1/models/{model}/batches:flush",
        "/v1/blobs/sha256/{digest}",
        "/v1/audit-events",
        "/v1/datasets",
        "/v1/models/{model}/versions",
        "/v1/models/{model}/versions/{number}/audits",
        "/v1/models/{model}/versions/{number}/audits/{audit_id}",
        "/v1/models/{model}/aliases/{alias}",
        "/{model}/resolve/{revision}/{path}",
    ):
        assert path in paths, path


def references(value: Any) -> set[str]:
    """Where all references in a document lead."""
    if isinstance(value, list):
        return set[str]().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*map(references, value.values()))


def test_every_reference_of_the_document_leads_somewhere(api: conftest.Api) -> None:
    document = api.http.get("/openapi.json").json()
    assert document == api.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}
    body = schemas["ForgetRequestIn"]["properties"]
    assert {"model", "targets", "method", "priority", "attestation", "reason"} <= body.keys()
    assert {"SampleTarget", "ClassTarget", "SubjectTarget", "ConceptTarget"} <= schemas.keys()


def test_errors_are_told_as_they_are_sent(api: conftest.Api) -> None:
    document = api.http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for name, operation in operations.items():
            told = operation["responses"]["default"]["content"]
            assert told.keys() == {"application/problem+json"}, (path, name)
            assert "422" not in operation["responses"]
