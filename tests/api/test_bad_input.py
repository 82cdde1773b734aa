"""Every bad input: a problem document, nothing half-written, the server stays up."""

import hashlib
import io
import json
import uuid
import zipfile
from typing import Any

import httpx
import pytest
import torch

from salun_core import architectures, specs
from tests import conftest, material


@pytest.fixture(scope="module")
def model(api: conftest.Api) -> str:
    return api.model({"acceptance": conftest.WIDE})


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is that problem, in full form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{code}"
    assert body["status"] == status
    assert body["title"]
    assert len(body["detail"]) > 10
    return body


def item_codes(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["pointer"], item["code"]) for item in body["errors"]]


# --- versions -------------------------------------------------------------------------------


def _zip() -> material.Content:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return material.Content(buffer.getvalue())


def _other_net() -> material.Content:
    changed = {**material.CONFIG["model_args"], "channels": [8, 16, 16, 64]}
    config = specs.parse_classifier_config({**material.CONFIG, "model_args": changed})
    return material.safetensors(architectures.build(config))


@pytest.mark.parametrize(
    ("config", "weights", "item"),
    [
        (material.config, lambda: material.Content(b"\x80\x04\x95."), "not-safetensors"),
        (material.config, _zip, "not-safetensors"),
        (
            material.config,
            lambda: material.Content(material.trained().data[:-100]),
            "not-safetensors",
        ),
        (material.config, lambda: material.Content(b""), "not-safetensors"),
        (material.config, _other_net, "architecture-mismatch"),
        (
            lambda: material.config(architecture="resnet9000"),
            material.trained,
            "unknown-architecture",
        ),
        (lambda: material.config(num_classes=3), material.trained, "invalid-config"),
        (lambda: material.Content(b"{not json"), material.trained, "invalid-config"),
        (lambda: material.Content(b"[]"), material.trained, "invalid-config"),
        (
            lambda: material.config(label_names=list(reversed(material.LABELS))),
            material.trained,
            "labels-mismatch",
        ),
        (
            lambda: material.config(model_args={"pretrained": True}),
            material.trained,
            "invalid-config",
        ),
    ],
    ids=[
        "pickle",
        "zip",
        "truncated",
        "empty",
        "other-tensors",
        "unknown-architecture",
        "too-few-classes",
        "config-not-json",
        "config-not-object",
        "labels-in-another-order",
        "reserved-model-argument",
    ],
)
def test_an_unusable_version_is_refused_and_never_exists(
    api: conftest.Api, model: str, config: Any, weights: Any, item: str
) -> None:
    answer = api.version(model, config(), weights())
    body = problem(answer, 422, "unsafe-artifact")
    assert item in {code for _, code in item_codes(body)}
    versions = api.http.get(f"/v1/models/{model}/versions").json()["items"]
    assert [version["version"] for version in versions] == [1]


@pytest.mark.parametrize(
    "path",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a\\model.safetensors",
        "model\x00.safetensors",
        "unet/../../model.safetensors",
        "C:model.safetensors",
        ".hidden/model.safetensors",
        "a//model.safetensors",
        "model.safetensors/",
        "pytorch_model.bin",
        "model.pt",
        "code.py",
    ],
)
def test_unsafe_paths_and_kinds_are_refused(api: conftest.Api, model: str, path: str) -> None:
    reference = api.put(material.Content(b"content"))
    files = [{"path": path, **reference}]
    body = problem(
        api.http.post(f"/v1/models/{model}/versions", json={"files": files}),
        422,
        "unsafe-artifact",
    )
    assert body["errors"][0]["pointer"] == "/files/0/path"
    assert body["errors"][0]["code"] in {"unsafe-path", "unsafe-file-type"}


def test_a_path_is_a_file_or_a_folder(api: conftest.Api, model: str) -> None:
    reference = api.put(material.Content(b"{}"))
    paths = ("config.json", "notes.json", "notes.json/a.json")
    files = [{"path": path, **reference} for path in paths]
    answer = api.http.post(f"/v1/models/{model}/versions", json={"files": files})
    body = problem(answer, 422, "unsafe-artifact")
    assert item_codes(body) == [("/files/1/path", "unsafe-path")]


def test_files_must_be_uploaded_whole_and_once(api: conftest.Api, model: str) -> None:
    reference = api.put(material.Content(b"some content"))
    missing = {"path": "config.json", "digest": "0" * 64, "size": 1}
    wrong_size = {"path": "config.json", **reference, "size": 1}
    path = f"/v1/models/{model}/versions"
    body = problem(api.http.post(path, json={"files": [missing]}), 422, "unsafe-artifact")
    assert item_codes(body) == [("/files/0/digest", "blob-not-found")]
    body = problem(api.http.post(path, json={"files": [wrong_size]}), 422, "unsafe-artifact")
    assert item_codes(body) == [("/files/0/size", "size-mismatch")]
    twice = [{"path": "config.json", **reference}] * 2
    body = problem(api.http.post(path, json={"files": twice}), 422, "unsafe-artifact")
    assert ("/files/1/path", "duplicate-path") in item_codes(body)
    body = problem(api.http.post(path, json={"files": twice[:1]}), 422, "unsafe-artifact")
    assert ("/files", "file-missing") in item_codes(body)


# --- blobs ----------------------------------------------------------------------------------


def test_content_must_hash_to_its_name(api: conftest.Api) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    body = problem(
        api.http.put(f"/v1/blobs/sha256/{digest}", content=b"wrong"), 422, "digest-mismatch"
    )
    assert digest in body["detail"]
    assert hashlib.sha256(b"wrong").hexdigest() in body["detail"]
    assert api.http.head(f"/v1/blobs/sha256/{digest}").status_code == 404
    incoming = api.running.folder.root / "incoming"
    assert list(incoming.iterdir()) == []


@pytest.mark.parametrize("digest", ["abc", "G" * 64, "A" * 64, "0" * 65])
def test_a_digest_is_64_lower_case_hex_digits(api: conftest.Api, digest: str) -> None:
    problem(api.http.put(f"/v1/blobs/sha256/{digest}", content=b"x"), 422, "invalid-request")


def test_a_body_over_the_limit_is_refused(api: conftest.Api, model: str) -> None:
    ids = ["x" * 250] * 70_000
    answer = api.forget(model, {"kind": "sample", "ids": ids})
    problem(answer, 413, "body-too-large")


def test_a_dropped_upload_leaves_nothing(api: conftest.Api) -> None:
    content = b"y" * 3_000_000
    digest = hashlib.sha256(content).hexdigest()

    def broken() -> Any:
        yield content[:1_500_000]
        raise ConnectionAbortedError

    with (
        conftest.client(api.running.base_url, api.running.admin_key) as other,
        pytest.raises(ConnectionAbortedError),
    ):
        other.put(f"/v1/blobs/sha256/{digest}", content=broken())
    assert api.http.head(f"/v1/blobs/sha256/{digest}").status_code == 404
    assert api.http.get("/readyz").status_code == 200


# --- datasets -------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["sample_id", "image", "split", "label"])
def test_parquet_without_a_column_is_refused_at_once(api: conftest.Api, column: str) -> None:
    digest = api.put(material.parquet(without=column))["digest"]
    name = f"bad-{uuid.uuid4().hex[:8]}"
    body = problem(
        api.http.post("/v1/datasets", json={"name": name, "files": [digest]}),
        422,
        "invalid-dataset",
    )
    assert item_codes(body) == [("/files/0", "columns-missing")]
    assert column in body["detail"].split("missing")[1]
    problem(api.http.get(f"/v1/datasets/{name}"), 404, "dataset-not-found")


def test_what_is_no_parquet_or_not_there_is_refused(api: conftest.Api) -> None:
    digest = api.put(material.Content(b"PAR1 but not really PAR1"))["digest"]
    body = problem(
        api.http.post("/v1/datasets", json={"name": "bad", "files": [digest]}),
        422,
        "invalid-dataset",
    )
    assert item_codes(body) == [("/files/0", "not-parquet")]
    body = problem(
        api.http.post("/v1/datasets", json={"name": "bad", "files": ["1" * 64]}),
        422,
        "invalid-dataset",
    )
    assert item_codes(body) == [("/files/0", "blob-not-found")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sample_id": "img_twice"}, "duplicate-id"),
        ({"image": {"bytes": b"\x89PNG broken", "path": None}}, "image"),
        ({"image": None}, "image"),
        ({"split": "validation"}, "split"),
        ({"label": None}, "label"),
        ({"sample_id": None}, "sample-id"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_ingested(
    api: conftest.Api, change: dict[str, Any], code: str
) -> None:
    rows = [{**row, **(change if index < 2 else {})} for index, row in enumerate(material.rows())]
    name = f"bad-{uuid.uuid4().hex[:8]}"
    failed = api.dataset(name, material.parquet(rows))
    assert failed["status"] == "failed"
    assert failed["rows"] == 0
    assert code in {item["code"] for item in failed["errors"]}
    if code == "duplicate-id":
        assert "img_twice" in failed["errors"][0]["detail"]
    # The name is free for a better try.
    assert api.dataset(name, material.parquet())["status"] == "ready"


def test_a_model_needs_a_ready_dataset_and_a_free_name(api: conftest.Api, model: str) -> None:
    body = {"name": "fresh", "family": "classifier", "dataset": "nowhere"}
    found = problem(api.http.post("/v1/models", json=body), 422, "invalid-model")
    assert item_codes(found) == [("/dataset", "unknown-dataset")]
    taken = {"name": model, "family": "classifier", "dataset": "digits"}
    problem(api.http.post("/v1/models", json=taken), 409, "model-exists")
    odd = {**taken, "name": "odd", "policy": {"max_forget_share": 7}}
    found = problem(api.http.post("/v1/models", json=odd), 422, "invalid-request")
    assert item_codes(found)[0][0] == "/policy/max_forget_share"
    problem(api.http.post("/v1/models", json={**taken, "name": "../up"}), 422, "invalid-request")
    for span in (
        "batch_window_seconds",
        "deadline_margin_seconds",
        "grace_seconds",
        "proof_window_seconds",
    ):  # dates could not be counted with it
        odd = {**taken, "name": "odd", "policy": {span: 1e11}}
        found = problem(api.http.post("/v1/models", json=odd), 422, "invalid-request")
        assert item_codes(found) == [(f"/policy/{span}", "less-than-equal")]


# --- forget requests ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "pointer", "code"),
    [
        ([{"kind": "sample", "ids": ["nope"]}], "/targets/0/ids/0", "unknown-sample"),
        ([{"kind": "class", "label": "eleven"}], "/targets/0/label", "unknown-class"),
        ([{"kind": "subject", "subject_id": "x"}], "/targets/0/subject_id", "unknown-subject"),
        (
            [{"kind": "concept", "concept": "Van Gogh", "replacement": "a painting"}],
            "/targets/0/kind",
            "unsupported-target",
        ),
        ([], "/targets", "too-short"),
        ([{"kind": "sample", "ids": []}], "/targets/0/ids", "too-short"),
        ([{"kind": "planet"}], "/targets/0", "union-tag-invalid"),
        ([{"kind": "sample", "ids": ["a\x00b"]}], "/targets/0/ids/0", "string-pattern-mismatch"),
    ],
)
def test_targets_that_name_nothing_are_refused(
    api: conftest.Api, model: str, targets: list[dict[str, Any]], pointer: str, code: str
) -> None:
    body = problem(api.forget(model, *targets), 422, "invalid-target")
    assert (pointer, code) in item_codes(body)


def test_held_out_samples_never_reach_a_loader(api: conftest.Api, model: str) -> None:
    held_out = next(row["sample_id"] for row in material.rows() if row["split"] == "test")
    body = problem(api.forget(model, {"kind": "sample", "ids": [held_out]}), 422, "invalid-target")
    assert item_codes(body) == [("/targets/0/ids/0", "not-in-training-set")]


def test_a_refused_request_leaves_no_trace(api: conftest.Api, model: str) -> None:
    listed = {"model": model}
    before = api.http.get("/v1/forget-requests", params=listed).json()
    key = uuid.uuid4().hex
    api.forget(model, {"kind": "sample", "ids": ["nope"]}, key=key)
    assert api.http.get("/v1/forget-requests", params=listed).json() == before
    # Nor does its key: the corrected body may use it.
    sample = {"kind": "sample", "ids": material.train_ids()[:1]}
    accepted = api.forget(model, sample, key=key, method=conftest.QUICK)
    assert accepted.status_code == 202
    api.ended(accepted.json()["id"])


def test_other_refusals_of_a_request(api: conftest.Api, model: str) -> None:
    sample = {"kind": "sample", "ids": material.train_ids()[:1]}
    body = problem(api.forget("nobody", sample), 422, "invalid-target")
    assert item_codes(body) == [("/model", "unknown-model")]
    without_key = api.http.post("/v1/forget-requests", json={"model": model, "targets": [sample]})
    problem(without_key, 400, "idempotency-key-required")
    everything = [{"kind": "sample", "ids": material.train_ids()}]
    problem(api.forget(model, *everything), 422, "forget-budget-exceeded")
    body = problem(api.forget(model, sample, method={"density": 7}), 422, "invalid-method")
    assert body["errors"][0]["pointer"] == "/method/density"
    problem(api.forget(model, sample, surprise=1), 422, "invalid-request")
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    broken = api.http.post("/v1/forget-requests", content=b'{"model": ', headers=headers)
    problem(broken, 422, "invalid-request")
    headers["Content-Type"] = "text/plain"
    other = api.http.post("/v1/forget-requests", content=b"{}", headers=headers)
    problem(other, 415, "unsupported-media-type")
    named = b'{"name": "n", "scopes": ["models:pull"]}'
    as_form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl --data says
    for sent in (as_form, {}):
        other = api.http.post("/v1/api-keys", content=named, headers=sent)
        body = problem(other, 415, "unsupported-media-type")
        assert "expected application/json" in body["detail"]
    problem(api.http.post("/v1/api-keys"), 422, "invalid-request")
    as_json = {"Content-Type": "application/json"}
    cut = api.http.post("/v1/api-keys", content=b'{"name": ', headers=as_json)
    body = problem(cut, 422, "invalid-request")
    assert item_codes(body) == [("", "json-invalid")]
    assert "at character 9" in body["detail"]
    no_text = api.http.post("/v1/api-keys", content=b'{"name": "\xff"}', headers=as_json)
    problem(no_text, 422, "invalid-request")
    for name in ("action", "object_id"):
        found = api.http.get("/v1/audit-events", params={name: "a\x00"})
        assert item_codes(problem(found, 422, "invalid-request"))[0][0] == f"/query/{name}"
    problem(api.http.post("/v1/api-keys", json=[]), 422, "invalid-request")
    key = {"Idempotency-Key": "k2"}
    bare = api.http.post("/v1/forget-requests", content=b"[]", headers=key)
    problem(bare, 422, "invalid-request")
    problem(api.http.get(f"/v1/forget-requests/{uuid.uuid4()}"), 404, "forget-request-not-found")
    problem(api.http.get(f"/v1/jobs/{uuid.uuid4()}"), 404, "job-not-found")
    problem(api.http.get("/v1/nothing"), 404, "not-found")
    nowhere = f"/v1/forget-requests/{uuid.uuid4()}/events"
    problem(api.http.get(nowhere), 404, "forget-request-not-found")
    problem(api.http.get(f"/v1/jobs/{uuid.uuid4()}/events"), 404, "job-not-found")
    accepted = api.forget(model, sample, method=conftest.QUICK).json()
    odd = {"Last-Event-ID": "first"}
    stream = f"/v1/forget-requests/{accepted['id']}/events"
    problem(api.http.get(stream, headers=odd), 422, "invalid-request")
    api.ended(accepted["id"])


@pytest.mark.parametrize("targets", [5, True, "x", {"kind": "class"}])
def test_lines_whose_first_has_no_targets_to_add_to(
    api: conftest.Api, model: str, targets: object
) -> None:
    lines = json.dumps({"model": model, "targets": targets}) + "\nimg_0001\n"
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": str(uuid.uuid4())}
    answer = api.http.post("/v1/forget-requests", content=lines, headers=headers)
    problem(answer, 422, "invalid-target")


def test_only_a_line_feed_ends_a_line(api: conftest.Api, model: str) -> None:
    """U+0085 and U+2028 end lines of text, not of NDJSON: this is one id, which nobody has."""
    lines = json.dumps({"model": model}) + "\nimg_0001\u0085img_0002\u2028x\n"
    headers = {"Content-Type": "application/x-ndjson"}
    answer = api.http.post("/v1/forget-requests:validate", content=lines.encode(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["targets_summary"]["unknown"] == 1


def test_characters_that_the_database_cannot_hold(api: conftest.Api, model: str) -> None:
    person = {"kind": "subject", "subject_id": "john.roe@example.org"}
    body: dict[str, Any] = {"model": model, "targets": [person]}
    attested = {"identity_verified": True, "method": "by\x00mail"}
    for more in ({"reason": "a\x00b"}, {"attestation": attested}):
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        answer = api.http.post("/v1/forget-requests", json={**body, **more}, headers=headers)
        problem(answer, 422, "invalid-request")
    named = {"name": "a\x00b", "scopes": ["models:pull"]}
    problem(api.http.post("/v1/api-keys", json=named), 422, "invalid-request")
    reason = {"reason": "tabs\tand\r\nlines are text"}
    answer = api.http.post(f"/v1/jobs/{uuid.uuid4()}/cancel", json=reason)
    problem(answer, 404, "job-not-found")
    problem(api.http.post("/v1/jobs/none/cancel", json=reason), 422, "invalid-request")
    assert all("john.roe" not in p.read_text() for p in api.running.folder.logs.glob("*.log"))


def test_what_would_be_ignored_is_refused(api: conftest.Api, model: str) -> None:
    answer = api.forget(
        model, {"kind": "class", "label": "one"}, callback_endpoint="whe_1", method=conftest.QUICK
    )
    assert item_codes(problem(answer, 422, "invalid-request"))[0][0] == "/callback_endpoint"


def test_a_dry_run_refuses_the_recipe_that_submitting_refuses(
    api: conftest.Api, model: str
) -> None:
    body = {
        "model": model,
        "targets": [{"kind": "class", "label": "one"}],
        "method": {"learning_rate": -1.0},
    }
    problem(api.http.post("/v1/forget-requests:validate", json=body), 422, "invalid-method")


@pytest.mark.parametrize("alias", ["main", "7", "0" * 40])
def test_an_alias_that_clients_take_for_a_version(
    api: conftest.Api, model: str, alias: str
) -> None:
    path = f"/v1/models/{model}/aliases/{alias}"
    answer = api.http.put(path, json={"version": 1}, headers={"If-Match": '"0"'})
    assert item_codes(problem(answer, 422, "invalid-request")) == [("/path/alias", "reserved-name")]


def test_a_stream_asks_for_the_key_first(api: conftest.Api) -> None:
    with conftest.client(api.running.base_url, None) as nobody:
        for path in (f"/v1/forget-requests/{uuid.uuid4()}", f"/v1/jobs/{uuid.uuid4()}"):
            problem(nobody.get(f"{path}/events"), 401, "unauthenticated")


def test_no_answer_repeats_an_identity(api: conftest.Api, model: str) -> None:
    identity = "jane.doe@example.org"
    answers = [
        api.forget(model, {"kind": "subject", "subject_id": identity}),
        api.forget(model, {"kind": "sample", "ids": [identity]}),
        api.forget(model, {"kind": "sample", "ids": [identity + "\x00"]}),
        api.forget(model, {"kind": "class", "label": identity}),
        *(
            api.forget(model, {"kind": "sample", "ids": [name]}, key=identity)
            for name in ("first", material.train_ids()[0])
        ),
        api.forget(model, {"kind": "sample", "ids": material.train_ids()[:2]}, key=identity),
    ]
    problem(answers[-1], 422, "idempotency-key-reused")
    assert all(identity not in answer.text for answer in answers)
    logs = api.running.folder.logs
    assert all(identity not in path.read_text() for path in logs.glob("*.log"))


# --- keys -----------------------------------------------------------------------------------


def test_a_key_is_needed_and_must_have_the_scope(api: conftest.Api, model: str) -> None:
    with conftest.client(api.running.base_url, None) as nobody:
        answer = nobody.get(f"/v1/models/{model}")
        problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    with conftest.client(api.running.base_url, "salun_wrong") as wrong:
        problem(wrong.get(f"/v1/models/{model}"), 401, "unauthenticated")
    with api.with_scopes("models:pull") as puller:
        assert puller.get(f"/v1/models/{model}").status_code == 200
        for refused in (
            puller.get("/v1/forget-requests"),
            puller.post("/v1/forget-requests", json={}, headers={"Idempotency-Key": "x"}),
            puller.put(f"/v1/blobs/sha256/{'0' * 64}", content=b"x"),
            puller.post("/v1/models", json={}),
            puller.get("/v1/api-keys"),
            puller.post(f"/v1/jobs/{uuid.uuid4()}/cancel"),
        ):
            body = problem(refused, 403, "insufficient-scope")
            assert "models:pull" in body["detail"]


def test_who_registers_models_sees_them(api: conftest.Api, model: str) -> None:
    """What a push reads on its way, and the pointer that ``If-Match`` must name."""
    with api.with_scopes("models:write") as writer:
        for path in ("", "/versions", "/versions/1", "/aliases/production", "/deployments"):
            assert writer.get(f"/v1/models/{model}{path}").status_code == 200, path
        assert writer.get("/v1/models").status_code == 200
        problem(writer.get(f"/v1/models/{model}/versions/1/manifest"), 403, "insufficient-scope")


def test_head_is_get_without_content(api: conftest.Api, model: str) -> None:
    request_id = api.http.get("/v1/forget-requests", params={"limit": 1}).json()["items"][0]["id"]
    for path in (
        "/livez",
        "/metrics",
        f"/v1/models/{model}/aliases/production",
        f"/v1/models/{model}/versions/1/manifest",
        f"/v1/forget-requests/{request_id}",
        "/v1/nothing",
    ):
        got, head = api.http.get(path), api.http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.get("ETag") == got.headers.get("ETag")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
    stream = api.http.head(f"/v1/forget-requests/{request_id}/events", timeout=10)
    assert stream.status_code == 200
    assert api.http.get("/livez").status_code == 200
    refused = api.http.put("/livez")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["Allow"] == "GET, HEAD"


def test_a_revoked_key_is_refused_at_once(api: conftest.Api, model: str) -> None:
    made = api.http.post("/v1/api-keys", json={"name": "short", "scopes": ["models:pull"]}).json()
    with conftest.client(api.running.base_url, made["key"]) as short:
        assert short.get(f"/v1/models/{model}").status_code == 200
        assert api.http.delete(f"/v1/api-keys/{made['id']}").status_code == 200
        problem(short.get(f"/v1/models/{model}"), 401, "unauthenticated")
    listed = {key["id"]: key for key in api.http.get("/v1/api-keys").json()["items"]}
    assert listed[made["id"]]["revoked_at"] is not None
    assert "key" not in listed[made["id"]]
    bad_scope = api.http.post("/v1/api-keys", json={"name": "x", "scopes": ["root"]})
    problem(bad_scope, 422, "invalid-request")


def test_the_server_is_still_up(api: conftest.Api) -> None:
    assert api.http.get("/livez").json() == {"status": "alive"}
    assert api.http.get("/readyz").json() == {"status": "ready"}


def test_weights_with_values_that_are_not_finite_are_refused(api: conftest.Api) -> None:
    config = specs.parse_classifier_config(material.CONFIG)
    net = architectures.build(config)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    answer = api.version(api.model(), material.config(), material.safetensors(net))
    body = problem(answer, 422, "unsafe-artifact")
    assert item_codes(body)[0][1] == "not-finite"
