"""The audit trail over HTTP: page by page, by object, and for those alone who may read it."""

import uuid
from typing import Any

from tests import conftest

PATH = "/v1/audit-events"


def test_every_entry_comes_once_and_in_order_whatever_the_size_of_a_page(
    api: conftest.Api,
) -> None:
    for name in ("one", "two", "three"):
        made = {"name": name, "scopes": ["models:pull"]}
        assert api.http.post("/v1/api-keys", json=made).status_code == 201
    whole = api.http.get(PATH, params={"limit": 1000}).json()
    assert whole["next_cursor"] is None
    assert [entry["position"] for entry in whole["items"]] == list(
        range(1, len(whole["items"]) + 1)
    )
    paged: list[dict[str, Any]] = []
    cursor: str | None = "0"
    while cursor is not None and len(paged) < len(whole["items"]):
        page = api.http.get(PATH, params={"limit": 2, "cursor": cursor}).json()
        assert len(page["items"]) <= 2
        paged += page["items"]
        cursor = page["next_cursor"]
    assert paged[: len(whole["items"])] == whole["items"]


def test_what_happened_to_a_model_and_its_versions_is_found_by_their_ids(
    api: conftest.Api,
) -> None:
    model = api.model()
    shown = api.http.get(f"/v1/models/{model}").json()
    of_model = api.http.get(PATH, params={"object_id": shown["id"]}).json()["items"]
    assert [entry["action"] for entry in of_model] == ["model.register", "alias.move"]
    version = api.http.get(f"/v1/models/{model}/versions/1").json()
    of_version = api.http.get(PATH, params={"object_id": version["id"]}).json()["items"]
    assert "version.add" in {entry["action"] for entry in of_version}
    moved = api.http.get(PATH, params={"action": "alias.move", "limit": 1000}).json()["items"]
    assert {entry["action"] for entry in moved} == {"alias.move"}
    nothing = api.http.get(PATH, params={"object_id": str(uuid.uuid4())}).json()
    assert nothing == {"items": [], "next_cursor": None}


def test_only_a_key_that_may_read_it_does(api: conftest.Api) -> None:
    with api.with_scopes("requests:read", "models:write") as other:
        refused = other.get(PATH)
        assert (refused.status_code, "audit:read" in refused.json()["detail"]) == (403, True)
    with api.with_scopes("audit:read") as auditor:
        assert auditor.get(PATH).status_code == 200
        assert auditor.get("/v1/forget-requests").status_code == 403
        for wrong in ({"limit": 0}, {"limit": 1001}, {"cursor": -1}, {"action": ""}):
            assert auditor.get(PATH, params=wrong).status_code == 422


def test_models_and_datasets_are_listed_by_name(api: conftest.Api) -> None:
    first, second = sorted([api.model(), api.model()])
    names = [item["name"] for item in api.http.get("/v1/models").json()["items"]]
    assert names == sorted(names)
    assert {first, second} <= set(names)
    datasets = api.http.get("/v1/datasets").json()["items"]
    digits = next(item for item in datasets if item["name"] == "digits")
    assert digits == api.http.get("/v1/datasets/digits").json()
    with api.with_scopes("models:pull") as puller:
        assert puller.get("/v1/models").status_code == 200
        assert puller.get("/v1/datasets").status_code == 403
