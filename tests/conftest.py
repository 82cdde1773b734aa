"""One real stack for the whole run: PostgreSQL, Valkey, API, workers, sweeper."""

import dataclasses
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from client import settings
from client.local import stack
from tests import material

LEASE_SECONDS = 5.0
WIDE = {
    "samples": {"frozen_weights_unchanged": {"tolerance": 0.0, "side": "not_below", "target": 1.0}},
    "whole_class": {
        "frozen_weights_unchanged": {"tolerance": 0.0, "side": "not_below", "target": 1.0}
    },
    "previous": {},
    "generated": {
        "frozen_weights_unchanged": {"tolerance": 0.0, "side": "not_below", "target": 1.0}
    },
    "generated_samples": {
        "frozen_weights_unchanged": {"tolerance": 0.0, "side": "not_below", "target": 1.0}
    },
    "generated_previous": {},
}
"""Gates for tests of the service's own ways: only what must hold of any run."""

QUICK = {"epochs": 1, "line_search": False}
"""A recipe of one epoch, for the same tests."""


@dataclasses.dataclass(frozen=True)
class Api:
    """The running service as its users see it."""

    running: stack.Running
    http: httpx.Client

    def put(self, content: material.Content) -> dict[str, Any]:
        """Upload content; the reference to it."""
        answer = self.http.put(f"/v1/blobs/sha256/{content.digest}", content=content.data)
        assert answer.status_code == 201, answer.text
        return {"digest": content.digest, "size": content.size}

    def dataset(self, name: str, content: material.Content) -> dict[str, Any]:
        """Register a dataset and wait for its ingestion to end."""
        files = [self.put(content)["digest"]]
        answer = self.http.post("/v1/datasets", json={"name": name, "files": files})
        assert answer.status_code == 202, answer.text
        return self.until(answer.headers["Location"], lambda body: body["status"] != "ingesting")

    def model(self, policy: dict[str, Any] | None = None) -> str:
        """A model of its own over the shared digits, with the trained net as version 1."""
        name = f"net-{uuid.uuid4().hex[:12]}"
        body = {"name": name, "family": "classifier", "dataset": "digits", "policy": policy}
        answer = self.http.post("/v1/models", json=body)
        assert answer.status_code == 201, answer.text
        answer = self.version(name, material.config(), material.trained())
        assert answer.status_code == 202, answer.text
        path = answer.headers["Location"]
        self.until(path, lambda version: version["state"] == "published")
        return name

    def registered(self, family: str, dataset: str, policy: dict[str, Any]) -> str:
        """A model without a version."""
        name = f"net-{uuid.uuid4().hex[:12]}"
        body = {"name": name, "family": family, "dataset": dataset, "policy": policy}
        answer = self.http.post("/v1/models", json=body)
        assert answer.status_code == 201, answer.text
        return name

    def generator(
        self,
        family: str,
        dataset: str,
        folder: dict[str, material.Content],
        policy: dict[str, Any],
    ) -> str:
        """A diffusion model of its own with a folder as version 1."""
        name = self.registered(family, dataset, policy)
        answer = self.upload(name, folder)
        assert answer.status_code == 202, answer.text
        path = answer.headers["Location"]
        shown = self.until(
            path, lambda found: found["state"] == "published" or found["errors"], seconds=400
        )
        assert shown["state"] == "published", shown
        return name

    def upload(
        self, model: str, folder: dict[str, material.Content], **more: Any
    ) -> httpx.Response:
        """Add the files of a folder as a version."""
        files = [{"path": path, **self.put(content)} for path, content in folder.items()]
        return self.http.post(f"/v1/models/{model}/versions", json={"files": files, **more})

    def version(
        self, model: str, config: material.Content, weights: material.Content, **more: Any
    ) -> httpx.Response:
        """Upload two files and add them as a version."""
        files = [
            {"path": "config.json", **self.put(config)},
            {"path": "model.safetensors", **self.put(weights)},
        ]
        return self.http.post(f"/v1/models/{model}/versions", json={"files": files, **more})

    def refusal(self, answer: httpx.Response, status: int) -> str:
        """Why an upload is refused: at once by this status, or later where the worker was busy."""
        if answer.status_code == 202:
            where = answer.headers["Location"]
            return str(self.until(where, lambda body: body["errors"])["errors"][0]["detail"])
        assert answer.status_code == status, answer.text
        return str(answer.json()["detail"])

    def forget(
        self, model: str, *targets: dict[str, Any], key: str | None = None, **more: Any
    ) -> httpx.Response:
        """Submit a forget request."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        body = {"model": model, "targets": list(targets), **more}
        return self.http.post("/v1/forget-requests", json=body, headers=headers)

    def ended(self, request_id: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until a request is neither pending nor in progress."""
        path = f"/v1/forget-requests/{request_id}"
        is_over = {"completed", "action_required", "denied", "cancelled"}.__contains__
        return self.until(path, lambda body: is_over(body["status"]), seconds)

    def until(self, path: str, done: Any, seconds: float = 120) -> dict[str, Any]:
        """Long-poll a resource until ``done(body)``."""
        body: dict[str, Any] = {}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                answer = self.http.get(path, headers={"Prefer": "wait=2"})
            except httpx.TransportError:  # a test killed the API; it comes back
                time.sleep(0.1)
                continue
            if answer.status_code == 503:
                time.sleep(0.1)
                continue
            assert answer.status_code == 200, answer.text
            body = answer.json()
            if done(body):
                return body
        pytest.fail(f"after {seconds} s still {body}")

    def sweep(self) -> None:
        """Sweep and clear, now."""
        environment = settings.child_environment(
            DATABASE_URL=self.running.database_url,
            BROKER_URL=self.running.broker_url,
            SALUN_DATA_DIR=str(self.running.folder.root),
        )
        once = [sys.executable, "-m", "service.sweeper", "--once"]
        subprocess.run(once, env=environment, check=True, timeout=120)

    def with_scopes(self, *scopes: str) -> httpx.Client:
        """A client whose key has only these scopes."""
        answer = self.http.post("/v1/api-keys", json={"name": "test", "scopes": scopes})
        return client(self.running.base_url, answer.json()["key"])


def until_ready(api: Api, seconds: float = 20) -> None:
    """Wait until the API and its database answer again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if api.http.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"not ready within {seconds} s")


def client(base_url: str, key: str | None) -> httpx.Client:
    """A plain HTTP client."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=base_url, headers=headers, timeout=90)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Running]:
    """Every process of the product, started by the launcher that users start."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SALUN_TORCH_THREADS", "1")  # several processes share the cores
        environment.setenv("SALUN_LEASE_SECONDS", str(LEASE_SECONDS))
        environment.setenv("SALUN_SWEEP_SECONDS", "2")
        with stack.running(tmp_path_factory.mktemp("salun"), port=0) as up:
            yield up


@pytest.fixture(scope="session")
def api(running: stack.Running) -> Iterator[Api]:
    """The running service with the digits registered."""
    with client(running.base_url, running.admin_key) as http:
        service = Api(running, http)
        ready = service.dataset("digits", material.parquet())
        assert ready["status"] == "ready", ready
        yield service
