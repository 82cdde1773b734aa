"""Blobs, versions, pointers: what serving systems stand on."""

import base64
import hashlib
import threading
import time
import uuid

import psycopg
import pytest
import safetensors.torch
import torch

from salun_core import architectures, specs
from service import models
from tests import conftest, material


@pytest.fixture(scope="module")
def forgotten(api: conftest.Api) -> str:
    """A model whose version 2 lacks twenty samples of version 1."""
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": material.train_ids()[:20]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    assert done["result_version"] == 2
    return model


def test_a_manifest_lists_digests_and_hashes_to_the_pointer(
    api: conftest.Api, forgotten: str
) -> None:
    pointer = api.http.get(f"/v1/models/{forgotten}/aliases/production").json()
    assert (pointer["version"], pointer["min_version"], pointer["serial"]) == (2, 2, 2)
    answer = api.http.get(f"/v1/models/{forgotten}/versions/2/manifest")
    assert hashlib.sha256(answer.content).hexdigest() == pointer["manifest_digest"]
    manifest = answer.json()
    assert (manifest["model"], manifest["version"]) == (forgotten, 2)
    assert manifest["lineage"]["anchor"] == 1
    assert manifest["lineage"]["chain_length"] == 1
    assert len(manifest["lineage"]["forgotten_digest"]) == 64
    for file in manifest["files"]:
        content = api.http.get(f"/v1/blobs/sha256/{file['digest']}").content
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (
            file["digest"],
            file["size"],
        )
    listed = api.http.get(f"/v1/models/{forgotten}/versions").json()["items"]
    states = {item["version"]: item["state"] for item in listed}
    assert states == {1: "superseded", 2: "published"}
    left_behind = {item["version"]: item["superseded_at"] is not None for item in listed}
    assert left_behind == {1: True, 2: False}
    assert [item["purged_at"] for item in listed] == [None, None]
    report = api.http.get(f"/v1/models/{forgotten}/versions/2/report").json()
    assert report["verdict"]["passed"] is True
    path = f"/v1/models/{forgotten}/versions/2/manifest"
    etag = api.http.get(path).headers["ETag"]
    assert api.http.get(path, headers={"If-None-Match": etag}).status_code == 304
    file = f"/{forgotten}/resolve/production/model.safetensors"
    etag = api.http.head(file).headers["ETag"]
    same = api.http.get(file, headers={"If-None-Match": etag})
    assert (same.status_code, "X-Repo-Commit" in same.headers) == (304, True)


def test_blobs_are_served_by_range_with_strong_validators(api: conftest.Api) -> None:
    content = material.Content(bytes(range(256)) * 40)
    api.put(content)
    path = f"/v1/blobs/sha256/{content.digest}"
    whole = api.http.get(path)
    assert whole.content == content.data
    assert whole.headers["ETag"] == f'"{content.digest}"'
    encoded = base64.b64encode(bytes.fromhex(content.digest)).decode()
    assert whole.headers["Repr-Digest"] == f"sha-256=:{encoded}:"
    part = api.http.get(path, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, content.data[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{content.size}"
    rest = api.http.get(path, headers={"Range": "bytes=10000-"})
    assert rest.content == content.data[10000:]
    beyond = api.http.get(path, headers={"Range": "bytes=99999-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{content.size}")
    assert beyond.json()["type"] == "/problems/range-not-satisfiable"
    for ignored in ({"Range": "items=0-5"}, {}):
        assert api.http.get(path, headers=ignored).content == content.data
    assert api.http.head(path, headers={"Range": "bytes=0-5"}).status_code == 200
    nonsense = api.http.get(path, headers={"Range": "bytes=x-"})
    assert (nonsense.status_code, nonsense.json()["status"]) == (400, 400)
    assert f"bytes=0-{content.size - 1}" in nonsense.json()["detail"]
    for known in (whole.headers["ETag"], f'"other", {whole.headers["ETag"]}', "*"):
        same = api.http.get(path, headers={"If-None-Match": known})
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["ETag"] == whole.headers["ETag"]
    other = api.http.get(path, headers={"If-None-Match": '"other"'})
    assert other.content == content.data
    head = api.http.head(path)
    assert (head.content, head.headers["Content-Length"]) == (b"", str(content.size))
    assert api.put(content)["digest"] == content.digest  # once more is no error


def test_an_alias_never_moves_to_a_version_that_forgot_less(
    api: conftest.Api, forgotten: str
) -> None:
    path = f"/v1/models/{forgotten}/aliases/production"
    etag = api.http.get(path).headers["ETag"]
    back = api.http.put(path, json={"version": 1}, headers={"If-Match": etag})
    assert (back.status_code, back.json()["type"]) == (409, "/problems/erasure-regression")
    new = api.http.put(
        f"/v1/models/{forgotten}/aliases/canary", json={"version": 1}, headers={"If-Match": '"0"'}
    )
    assert (new.status_code, new.json()["type"]) == (409, "/problems/erasure-regression")
    assert api.http.put(path, json={"version": 2}).status_code == 428
    stale = api.http.put(path, json={"version": 2}, headers={"If-Match": '"stale"'})
    assert stale.status_code == 412
    unknown = api.http.put(path, json={"version": 99}, headers={"If-Match": etag})
    assert unknown.status_code == 404
    canary = api.http.put(
        f"/v1/models/{forgotten}/aliases/canary", json={"version": 2}, headers={"If-Match": '"0"'}
    )
    assert (canary.status_code, canary.json()["version"]) == (200, 2)


@pytest.mark.parametrize("trained_without", [None, 1])
def test_a_net_that_may_know_what_was_erased_is_refused(
    api: conftest.Api, forgotten: str, trained_without: int | None
) -> None:
    """Uploading the original net once more must not undo the erasure."""
    before = api.http.get(f"/v1/models/{forgotten}/versions").json()
    answer = api.version(
        forgotten, material.config(), material.trained(), trained_without=trained_without
    )
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/erasure-regression")
    assert "forgotten 20 samples" in answer.json()["detail"]
    assert "trained_without: 2" in answer.json()["detail"]
    assert api.http.get(f"/v1/models/{forgotten}/versions").json() == before


def test_a_net_trained_without_what_was_erased_is_served(api: conftest.Api) -> None:
    """It is the next anchor: the next version is made from it and has all erasures."""
    model = api.model({"acceptance": conftest.WIDE})
    ids = material.train_ids()
    sample = {"kind": "sample", "ids": ids[:20]}
    api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    unknown = api.version(model, material.config(), material.trained(), trained_without=9)
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (
        422,
        "/trained_without",
    )
    answer = api.version(model, material.config(), material.trained(), trained_without=2)
    assert answer.status_code == 202, answer.text
    path = answer.headers["Location"]
    api.until(path, lambda body: body["state"] == "published")
    lineage = api.http.get(f"{path}/manifest").json()["lineage"]
    assert (lineage["anchor"], lineage["forgets"], lineage["trained_without"]) == (3, [1, 2], 2)
    first = api.http.get(f"/v1/models/{model}/versions/2/manifest").json()["lineage"]
    assert lineage["forgotten_digest"] == first["forgotten_digest"]
    assert api.http.get(f"/v1/models/{model}").json()["aliases"]["production"] == 3
    sample = {"kind": "sample", "ids": ids[20:30]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    assert done["result_version"] == 4
    lineage = api.http.get(f"/v1/models/{model}/versions/4/manifest").json()["lineage"]
    assert (lineage["parent"], lineage["anchor"], lineage["forgets"]) == (3, 3, [1, 2, 3])
    pointer = api.http.get(f"/v1/models/{model}/aliases/production").json()
    assert (pointer["version"], pointer["min_version"]) == (4, 4)


def test_a_net_that_knows_what_was_erased_is_refused_whatever_its_uploader_says(
    api: conftest.Api,
) -> None:
    """The gates of earlier erasures are asked at once, not first by the next job."""
    strict = models.ModelPolicy().acceptance.model_dump(mode="json")["previous"]
    budget = {"daily_share": None}
    model = api.model({"acceptance": {**conftest.WIDE, "previous": strict}, "budget": budget})
    seven = {"kind": "class", "label": "seven"}
    api.ended(api.forget(model, seven, method=conftest.QUICK).json()["id"])
    before = api.http.get(f"/v1/models/{model}/versions").json()
    told = {"trained_without": 2}
    answer = api.version(model, material.config(), material.trained(), **told)
    detail = api.refusal(answer, 409)
    if answer.status_code == 409:  # the worker was not busy
        assert answer.json()["type"] == "/problems/erasure-regression"
        assert api.http.get(f"/v1/models/{model}/versions").json() == before
    assert "this net knows what" in detail
    assert "previous_erasures: got 0.0" in detail

    net = architectures.build(specs.parse_classifier_config(material.CONFIG))
    net.load_state_dict(safetensors.torch.load(material.trained().data))
    with torch.no_grad():
        net.get_submodule("fc").bias[material.LABELS.index("seven")] = -1e4  # type: ignore[operator]
    answer = api.version(model, material.config(), material.safetensors(net), **told)
    assert answer.status_code == 202, answer.text
    api.until(answer.headers["Location"], lambda body: body["state"] == "published")
    with psycopg.connect(api.running.database_url) as connection:
        query = "SELECT detail FROM audit_entry WHERE action = 'version.measure' ORDER BY id DESC"
        ((first,), (second,)) = connection.execute(f"{query} LIMIT 2").fetchall()
    assert (first["passed"], first["previous_erasures"]) == (True, 1.0)
    assert (second["passed"], second["previous_erasures"] < 0.1) == (False, True)


def test_a_waiting_pointer_answers_when_it_moves(api: conftest.Api) -> None:
    model = api.model({"acceptance": conftest.WIDE})
    path = f"/v1/models/{model}/aliases/production"
    etag = api.http.get(path).headers["ETag"]
    seen: list[tuple[float, int]] = []

    def wait() -> None:
        with conftest.client(api.running.base_url, api.running.admin_key) as other:
            answer = other.get(path, headers={"If-None-Match": etag, "Prefer": "wait=60"})
            seen.append((time.monotonic(), answer.json()["version"]))

    waiter = threading.Thread(target=wait)
    waiter.start()
    sample = {"kind": "sample", "ids": material.train_ids()[:3]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    ended = time.monotonic()
    waiter.join(timeout=60)
    assert seen[0][1] == done["result_version"]
    assert seen[0][0] - ended < 5


def test_a_revoked_version_is_gone_and_its_bytes_too(api: conftest.Api, forgotten: str) -> None:
    path = f"/v1/models/{forgotten}/versions"
    kept = {file["digest"] for file in api.http.get(f"{path}/2").json()["files"]}
    used = api.http.post(f"{path}/2/revoke", json={"reason": "test"})
    assert (used.status_code, used.json()["type"]) == (409, "/problems/version-in-use")
    assert api.http.post(f"{path}/1/revoke", json={}).status_code == 422
    pointer = f"/v1/models/{forgotten}/aliases/production"
    etag = api.http.get(pointer).headers["ETag"]
    revoked = api.http.post(f"{path}/1/revoke", json={"reason": "holds erased data"})
    assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
    # Who waits for the pointer to move looks again at what was kept for readers.
    assert api.http.get(pointer, headers={"If-None-Match": etag}).status_code == 200
    for gone in (f"{path}/1", f"{path}/1/manifest"):
        answer = api.http.get(gone)
        assert (answer.status_code, answer.json()["type"]) == (410, "/problems/version-revoked")
    listed = {item["version"]: item for item in api.http.get(path).json()["items"]}
    assert listed[1]["state"] == "revoked"
    assert all(api.http.get(f"/v1/blobs/sha256/{digest}").status_code == 200 for digest in kept)


def test_serving_tells_what_it_runs(api: conftest.Api, forgotten: str) -> None:
    pointer = api.http.get(f"/v1/models/{forgotten}/aliases/production").json()
    body = {
        "model": forgotten,
        "version": pointer["version"],
        "manifest_digest": pointer["manifest_digest"],
        "loaded_at": "2026-01-01T00:00:00Z",
    }
    answer = api.http.post("/v1/deployments/eu-1/reports", json=body)
    assert (answer.status_code, answer.json()["up_to_date"]) == (200, True)
    wrong = {**body, "manifest_digest": "0" * 64}
    answer = api.http.post("/v1/deployments/eu-1/reports", json=wrong)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/digest-mismatch")
    for moment in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"):
        answer = api.http.post("/v1/deployments/eu-1/reports", json={**body, "loaded_at": moment})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")
    path = f"/v1/models/{forgotten}/deployments"
    (listed,) = api.http.get(path).json()["items"]
    assert (listed["deployment"], listed["up_to_date"]) == ("eu-1", True)
    # Requests of this model would wait for it.
    assert api.http.delete(f"{path}/eu-1").status_code == 204
    again = api.http.delete(f"{path}/eu-1")
    assert (again.status_code, again.json()["type"]) == (404, "/problems/deployment-not-found")
    assert api.http.get(path).json() == {"items": []}


def test_torchvision_architectures_by_the_same_file(api: conftest.Api) -> None:
    import torch
    import torchvision

    name = f"vision-{uuid.uuid4().hex[:8]}"
    body = {"name": name, "family": "classifier", "dataset": "digits"}
    assert api.http.post("/v1/models", json=body).status_code == 201
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_1(num_classes=10)
    cfg = {**material.CONFIG["pretrained_cfg"], "input_size": [3, 32, 32]}
    cfg |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = material.config(
        library="torchvision", architecture="squeezenet1_1", model_args={}, pretrained_cfg=cfg
    )
    answer = api.version(name, config, material.safetensors(net))
    assert answer.status_code == 202, answer.text
    path = answer.headers["Location"]
    assert api.until(path, lambda version: version["state"] == "published")["errors"] == []
