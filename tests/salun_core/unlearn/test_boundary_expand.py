import copy
from collections.abc import Callable

import pytest
import torch

from salun_core import errors, heads, inference, masks, preprocessing, specs
from salun_core.metrics import accuracy
from salun_core.unlearn import boundary_expand, contract, methods


def test_added_logit_by_hand(line_config: specs.ClassifierConfig) -> None:
    """Head 2x + 1 per pixel sum, added output v·x + c: the first K logits are the net's own."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    expanded = boundary_expand._Expanded(net, heads.find(net, line_config), seed=0)
    with torch.no_grad():
        expanded.added.weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
        expanded.added.bias.fill_(0.5)
    inputs = torch.tensor([[[[1.0, 0.0, 2.0]]]])
    logits = expanded(inputs)
    torch.testing.assert_close(logits[:, :2], net(inputs))
    assert logits[0, 2].item() == 7.5
    assert set(expanded.state_dict()) == {
        "net.1.weight", "net.1.bias", "added.weight", "added.bias",
    }  # fmt: skip


def test_every_own_logit_falls(
    line_config: specs.ClassifierConfig, line_data: contract.UnlearningData
) -> None:
    """∇z_k CE = p_k > 0 for every own class k, the target being K + 1: with inputs x ≥ 0 the step
    −η·mean(p_k·x) lowers every weight, and the bias by η·mean(p_k), which is at most η.
    """
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    before = copy.deepcopy(net.state_dict())
    spec = specs.UnlearningSpec(
        method="boundary_expand", mask="none", epochs=1, learning_rate=0.1, momentum=0.0,
        weight_decay=0.0, decay="constant", warmup_fraction=0.0,
    )  # fmt: skip
    methods.unlearn(net, line_config, line_data, None, spec)
    after = net.state_dict()
    assert bool((after["1.weight"] < before["1.weight"]).all())
    fallen = before["1.bias"] - after["1.bias"]
    assert bool((fallen > 0.0).all())
    assert 0.0 < fallen.sum().item() < 0.1


def test_class_is_gone_and_the_net_has_its_shape_again(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """The paper's own case; a hundred times its learning rate, for ten steps instead of many."""
    spec = specs.default_spec("class", method="boundary_expand")
    net = copy.deepcopy(trained)
    result = methods.unlearn(
        net, config, class_data, None, spec.model_copy(update={"learning_rate": 1e-3})
    )
    shapes = {name: t.shape for name, t in trained.state_dict().items()}
    assert {name: t.shape for name, t in net.state_dict().items()} == shapes
    logits = inference.logits(net, class_data.forget_set, preprocess)
    assert logits.shape == (len(class_data.forget_set), config.num_classes)
    assert accuracy.accuracy(logits.argmax(dim=1), class_data.forget_set.labels) < 0.1
    forget = [epoch.forget for epoch in result.losses]
    assert forget[0] is not None
    assert forget[-1] is not None
    assert forget[-1] < forget[0]


def test_mask_that_frees_nothing_still_trains_the_added_output(
    line_config: specs.ClassifierConfig, line_data: contract.UnlearningData
) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    nothing = {n: masks.pack(torch.zeros(s, dtype=torch.bool)) for n, s in shapes.items()}
    mask = masks.SaliencyMask("saliency", nothing, shapes, 0.5, 0.0)
    spec = specs.UnlearningSpec(method="boundary_expand", epochs=5, learning_rate=0.5)
    losses = methods.unlearn(net, line_config, line_data, mask, spec).losses
    assert losses[0].forget is not None
    assert losses[-1].forget is not None
    assert losses[-1].forget < 0.8 * losses[0].forget


def test_mask_of_another_net_is_refused(
    trained: torch.nn.Module,
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
) -> None:
    shapes = {name: tuple(p.shape) for name, p in trained.named_parameters()}
    bits = {n: masks.pack(torch.ones(s, dtype=torch.bool)) for n, s in shapes.items()}
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    spec = specs.UnlearningSpec(method="boundary_expand", epochs=1)
    with pytest.raises(errors.InvalidDataError, match="mask of another net"):
        methods.unlearn(
            net, line_config, line_data, masks.SaliencyMask("random", bits, shapes, 1.0, 0.0), spec
        )


def test_net_without_a_linear_head_is_refused(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
) -> None:
    spec = specs.UnlearningSpec(method="boundary_expand", mask="none", epochs=1)
    with pytest.raises(errors.InvalidDataError, match="does not end in a linear layer of 2"):
        methods.unlearn(line(), line_config, line_data, None, spec)
