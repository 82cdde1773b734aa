import math
from typing import Any

import pytest
import torch

from salun_core import errors
from salun_core.diffusion.unlearn import cross_attention, forget_me_not, methods
from tests.salun_core.diffusion import tiny


def test_loss_is_the_squared_attention_at_marked_tokens() -> None:
    """One layer, one head, two places: ((0.6² + 0.1²) + (0.2² + 0.5²)) / 2 = 0.33."""
    found = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]).reshape(1, 1, 2, 3)
    marked = torch.tensor([[True, False, True]])
    assert forget_me_not.attention_at([found], marked).item() == pytest.approx(0.33)


def test_layers_weigh_alike_whatever_their_resolution() -> None:
    small = torch.full((1, 2, 1, 3), 0.5)
    large = torch.full((1, 2, 16, 3), 0.1)
    marked = torch.tensor([[True, False, False]])
    assert forget_me_not.attention_at([small, large], marked).item() == pytest.approx(0.13)


def test_maps_are_those_that_the_net_attends_by() -> None:
    """The layer's own output is its projected sum of values weighted by the map."""
    generator = tiny.by_text()
    layer: Any = next(iter(cross_attention.layers_of(generator, "test").values()))
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 16, 8, generator=random)
    text = torch.randn(2, tiny.LENGTH, 12, generator=random)
    with forget_me_not.attention_maps({"layer": layer}) as maps, torch.no_grad():
        output = layer(hidden, encoder_hidden_states=text)
        values = layer.head_to_batch_dim(layer.to_v(text))
        attended = torch.bmm(maps["layer"].flatten(0, 1), values)
        expected = layer.to_out[0](layer.batch_to_head_dim(attended))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    assert not layer._forward_pre_hooks


def test_attention_to_the_concept_falls_under_a_mask() -> None:
    generator = tiny.by_text()
    data = tiny.concept_data(generator)
    spec = tiny.spec(
        method="forget_me_not", steps=20, learning_rate=5e-3, trainable="cross_attention",
        weight_average=0.0,
    )  # fmt: skip
    mask = methods.mask_for(generator, data, spec)
    assert mask is not None
    before = {name: p.detach().clone() for name, p in generator.denoiser.named_parameters()}
    result = methods.unlearn(generator, data, mask, spec)
    first, last = result.losses[0].forget, result.losses[-1].forget
    assert first is not None
    assert last is not None
    assert last < 0.9 * first
    assert math.isclose(first, 1 / tiny.LENGTH**2, rel_tol=0.5)  # nearly even attention at first
    for name, parameter in generator.denoiser.named_parameters():
        assert ".attn2." in name or torch.equal(parameter, before[name])


def test_a_net_without_cross_attention_is_refused() -> None:
    generator = tiny.by_class()
    with pytest.raises(errors.InvalidDataError, match="without cross-attention"):
        methods.unlearn(
            generator,
            tiny.class_data(generator),
            None,
            tiny.spec(method="forget_me_not", mask="none"),
        )
