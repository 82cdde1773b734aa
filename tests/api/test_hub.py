"""Stock clients pull by alias and version: huggingface_hub and timm, cold and warm, revoked."""

import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest, material

_PULL = """
import json, sys
import huggingface_hub
model, revision = sys.argv[1], sys.argv[2] or None
try:
    print(json.dumps({"path": huggingface_hub.snapshot_download(model, revision=revision)}))
except Exception as error:
    print(json.dumps({"error": type(error).__name__}))
"""
_TIMM = """
import json, sys
import timm, torch
net = timm.create_model(sys.argv[1], pretrained=True).eval()
with torch.inference_mode():
    print(json.dumps({"sum": float(net(torch.ones(1, 1, 16, 16)).sum())}))
"""


@pytest.fixture(scope="module")
def model(api: conftest.Api) -> str:
    return api.model({"acceptance": conftest.WIDE})


@pytest.fixture(scope="module")
def stock(api: conftest.Api, tmp_path_factory: pytest.TempPathFactory) -> "Stock":
    return Stock(api, tmp_path_factory.mktemp("hub-cache"))


class Stock:
    """Stock clients in processes of their own, with one cache and a key that may only pull."""

    def __init__(self, api: conftest.Api, cache: Path) -> None:
        made = {"name": "serving", "scopes": ["models:pull"]}
        self._environment = {
            **os.environ,  # noqa: TID251 - a child process needs it
            "HF_ENDPOINT": api.running.base_url,
            "HF_TOKEN": api.http.post("/v1/api-keys", json=made).json()["key"],
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def snapshot(self, model: str, revision: str = "") -> dict[str, str]:
        return self._run(_PULL, model, revision)

    def timm_sum(self, name: str) -> float:
        return float(self._run(_TIMM, name)["sum"])

    def _run(self, script: str, *arguments: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found


def digest(folder: str) -> str:
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def test_stock_clients_follow_the_alias_and_raise_on_what_was_revoked(
    api: conftest.Api, model: str, stock: Stock
) -> None:
    first = {file["path"]: file["digest"] for file in _files(api, model, 1)}
    cold = stock.snapshot(model, "production")
    assert digest(cold["path"]) == first["model.safetensors"] == material.trained().digest
    assert stock.snapshot(model, "production") == cold  # warm
    assert stock.snapshot(model, "1")["path"] == stock.snapshot(model)["path"] == cold["path"]
    before = stock.timm_sum(f"hf-hub:{model}@production")

    sample = {"kind": "sample", "ids": material.train_ids()[:40]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    second = {file["path"]: file["digest"] for file in _files(api, model, done["result_version"])}
    moved = stock.snapshot(model, "production")
    assert moved["path"] != cold["path"]
    assert digest(moved["path"]) == second["model.safetensors"] != first["model.safetensors"]
    assert stock.timm_sum(f"hf-hub:{model}@production") != before
    assert stock.timm_sum(f"hf-hub:{model}@1") == before

    # The old version stands in the warm cache. Once it is revoked, clients must not get it.
    revoked = api.http.post(f"/v1/models/{model}/versions/1/revoke", json={"reason": "erasure"})
    assert revoked.status_code == 200
    assert stock.snapshot(model, "1") == {"error": "RevisionNotFoundError"}
    assert stock.snapshot(model, "production") == moved


def test_a_key_that_was_revoked_is_told_to_stock_clients(api: conftest.Api, model: str) -> None:
    """They would go on with what lies in their cache, and say nothing."""
    with conftest.client(api.running.base_url, "salun_wrong") as stranger:
        answer = stranger.head(f"/{model}/resolve/main/model.safetensors")
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (401, "RevisionNotFound")
        assert "X-Error-Code" not in stranger.get(f"/v1/models/{model}").headers
    with api.with_scopes("requests:read") as reader:
        answer = reader.get(f"/api/models/{model}/revision/main")
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (403, "RevisionNotFound")


def test_what_is_not_there_says_so_in_the_clients_words(
    api: conftest.Api, model: str, stock: Stock
) -> None:
    assert stock.snapshot("nobody") == {"error": "RepositoryNotFoundError"}
    assert stock.snapshot(model, "no-such-alias") == {"error": "RevisionNotFoundError"}
    assert api.http.get(f"/api/models/{model}/revision/%00").status_code == 422
    answer = api.http.head(f"/{model}/resolve/production/model.safetensors.index.json")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert len(answer.headers["X-Repo-Commit"]) == 40


def test_head_tells_what_a_client_checks(api: conftest.Api, model: str) -> None:
    answer = api.http.head(f"/{model}/resolve/main/model.safetensors")
    assert answer.status_code == 200
    assert answer.headers["X-Linked-Size"] == answer.headers["Content-Length"]
    assert len(answer.headers["ETag"].strip('"')) == 64
    assert "Content-Encoding" not in answer.headers
    info = api.http.get(f"/api/models/{model}").json()
    assert info["sha"] == answer.headers["X-Repo-Commit"]
    assert {item["rfilename"] for item in info["siblings"]} == {"config.json", "model.safetensors"}
    tree = api.http.get(
        f"/api/models/{model}/tree/{info['sha']}", params={"recursive": "true", "expand": "false"}
    ).json()
    assert {item["path"]: item["size"] for item in tree} == {
        file["path"]: file["size"] for file in _files(api, model, 2)
    }


@functools.cache
def _cached_files(api: conftest.Api, model: str, version: int) -> str:
    return api.http.get(f"/v1/models/{model}/versions/{version}/manifest").text


def _files(api: conftest.Api, model: str, version: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(_cached_files(api, model, version))["files"]
    return found
