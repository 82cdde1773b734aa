"""What every fault is measured by: a job that nothing happened to."""

import contextlib
import dataclasses
import os
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from benchmarks import fault_fleet
from client.local import processes
from tests import conftest, material

LONG = {"epochs": 6, "line_search": False, "learning_rate": 0.01}
"""A recipe with six checkpoints; a pinned rate is not probed for."""
FORGET = material.train_ids()[200:230]
WORKER = {"SALUN_LEASE_SECONDS": str(conftest.LEASE_SECONDS), "SALUN_TORCH_THREADS": "1"}


@dataclasses.dataclass(frozen=True)
class Faulted:
    """The running service, and what the database knows of a model and its requests."""

    api: conftest.Api
    undisturbed: str
    fleet: fault_fleet.Fleet

    def model(self, **policy: Any) -> str:
        """A model of its own whose gates every result passes."""
        return self.api.model({"acceptance": conftest.WIDE, **policy})

    def submit(self, model: str, **method: Any) -> dict[str, Any]:
        """The request that ``undisturbed`` tells the result of, unless ``method`` differs."""
        sample = {"kind": "sample", "ids": FORGET}
        answer = self.api.forget(model, sample, method={**LONG, **method})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

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
        assert weights_of(self.api, model, 2) == self.undisturbed
        assert self.rows("SELECT status FROM job WHERE id = %s", done["job_id"]) == [("succeeded",)]
        claims = "SELECT count(*) FROM event WHERE subject_id = %s AND type = 'completed'"
        assert self.rows(claims, done["id"]) == [(1,)]
        assert self.unknown_files() == set()

    def unknown_files(self) -> set[str]:
        """Files in the store that the database does not know of: nothing would ever clear them."""
        files = {path.name for path in (self.api.running.folder.root / "blobs").glob("*/*")}
        return files - {digest for (digest,) in self.rows("SELECT digest FROM content")}

    def approve(self, request: dict[str, Any]) -> None:
        """A person says that the cause is mended."""
        path = f"/v1/forget-requests/{request['id']}"
        match = {"If-Match": self.api.http.get(path).headers["ETag"]}
        answer = self.api.http.post(f"{path}/approve", json={"reason": "mended"}, headers=match)
        assert answer.status_code in {200, 202}, answer.text

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database says."""
        with psycopg.connect(self.api.running.database_url, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def claims(self, job_id: str | uuid.UUID) -> int:
        """How often a job was claimed."""
        query = "SELECT count(*) FROM event WHERE subject_id = %s AND type = 'claimed'"
        return int(self.rows(query, str(job_id))[0][0])

    def worker_of(self, request: dict[str, Any]) -> tuple[int, int]:
        """The worker that has the request's job: its parent process and the child that works."""
        ((owner,),) = self.rows("SELECT owner FROM job WHERE id = %s", self.job(request)["id"])
        child = int(owner.rpartition(":")[2])
        parent = processes.parent_of(child)
        assert parent is not None
        return parent, child

    def kill_worker(self, request: dict[str, Any], *, whole: bool = False) -> None:
        """SIGKILL to the child that has the request's job, as when memory runs out.

        ``whole``: to its parent too, as when the machine goes.
        """
        parent, child = self.worker_of(request)
        processes.end([parent, child] if whole else [child], [(signal.SIGKILL, 5.0)])


@contextlib.contextmanager
def frozen(*pids: int | None) -> Iterator[None]:
    """Processes that do not go on (SIGSTOP) until the block ends."""
    known = [pid for pid in pids if pid is not None]
    for pid in known:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in known:
            os.kill(pid, signal.SIGCONT)


def until(found: Any, seconds: float = 60) -> None:
    """Wait until ``found()`` is true."""
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def undisturbed(api: conftest.Api) -> str:
    """The digest that the job ends in when nothing happens to it."""
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": FORGET}
    done = api.ended(api.forget(model, sample, method=LONG).json()["id"])
    assert done["status"] == "completed", done
    return weights_of(api, model, done["result_version"])


@pytest.fixture(scope="package")
def faulted(api: conftest.Api, undisturbed: str) -> Iterator[Faulted]:
    """The service with a second GPU worker, so that one is there while the other starts again."""
    with fault_fleet.Fleet(api.running, 1, WORKER).up() as fleet:
        until(lambda: len(fleet.warm()) == 2, 120)
        yield Faulted(api, undisturbed, fleet)


def weights_of(api: conftest.Api, model: str, version: int) -> str:
    """The digest of a version's weights."""
    body = api.http.get(f"/v1/models/{model}/versions/{version}").json()
    return next(
        str(file["digest"]) for file in body["files"] if file["path"] == "model.safetensors"
    )
