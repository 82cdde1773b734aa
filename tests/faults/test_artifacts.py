"""Files in the store are cut off or gone between two attempts, or before the first."""

import concurrent.futures
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from client.local import folders, processes
from salun_core import architectures, specs, weights
from tests import conftest, material
from tests.faults import breakpoints
from tests.faults.conftest import Faulted
from tests.faults.test_workers import DEATHS

_FULL = pytest.mark.faults_full


def blob(folder: folders.DataFolder, digest: str) -> Path:
    return folder.root / "blobs" / digest[:2] / digest


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("step", "place_name", "damage"),
    [
        ("computing_saliency", "after the mask", cut),
        pytest.param("computing_saliency", "after the mask", remove, marks=_FULL),
        ("unlearning/checkpoint", "before a later checkpoint", cut),
        pytest.param("unlearning/checkpoint", "before a later checkpoint", remove, marks=_FULL),
        pytest.param("unlearning", "after the weights", cut, marks=_FULL),
        pytest.param("unlearning", "after the weights", remove, marks=_FULL),
        pytest.param("verifying", "after the report", cut, marks=_FULL),
    ],
)
def test_a_damaged_artifact_of_an_earlier_attempt_is_made_again(
    faulted: Faulted, step: str, place_name: str, damage: Any
) -> None:
    model = faulted.model()
    running = faulted.api.running
    with breakpoints.at(running.database_url, *DEATHS[place_name]) as place:
        request = faulted.submit(model)
        place.reached()
        query = "SELECT artifact_digest FROM job_step WHERE job_id = %s AND name = %s"
        job_id = faulted.job(request)["id"]
        ((digest,),) = faulted.rows(query, job_id, step)
        faulted.kill_worker(request)
        damage(blob(running.folder, digest))
        place.release()
        faulted.completes(model, request)
    assert faulted.job(request)["attempts"] == 2
    if step != "unlearning/checkpoint":  # that one is dropped in the end
        ((again,),) = faulted.rows(query, job_id, step)
        assert blob(running.folder, again).stat().st_size > 0
        assert step == "verifying" or again == digest


@pytest.mark.parametrize("damage", [remove, pytest.param(cut, marks=_FULL)])
def test_base_weights_that_are_not_whole_stop_the_job_with_a_clear_word(
    faulted: Faulted, damage: Any, tmp_path: Path
) -> None:
    """A person puts the file back and approves: the duty was never lost."""
    content = own_weights(tmp_path)
    model = own_model(faulted.api, content)
    path = blob(faulted.api.running.folder, content.digest)
    damage(path)
    request = faulted.submit(model)
    held = faulted.api.ended(request["id"])
    assert (held["status"], held["reason"]) == ("action_required", "job_failed")
    job = faulted.job(request)
    assert (job["attempts"], job["error"]["code"]) == (1, "artifact-missing")
    assert "model.safetensors of version 1" in job["error"]["detail"]
    assert faulted.versions(model) == [1]

    path.write_bytes(content.data)
    faulted.approve(request)
    done = faulted.api.until(
        f"/v1/forget-requests/{request['id']}", lambda body: body["status"] == "completed"
    )
    assert done["result_version"] == 2
    assert faulted.versions(model) == [1, 2]


def test_an_api_that_dies_in_an_upload_leaves_nothing_that_stays(faulted: Faulted) -> None:
    """The client sends the file again; what lies about goes once it is old."""
    running = faulted.api.running
    content = material.Content(uuid.uuid4().bytes)
    incoming = running.folder.root / "incoming"
    before = set(incoming.iterdir())
    condition = f"NEW.digest = '{content.digest}'"
    with (
        breakpoints.at(running.database_url, "blob", "INSERT", condition) as place,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        upload = pool.submit(faulted.api.put, content)
        place.reached()
        parent = running.pids()["api"]
        assert parent is not None
        children = processes.children_of(parent)
        running.kill("api", signal.SIGKILL)
        processes.end(children, [(signal.SIGKILL, 5.0)])
        assert isinstance(upload.exception(60), httpx.TransportError)
        place.let_pass()
        running.wait_restarted("api", parent)
        conftest.until_ready(faulted.api)
    (litter,) = set(incoming.iterdir()) - before
    assert not blob(running.folder, content.digest).exists()
    assert faulted.rows("SELECT 1 FROM blob WHERE digest = %s", content.digest) == []

    assert faulted.api.put(content)["digest"] == content.digest
    assert blob(running.folder, content.digest).read_bytes() == content.data
    then = time.time() - 2 * 86_400
    os.utime(litter, (then, then))
    faulted.api.sweep()
    assert not litter.exists()
    assert blob(running.folder, content.digest).exists()


def own_weights(folder: Path) -> material.Content:
    """The trained net, a little changed: content that no other model has."""
    trained = folder / "trained.safetensors"
    trained.write_bytes(material.trained().data)
    net = architectures.load(specs.parse_classifier_config(material.CONFIG), trained)
    state = dict(net.state_dict())
    name = next(key for key in state if key.endswith("weight"))
    state[name] = state[name] + 1e-4 * torch.rand(1, generator=_generator())
    weights.write(folder / "own.safetensors", state)
    return material.Content((folder / "own.safetensors").read_bytes())


def own_model(api: conftest.Api, content: material.Content) -> str:
    name = api.registered("classifier", "digits", {"acceptance": conftest.WIDE})
    answer = api.version(name, material.config(), content)
    assert answer.status_code == 202, answer.text
    api.until(answer.headers["Location"], lambda version: version["state"] == "published")
    return name


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(uuid.uuid4().int % 2**32)
