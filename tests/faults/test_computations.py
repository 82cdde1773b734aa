"""The computation itself goes wrong: its loss becomes NaN, its memory runs out."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import conftest, material
from tests.faults.conftest import Faulted, until

WHOLE_BATCH = {"batch_size": 870, "epochs": 1, "learning_rate": 0.01}
LARGE = {**material.CONFIG["pretrained_cfg"], "input_size": [1, 48, 48]}
"""Pictures so large that a whole batch needs about a gigabyte: far more than any small noise."""


def test_a_loss_that_becomes_nan_is_bounded_and_a_person_decides(faulted: Faulted) -> None:
    model = faulted.model()
    request = faulted.submit(model, method="gradient_ascent", learning_rate=10.0, epochs=200)
    held = faulted.api.ended(request["id"])
    assert (held["status"], held["reason"]) == ("action_required", "job_failed")
    job = faulted.job(request)
    assert (job["status"], job["error"]["code"]) == ("failed", "NonFiniteLossError")
    assert job["attempts"] == 1  # it would come to the same again
    assert faulted.versions(model) == [1]


@pytest.fixture
def margin() -> int:
    """Less than the whole batch needs, enough for half of it or a quarter."""
    return 750 * 2**20


@pytest.fixture
def short_of_memory(faulted: Faulted, margin: int) -> Iterator[None]:
    """The children that work may have little more address space than it has now."""
    until(lambda: len(faulted.fleet.warm()) == 2)
    with contextlib.ExitStack() as stack:
        for child in faulted.fleet.warm():
            pages = int(Path(f"/proc/{child}/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + margin
            before = resource.prlimit(child, resource.RLIMIT_AS)
            resource.prlimit(child, resource.RLIMIT_AS, (limit, before[1]))
            stack.callback(_give_back, child, before)
        yield


@pytest.mark.usefixtures("short_of_memory")
def test_a_job_whose_memory_runs_out_is_tried_again_with_smaller_batches(
    faulted: Faulted,
) -> None:
    model = large_model(faulted)
    request = faulted.submit(model, **WHOLE_BATCH)
    done = faulted.api.ended(request["id"])
    job = faulted.job(request)
    assert done["status"] == "completed", job
    assert job["attempts"] > 1
    report = faulted.api.http.get(f"/v1/forget-requests/{request['id']}/report").json()
    halvings = report["evidence"]["run"]["batch_halvings"]
    assert halvings in {1, 2}
    assert report["method"]["batch_size"] == WHOLE_BATCH["batch_size"] >> halvings


@pytest.mark.faults_full
@pytest.mark.parametrize("margin", [150 * 2**20])
@pytest.mark.usefixtures("short_of_memory")
def test_memory_that_no_batch_is_small_enough_for_is_bounded(faulted: Faulted) -> None:
    model = large_model(faulted)
    request = faulted.submit(model, **WHOLE_BATCH)
    held = faulted.api.ended(request["id"])
    assert (held["status"], held["reason"]) == ("action_required", "job_failed")
    job = faulted.job(request)
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert faulted.versions(model) == [1]


def large_model(faulted: Faulted) -> str:
    api = faulted.api
    name = api.registered("classifier", "digits", {"acceptance": conftest.WIDE})
    answer = api.version(name, material.config(pretrained_cfg=LARGE), material.trained())
    assert answer.status_code == 202, answer.text
    api.until(answer.headers["Location"], lambda version: version["state"] == "published")
    return name


def _give_back(pid: int, limits: tuple[int, int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, limits)
