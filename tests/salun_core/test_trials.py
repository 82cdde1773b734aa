import copy

import pytest
import torch

from salun_core import preprocessing, saliency, specs, trials, weights
from salun_core.unlearn import contract, methods


def test_parts_add_up_and_never_go_back() -> None:
    """Parts of 10 and 30: half of the first is 5 of 40, a third of the second 10 + 10."""
    told: list[tuple[int, int]] = []
    first, second = trials.parts(lambda step, total: told.append((step, total)), [10, 30])
    for step in (1, 2):
        first(step, 2)
    for step in (1, 2, 3):
        second(step, 3)
    assert told == [(5, 40), (10, 40), (20, 40), (30, 40), (40, 40)]


def test_small_steps_are_never_step_zero() -> None:
    told: list[int] = []
    (only,) = trials.parts(lambda step, _: told.append(step), [3])
    for step in range(1, 11):
        only(step, 10)
    assert told == [1, 1, 1, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("kind", ["saliency", "random", "none"])
def test_mask_is_the_recipes(
    kind: specs.MaskKind,
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    spec = specs.UnlearningSpec(mask=kind, density=0.3)
    mask = trials.mask_for(trained, config, data.forget_set, spec)
    if mask is None:
        assert kind == "none"
        return
    salient = saliency.saliency_mask(trained, data.forget_set, preprocess, 0.3)
    assert mask.kind == kind
    assert mask.layer_density == salient.layer_density
    assert (mask.jaccard(salient) == 1.0) == (kind == "saliency")


def test_carried_out_is_mask_then_method(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    spec = specs.UnlearningSpec(epochs=1, batch_size=64, line_search=False)
    net, other = copy.deepcopy(trained), copy.deepcopy(trained)
    trials.carry_out(net, config, data, spec)
    mask = saliency.saliency_mask(trained, data.forget_set, preprocess, spec.density)
    methods.unlearn(other, config, data, mask, spec)
    for own, wanted in zip(net.parameters(), other.parameters(), strict=True):
        assert (weights.bits(own) == weights.bits(wanted)).all()
