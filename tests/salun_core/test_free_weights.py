import pytest
import torch

from salun_core import errors, free_weights, masks, weights


def half_mask(net: torch.nn.Module) -> masks.SaliencyMask:
    """The first of the two weights may change, the bias may not."""
    bits = {
        "weight": masks.pack(torch.tensor([[True, False]])),
        "bias": masks.pack(torch.tensor([False])),
    }
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    return masks.SaliencyMask("saliency", bits, shapes, 0.5, 0.0)


def test_frozen_values_keep_their_bits() -> None:
    net = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(net.weight, -0.0)
    free = free_weights.FreeWeights(net, half_mask(net))
    assert set(free.parameters) == {"weight"}
    free.replace({"weight": torch.tensor([[3.0, 0.0]])})
    assert (weights.bits(net.weight) == weights.bits(torch.tensor([[3.0, -0.0]]))).all()


def test_frozen_values_are_zeroed_under_leading_axes() -> None:
    net = torch.nn.Linear(2, 1)
    free = free_weights.FreeWeights(net, half_mask(net))
    values = torch.tensor([[[1.0, 2.0]], [[3.0, float("nan")]]])  # (2, 1, 2)
    found = free.without_frozen("weight", values)
    assert torch.equal(found, torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]]))


def test_all_is_free_without_a_mask() -> None:
    net = torch.nn.Linear(2, 1)
    free = free_weights.FreeWeights(net, None)
    free.replace({"bias": torch.tensor([7.0])})
    assert set(free.parameters) == {"weight", "bias"}
    assert net.bias.item() == 7.0


def test_mask_of_another_net_is_refused() -> None:
    with pytest.raises(errors.InvalidDataError, match="mask of another net"):
        free_weights.FreeWeights(torch.nn.Linear(3, 1), half_mask(torch.nn.Linear(2, 1)))
