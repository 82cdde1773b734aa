import pytest
import torch

from salun_core import errors, heads, images, inference, preprocessing, specs
from salun_core.unlearn import contract


class TwoHeads(torch.nn.Module):
    """One head speaks, or both as a mean; the other is registered last."""

    def __init__(self, averaged: bool) -> None:
        super().__init__()
        self.speaking = torch.nn.Linear(3, 2)
        self.auxiliary = torch.nn.Linear(3, 2)
        self.averaged = averaged

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = inputs.flatten(1)
        own = torch.as_tensor(self.speaking(features))
        other = torch.as_tensor(self.auxiliary(features))
        return (own + other) / 2 if self.averaged else own


def test_head_of_a_residual_net(trained: torch.nn.Module, config: specs.ClassifierConfig) -> None:
    assert heads.find(trained, config) is trained.get_submodule("fc")
    assert not trained.get_submodule("fc")._forward_hooks


def test_head_is_the_one_that_speaks_not_the_last_one(line_config: specs.ClassifierConfig) -> None:
    net = TwoHeads(averaged=False)
    assert heads.find(net, line_config) is net.speaking


def test_head_with_other_layers_of_that_width_before_it(
    line_config: specs.ClassifierConfig,
) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    assert heads.find(net, line_config) is net[2]


@pytest.mark.parametrize(
    "net",
    [
        TwoHeads(averaged=True),
        torch.nn.Sequential(torch.nn.Conv2d(1, 2, (1, 3)), torch.nn.Flatten()),
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2), torch.nn.Tanh()),
    ],
)
def test_what_ends_otherwise_is_refused(
    net: torch.nn.Module, line_config: specs.ClassifierConfig
) -> None:
    with pytest.raises(errors.InvalidDataError, match="does not end in a linear layer of 2"):
        heads.find(net, line_config)


@pytest.mark.parametrize("batch_size", [256, 7])
def test_tap_keeps_what_goes_into_the_head(
    batch_size: int,
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every third row, whatever the batches: head(features) are those rows' logits."""
    monkeypatch.setattr(inference, "BATCH_SIZE", batch_size)
    head = trained.get_submodule("fc")
    assert isinstance(head, torch.nn.Linear)
    wanted = torch.arange(len(data.forget_set)) % 3 == 0
    tap = heads.Tap(wanted)
    with tap.on(head):
        logits = inference.logits(trained, data.forget_set, preprocess)
    features = tap.features()
    assert features.shape == (8, head.in_features)
    torch.testing.assert_close(head(features), logits[wanted])
    assert not head._forward_pre_hooks


def test_tap_may_want_nothing(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    few: images.ImageSet = data.forget_set.subset([0, 1])
    tap = heads.Tap(torch.zeros(2, dtype=torch.bool))
    head = trained.get_submodule("fc")
    assert isinstance(head, torch.nn.Linear)
    with tap.on(head):
        inference.logits(trained, few, preprocess)
    assert tap.features().shape == (0, 0)
