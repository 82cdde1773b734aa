import pytest
import torch

from salun_core import heads, images, inference, preprocessing
from salun_core.unlearn import contract


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
