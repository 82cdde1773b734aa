"""The computation itself goes wrong: its loss becomes NaN, its memory runs out."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.local import processes
from tests import conftest, material
from tests.faults.conftest import Faulted, frozen, until

WHOLE = 870
WHOLE_BATCH = {"batch_size": WHOLE, "epochs": 1, "learning_rate": 0.01}
SPARE = 600 * 2**20
"""Bytes for a batch: a whole one of pictures of 64x64 needs 960 MiB, half of it 500."""


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
def short_of_memory(faulted: Faulted, side: int) -> Iterator[str]:
    """A model of pictures of ``side``, whose jobs one child alone does in ``SPARE`` address space.

    It is counted from what it has after a job: the first maps libraries of more than a gigabyte.
    A child that takes its place has the same limit, from its parent.
    """
    until(lambda: len(faulted.fleet.warm()) == 2)
    child, *others = faulted.fleet.warm()
    parent = processes.parent_of(child)
    assert parent is not None
    away = [pid for other in others for pid in (processes.parent_of(other), other)]
    with frozen(*away):
        model = large_model(faulted, side)
        first = faulted.submit(faulted.model())
        assert faulted.api.ended(first["id"])["status"] == "completed"
        before = resource.prlimit(parent, resource.RLIMIT_AS)
        limit = address_space(child) + SPARE
        for one in (parent, child):
            resource.prlimit(one, resource.RLIMIT_AS, (limit, before[1]))
        try:
            yield model
        finally:
            for one in (parent, *processes.children_of(parent)):
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(one, resource.RLIMIT_AS, before)


@pytest.mark.parametrize("side", [64])
def test_a_job_whose_memory_runs_out_is_tried_again_with_smaller_batches(
    faulted: Faulted, short_of_memory: str
) -> None:
    request = faulted.submit(short_of_memory, **WHOLE_BATCH)
    done = faulted.api.ended(request["id"])
    job = faulted.job(request)
    assert done["status"] == "completed", job["error"]
    assert job["attempts"] > 1
    report = faulted.api.http.get(f"/v1/forget-requests/{request['id']}/report").json()
    halvings = report["evidence"]["run"]["batch_halvings"]
    assert halvings in {1, 2}
    assert report["method"]["batch_size"] == WHOLE >> halvings


@pytest.mark.faults_full
@pytest.mark.parametrize("side", [192])  # a quarter of a batch needs three times what there is
def test_memory_that_no_batch_is_small_enough_for_is_bounded(
    faulted: Faulted, short_of_memory: str
) -> None:
    request = faulted.submit(short_of_memory, **WHOLE_BATCH)
    held = faulted.api.ended(request["id"])
    assert (held["status"], held["reason"]) == ("action_required", "job_failed")
    job = faulted.job(request)
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert faulted.versions(short_of_memory) == [1]


def large_model(faulted: Faulted, side: int) -> str:
    api = faulted.api
    large = {**material.CONFIG["pretrained_cfg"], "input_size": [1, side, side]}
    name = api.registered("classifier", "digits", {"acceptance": conftest.WIDE})
    answer = api.version(name, material.config(pretrained_cfg=large), material.trained())
    assert answer.status_code == 202, answer.text
    api.until(answer.headers["Location"], lambda version: version["state"] == "published")
    return name


def address_space(pid: int) -> int:
    """Bytes of address space of a process (proc(5): ``VmSize``)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmSize:")[2].split()[0])
