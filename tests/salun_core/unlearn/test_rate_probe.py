"""The learning rate that a net bears is found before the run, and leaves no trace in the net."""

import copy
import math

import torch

from salun_core import masked_step, specs
from salun_core.unlearn import contract, methods, rate_probe


def spec_at(learning_rate: float) -> specs.UnlearningSpec:
    return specs.UnlearningSpec(
        mask="none",
        density=1.0,
        epochs=1,
        batch_size=32,
        learning_rate=learning_rate,
        probe_rate=True,
    )


def test_a_rate_that_holds_is_kept_and_the_net_as_it_was(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    net = copy.deepcopy(trained)
    original = masked_step.copy_state(net)
    settled, found = rate_probe.settle(net, original, config, data, None, spec_at(0.01))
    assert settled.learning_rate == 0.01
    assert [one["held"] for one in found["tried"]] == [True]
    assert masked_step.changed_frozen_weights(original, net, None, ()) == {}
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, original[name]), name
    assert not net.training


def test_a_rate_that_destroys_is_lowered_until_one_holds(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    net = copy.deepcopy(trained)
    original = masked_step.copy_state(net)
    settled, found = rate_probe.settle(net, original, config, data, None, spec_at(2.0))
    *lost, last = found["tried"]
    assert lost
    assert last["held"]
    assert settled.learning_rate == last["learning_rate"] < 2.0
    for one in lost:
        assert one["retain_loss"] is None or one["retain_loss"] > one["limit"]


def test_what_diverges_is_told_and_the_lowest_rate_is_left(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    """Momentum .99 and a penalty on the weights that doubles them at every step."""
    wild = spec_at(10.0).model_copy(update={"weight_decay": 1.0, "momentum": 0.99})
    net = copy.deepcopy(trained)
    settled, found = rate_probe.settle(net, masked_step.copy_state(net), config, data, None, wild)
    assert [one["learning_rate"] for one in found["tried"]] == [10.0, 10 / 3, 10 / 9, 10 / 27]
    assert not any(one["held"] for one in found["tried"])
    assert settled.learning_rate == 10 / 27


def test_limit_lies_half_way_to_knowing_nothing(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    net = copy.deepcopy(trained)
    tried = rate_probe.settle(net, masked_step.copy_state(net), config, data, None, spec_at(1e-9))[
        1
    ]["tried"]
    nothing = math.log(config.num_classes)
    first = 2 * tried[0]["limit"] - nothing
    assert abs(tried[0]["retain_loss"] - first) < 0.2 * nothing


def test_the_run_takes_the_rate_and_tells_it(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    probed, plain = copy.deepcopy(trained), copy.deepcopy(trained)
    result = methods.unlearn(probed, config, data, None, spec_at(2.0))
    rate = result.detail["rate_probe"]["tried"][-1]["learning_rate"]
    pinned = spec_at(rate).model_copy(update={"probe_rate": False})
    methods.unlearn(plain, config, data, None, pinned)
    assert rate == result.detail["learning_rate"] < 2.0
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, probed.state_dict()[name]), name
