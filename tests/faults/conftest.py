"""What every fault is measured by: a job that nothing happened to."""

import dataclasses
import os
import signal
import time
import uuid
from typing import Any

import psycopg
import pytest

from tests import conftest, material

LONG = {"epochs": 6, "line_search": False}
"""A recipe with six checkpoints."""


@dataclasses.dataclass(frozen=True)
class Faulted:
    """The running service, and what the database knows of a model and its requests."""

    api: conftest.Api
    undisturbed: str

    def model(self, **policy: Any) -> str:
        """A model of its own whose gates every result passes."""
        return self.api.model({"acceptance": conftest.WIDE, **policy})

    def submit(self, model: str, **method: Any) -> dict[str, Any]:
        """The request that ``undisturbed`` tells the result of, unless ``method`` differs."""
        sample = {"kind": "sample", "ids": material.train_ids()[200:230]}
        answer = self.api.forget(model, sample, method={**LONG, **method})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def weights(self, model: str, version: int) -> str:
        """The digest of a version's weights."""
        body = self.api.http.get(f"/v1/models/{model}/versions/{version}").json()
        return next(
            str(file["digest"]) for file in body["files"] if file["path"] == "model.safetensors"
        )

    def versions(self, model: str) -> list[int]:
        """The numbers of all versions, oldest first."""
        items = self.api.http.get(f"/v1/models/{model}/versions").json()["items"]
        return sorted(item["version"] for item in items)

    def job(self, request: dict[str, Any]) -> dict[str, Any]:
        """The job of a request."""
        job_id = self.api.http.get(f"/v1/forget-requests/{request['id']}").json()["job_id"]
        body: dict[str, Any] = self.api.http.get(f"/v1/jobs/{job_id}").json()
        return body

    def completes(self, model: str, request: dict[str, Any], seconds: float = 120) -> None:
        """The request ends as if nothing had happened: one new version, with the same bits."""
        done = self.api.ended(request["id"], seconds)
        assert (done["status"], done["result_version"]) == ("completed", 2), done
        assert self.versions(model) == [1, 2]
        assert self.weights(model, 2) == self.undisturbed
        assert self.rows("SELECT status FROM job WHERE id = %s", done["job_id"]) == [("succeeded",)]
        claims = "SELECT count(*) FROM event WHERE subject_id = %s AND type = 'completed'"
        assert self.rows(claims, done["id"]) == [(1,)]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database says."""
        with psycopg.connect(self.api.running.database_url, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def claims(self, job_id: str | uuid.UUID) -> int:
        """How often a job was claimed."""
        query = "SELECT count(*) FROM event WHERE subject_id = %s AND type = 'claimed'"
        return int(self.rows(query, str(job_id))[0][0])

    def kill_worker(self) -> None:
        """SIGKILL to the GPU worker and to the child that works."""
        running = self.api.running
        parent = running.pids()["worker"]
        assert parent is not None
        children = conftest.children(parent)
        running.kill("worker", signal.SIGKILL)
        for pid in children:  # its death signal does the same a moment later
            with_no_error_kill(pid)
        running.wait_restarted("worker", parent, patience=30)


def with_no_error_kill(pid: int) -> None:
    """SIGKILL to a process that may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def until(found: Any, seconds: float = 60) -> None:
    """Wait until ``found()`` is true."""
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def faulted(api: conftest.Api) -> Faulted:
    """The service with the digest that an undisturbed job ends in."""
    bare = Faulted(api, "")
    model = bare.model()
    done = api.ended(bare.submit(model)["id"])
    assert done["status"] == "completed", done
    return Faulted(api, bare.weights(model, done["result_version"]))
