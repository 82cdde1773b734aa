"""A run ends sooner once the erased samples are where they should be, and resumes as it would."""

import copy

import pytest
import torch

from salun_core import errors, specs, weights
from salun_core.unlearn import contract, methods
from tests.salun_core.unlearn import checkpoints

SPEC = specs.UnlearningSpec(
    targets="redistribute",
    mask="none",
    density=1.0,
    epochs=8,
    batch_size=32,
    learning_rate=0.05,
    forget_weight=1.0,
    early_stop=True,
)


def test_a_run_that_is_there_ends_after_two_epochs_more(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    told: list[tuple[int, int]] = []
    result = methods.unlearn(
        copy.deepcopy(trained), config, data, None, SPEC, lambda *step: told.append(step)
    )
    each = -(-len(data.retain_set) // SPEC.batch_size)
    assert (len(result.losses), result.steps) == (6, 6 * each)
    assert result.detail["stopped_early"]
    assert told[0] == (1, 8 * each)
    assert told[-1] == (6 * each, 6 * each)


def test_without_it_every_epoch_is_run(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    whole = SPEC.model_copy(update={"early_stop": False})
    assert len(methods.unlearn(copy.deepcopy(trained), config, data, None, whole).losses) == 8


def test_who_is_not_there_goes_on(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    timid = SPEC.model_copy(update={"learning_rate": 1e-6})
    assert len(methods.unlearn(copy.deepcopy(trained), config, data, None, timid).losses) == 8


@pytest.mark.parametrize("epochs_before", [3, 5])
def test_a_resumed_run_ends_where_an_undisturbed_one_does(
    epochs_before: int,
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
) -> None:
    """Stopped before it was there, and while its rate was falling."""
    whole, resumed = copy.deepcopy(trained), copy.deepcopy(trained)
    finished = methods.unlearn(whole, config, data, None, SPEC)
    kept = checkpoints.Kept()
    each = -(-len(data.retain_set) // SPEC.batch_size)

    def stop(step: int, _: int) -> None:
        if step > epochs_before * each:
            raise errors.CancelledError

    with pytest.raises(errors.CancelledError):
        methods.unlearn(copy.deepcopy(trained), config, data, None, SPEC, stop, kept)
    assert methods.unlearn(resumed, config, data, None, SPEC, checkpoints=kept) == finished
    for name, tensor in whole.state_dict().items():
        assert (weights.bits(tensor) == weights.bits(resumed.state_dict()[name])).all(), name
