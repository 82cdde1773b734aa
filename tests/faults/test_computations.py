"""The computation itself goes wrong: its loss becomes NaN, its memory runs out."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Faulted

MARGIN_BYTES = 48 * 2**20
WHOLE_BATCH = {"batch_size": 800, "epochs": 1}


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
def short_of_memory(faulted: Faulted) -> Iterator[None]:
    """The children that work may have little more address space than it has now."""
    with contextlib.ExitStack() as stack:
        for child in faulted.fleet.working().values():
            pages = int(Path(f"/proc/{child}/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + MARGIN_BYTES
            before = resource.prlimit(child, resource.RLIMIT_AS)
            resource.prlimit(child, resource.RLIMIT_AS, (limit, before[1]))
            stack.callback(resource.prlimit, child, resource.RLIMIT_AS, before)
        yield


@pytest.mark.usefixtures("short_of_memory")
def test_a_job_whose_memory_runs_out_is_tried_again_with_smaller_batches(
    faulted: Faulted,
) -> None:
    model = faulted.model()
    request = faulted.submit(model, **WHOLE_BATCH)
    done = faulted.api.ended(request["id"])
    job = faulted.job(request)
    assert done["status"] == "completed", job
    assert job["attempts"] > 1
