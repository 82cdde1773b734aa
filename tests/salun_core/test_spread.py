"""One, two and three processes, by gloo on the loopback interface, against one without a group."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from salun_core import images, masks, preprocessing, saliency, selection, specs, weights
from salun_core.unlearn import contract

SIZES = (1, 2, 3)
MEMBER = Path(__file__).with_name("spread_member.py")
SECONDS = 120  # until a group that hangs is ended

INPUTS, OUTPUTS = 13, 7  # 98 weights: no shard is a whole number of layers
# Two batches are fewer than three processes, five do not go round evenly.
BATCHES = (1, 2, 5, 12)
SAMPLES = {"one batch": (8, 8), "two batches": (20, 16), "uneven": (23, 5)}  # and batch size
DENSITIES = (0.01, 0.3, 1.0)
KINDS = ("continuous", "mostly zero", "ties", "one value", "zero", "subnormal")
LENGTH = 2001
CUTS = {"1": [0, LENGTH], "2": [0, 1990, LENGTH], "3": [0, 700, 700, LENGTH]}  # one is empty
RANKS = (1, 2, 300, 1000, 1995, LENGTH, LENGTH + 5)


@dataclasses.dataclass(frozen=True)
class Groups:
    """What groups of every size left in a folder."""

    folder: Path

    def results(self, task: str, size: int) -> list[dict[str, torch.Tensor]]:
        return [
            weights.read(self.folder / f"{task}-{size}-{rank}.safetensors") for rank in range(size)
        ]


def magnitudes(kind: str) -> torch.Tensor:
    values = torch.rand(LENGTH, generator=torch.Generator().manual_seed(8))
    return {
        "continuous": values,
        "mostly zero": values * (values > 0.8),
        "ties": (values * 4).floor(),
        "one value": torch.full_like(values, 0.5),
        "zero": torch.zeros_like(values),
        "subnormal": values * 1e-42,
    }[kind]


def gradients() -> torch.Tensor:
    """Of twelve batches; of such different sizes that most orders of adding give other bits."""
    generator = torch.Generator().manual_seed(9)
    values = torch.randn(max(BATCHES), (INPUTS + 1) * OUTPUTS, generator=generator)
    return values * 10.0 ** torch.randint(-3, 4, values.shape, generator=generator)


def tasks(config: specs.ClassifierConfig) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    shared = {"run": "mask", "config": config.model_dump(mode="json"), "dispute": False}
    for name, (count, batch_size) in SAMPLES.items():
        for density in DENSITIES:
            found[f"mask {name} {density}"] = {
                **shared, "net": "trained", "samples": count, "batch_size": batch_size,
                "density": density,
            }  # fmt: skip
    one = {**shared, "samples": 20, "batch_size": 8, "density": 0.5}
    found["broken"] = {**one, "net": "broken"}
    found["dispute"] = {**one, "net": "trained", "dispute": True}
    for count in BATCHES:
        found[f"gradient {count}"] = {
            "run": "gradient", "batches": count, "inputs": INPUTS, "outputs": OUTPUTS,
        }  # fmt: skip
    for kind in KINDS:
        for k in RANKS:
            found[f"largest {kind} {k}"] = {
                "run": "largest", "magnitudes": kind, "k": k, "cuts": CUTS,
            }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def samples(data: contract.UnlearningData) -> images.ImageSet:
    pictures = data.forget_set.images
    ids = tuple(f"sample-{row:04d}" for row in range(len(pictures)))
    return images.ImageSet(pictures, data.forget_set.labels, ids)


@pytest.fixture(scope="module")
def groups(
    config: specs.ClassifierConfig,
    trained: torch.nn.Module,
    samples: images.ImageSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Groups:
    folder = tmp_path_factory.mktemp("groups")
    weights.write(folder / "trained", trained.state_dict())
    broken = {**trained.state_dict(), "fc.bias": torch.full((config.num_classes,), float("nan"))}
    weights.write(folder / "broken", broken)
    pictures = {"images": samples.images[:], "labels": samples.labels}
    weights.write(folder / "samples.safetensors", pictures)
    weights.write(folder / "gradients.safetensors", {"gradients": gradients()})
    for kind in KINDS:
        weights.write(folder / kind, {"magnitudes": magnitudes(kind)})
    for name, task in tasks(config).items():
        (folder / f"{name}.json").write_text(json.dumps(task))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GLOO_SOCKET_IFNAME", "lo")
        _run(folder)
    return Groups(folder)


def _run(folder: Path) -> None:
    command = [sys.executable, "-W", "error", str(MEMBER)]
    started = [
        subprocess.Popen([*command, str(rank), str(len(SIZES)), str(folder)])
        for rank in range(len(SIZES))
    ]
    try:
        assert [process.wait(SECONDS) for process in started] == [0] * len(SIZES)
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", BATCHES)
def test_sum_of_gradients_is_that_of_one_process_bit_for_bit(
    groups: Groups, size: int, count: int
) -> None:
    expected = gradients()[0].clone()
    for gradient in gradients()[1:count]:
        expected += gradient
    found = torch.cat([result["shard"] for result in groups.results(f"gradient {count}", size)])
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


def test_the_order_of_adding_matters_here() -> None:
    """Otherwise the test above would prove nothing."""
    summed = gradients().sum(dim=0)
    backwards = gradients().flip(0).sum(dim=0)
    assert not torch.equal(summed, backwards)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", RANKS)
def test_largest_of_shards_are_those_of_all(groups: Groups, size: int, kind: str, k: int) -> None:
    (expected,) = selection.largest([magnitudes(kind)], k)
    found = [result["chosen"] for result in groups.results(f"largest {kind} {k}", size)]
    assert torch.equal(torch.cat(found), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("batches", SAMPLES)
def test_every_process_gets_the_mask_of_one(
    groups: Groups,
    trained: torch.nn.Module,
    samples: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    size: int,
    density: float,
    batches: str,
) -> None:
    count, batch_size = SAMPLES[batches]
    forget_set = samples.subset(range(count))
    alone = saliency.saliency_mask(trained, forget_set, preprocess, density, batch_size=batch_size)
    assert alone.zero_share > 0.2  # at density 1 the zeros are left out
    for found in groups.results(f"mask {batches} {density}", size):
        _assert_same(masks.SaliencyMask.from_tensors(found), alone)


def _assert_same(found: masks.SaliencyMask, expected: masks.SaliencyMask) -> None:
    assert dict(found.shapes) == dict(expected.shapes)
    assert found.zero_share == expected.zero_share
    assert all((found.bits[name] == expected.bits[name]).all() for name in expected.bits)


@pytest.mark.parametrize("size", SIZES)
def test_all_processes_refuse_a_gradient_that_is_not_finite(groups: Groups, size: int) -> None:
    assert _messages(groups, "broken", "NonFiniteLossError", size) == {
        "the gradient of conv1.weight is not finite"
    }


@pytest.mark.parametrize("size", SIZES[1:])
def test_processes_that_were_given_different_samples_refuse(groups: Groups, size: int) -> None:
    (message,) = _messages(groups, "dispute", "InvalidDataError", size)
    assert "expected the same" in message


def _messages(groups: Groups, task: str, error: str, size: int) -> set[str]:
    found: Iterator[torch.Tensor] = (r[error] for r in groups.results(task, size))
    return {bytes(message.tolist()).decode() for message in found}
