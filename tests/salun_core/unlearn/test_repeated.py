"""The same job in another process ends in the same bits, where the number of threads is the same.

With another number of threads it need not: sums inside of a convolution's weight gradient, a
linear layer's and batch norm are then split otherwise. A run that goes on from a checkpoint is
tried in ``test_methods``, workers that die in ``tests/worker/test_faults``.
"""

import copy
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from salun_core import images, specs, trials, weights
from salun_core.unlearn import contract

PROCESS = Path(__file__).with_name("recipe_process.py")
SECONDS = 120
SPEC = specs.default_spec("samples").model_copy(update={"epochs": 2})
RUNS = {"alone": 1, "pair-0": 2, "pair-1": 2}  # and their threads


def renamed(image_set: images.ImageSet, name: str) -> images.ImageSet:
    """With ids that a process can make anew."""
    ids = tuple(f"{name}-{row:04d}" for row in range(len(image_set)))
    return images.ImageSet(image_set.images, image_set.labels, ids)


@pytest.fixture(scope="module")
def sets(data: contract.UnlearningData) -> contract.UnlearningData:
    return contract.UnlearningData(
        renamed(data.forget_set, "forget"),
        renamed(data.retain_set, "retain"),
        renamed(data.holdout_set, "holdout"),
    )


@pytest.fixture(scope="module")
def digests(
    config: specs.ClassifierConfig,
    trained: torch.nn.Module,
    sets: contract.UnlearningData,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Of the weights that processes of their own end in."""
    folder = tmp_path_factory.mktemp("repeated")
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "spec.json").write_text(SPEC.model_dump_json())
    weights.write(folder / "original", trained.state_dict())
    named = {"forget": sets.forget_set, "retain": sets.retain_set, "holdout": sets.holdout_set}
    for name, own in named.items():
        weights.write(folder / name, {"images": own.images[:], "labels": own.labels})
    command = [sys.executable, "-W", "error", str(PROCESS)]
    started = [
        subprocess.Popen([*command, str(threads), str(folder), name])
        for name, threads in RUNS.items()
    ]
    try:
        assert [process.wait(SECONDS) for process in started] == [0] * len(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in RUNS}


def test_another_process_with_as_many_threads_gives_the_same_bits(
    digests: dict[str, str],
    config: specs.ClassifierConfig,
    trained: torch.nn.Module,
    sets: contract.UnlearningData,
    tmp_path: Path,
) -> None:
    assert torch.get_num_threads() == RUNS["alone"]
    net = copy.deepcopy(trained)
    trials.carry_out(net, config, sets, SPEC)
    weights.write(tmp_path / "here", net.state_dict())
    here = hashlib.sha256((tmp_path / "here").read_bytes()).hexdigest()
    assert here == digests["alone"]
    assert digests["pair-0"] == digests["pair-1"]
