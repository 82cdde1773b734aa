import statistics
from collections.abc import Callable

import pytest
import torch

from salun_core import controls, errors, images, specs, verification, weights
from salun_core.unlearn import contract

SPEC = specs.UnlearningSpec(epochs=1, batch_size=64, line_search=False, density=0.4)


@pytest.fixture(scope="module")
def splits(
    data: contract.UnlearningData, make_set: Callable[[str, int], images.ImageSet]
) -> verification.Splits:
    test_set = make_set("test", 30)
    return verification.Splits(data.forget_set, data.retain_set, data.holdout_set, test_set)


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def runs(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: verification.Splits,
    told: list[tuple[int, int]],
) -> list[controls.Run]:
    before = [weights.bits(tensor).tobytes() for tensor in trained.state_dict().values()]
    found = controls.run(
        trained, config, splits, "samples", SPEC, densities=(0.1,), seeds=(0, 1),
        report=lambda step, total: told.append((step, total)),
    )  # fmt: skip
    after = [weights.bits(tensor).tobytes() for tensor in trained.state_dict().values()]
    assert after == before
    return found


def test_runs_differ_by_their_masks_alone(
    runs: list[controls.Run], told: list[tuple[int, int]]
) -> None:
    assert [run.name for run in runs] == ["random_mask", "no_mask", "density_0.1"] * 2
    assert [run.spec.seed for run in runs] == [0] * 3 + [1] * 3
    for run, kind, density in zip(
        runs, ["random", "none", "saliency"] * 2, [0.4, 1.0, 0.1] * 2, strict=True
    ):
        changes = {"mask": kind, "density": density, "seed": run.spec.seed}
        assert run.spec == SPEC.model_copy(update=changes)
        assert run.density == pytest.approx(density, abs=1e-3)
        assert "forget_holdout_auc" in run.metrics
        assert run.seconds > 0.0
    assert told == sorted(told)
    assert {total for _, total in told} == {200 + 1000 * len(runs)}
    assert told[-1][0] == told[-1][1]


def test_summary_is_mean_and_spread_over_seeds(runs: list[controls.Run]) -> None:
    found = controls.summary(runs)["no_mask"]["test_accuracy"]
    values = [run.metrics["test_accuracy"].value for run in runs if run.name == "no_mask"]
    assert found["mean"] == pytest.approx(statistics.fmean(values))
    assert found["sd"] == pytest.approx(statistics.stdev(values))
    assert found["n"] == 2.0
    assert "sd" not in controls.summary(runs[:3])["no_mask"]["test_accuracy"]


def test_run_is_what_it_would_be_alone(
    runs: list[controls.Run],
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: verification.Splits,
) -> None:
    """Deterministic, whatever ran before it."""
    for run, other in zip(
        controls.run(trained, config, splits, "samples", SPEC, seeds=(1,)), runs[3:5], strict=True
    ):
        assert (run.name, run.spec, run.metrics) == (other.name, other.spec, other.metrics)


def test_a_run_that_diverges_stops_no_other(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    wild = SPEC.model_copy(update={"learning_rate": 1e30, "epochs": 2})
    found = controls.run(trained, config, splits, "samples", wild)
    assert [(run.name, run.metrics) for run in found] == [("random_mask", {}), ("no_mask", {})]
    assert all(run.diverged for run in found)
    assert controls.summary(found) == {}


def test_what_cannot_be_controlled(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    bare = SPEC.model_copy(update={"mask": "none"})
    with pytest.raises(errors.InvalidDataError, match="got mask 'none'"):
        controls.run(trained, config, splits, "samples", bare)
    with pytest.raises(errors.InvalidDataError, match=r"density 1\.5"):
        controls.run(trained, config, splits, "samples", SPEC, densities=(1.5,))
