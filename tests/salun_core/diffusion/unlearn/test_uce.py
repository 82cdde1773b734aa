import math
from typing import Any

import pytest
import torch

from salun_core import errors, masks
from salun_core.diffusion.unlearn import cross_attention, methods, uce
from tests.salun_core.diffusion import tiny

ALPHA = 0.3


@pytest.mark.parametrize("masked", [False, True])
def test_every_projection_is_the_least_squares_solution(masked: bool) -> None:
    """Rows √weight · c of all tokens and the identity, one output weight row at a time."""
    generator, original = tiny.by_text(), tiny.by_text()
    data = tiny.concept_data(generator)
    spec = tiny.spec(method="uce", mask="random" if masked else "none", alpha=ALPHA)
    mask = methods.mask_for(generator, data, spec)
    methods.unlearn(generator, data, mask, spec)

    erased = data.forget.table.reshape(-1, 12).double()
    wanted = data.anchors.reshape(-1, 12).double()
    kept = data.retain.table.reshape(-1, 12).double()
    inputs = torch.cat([erased, math.sqrt(ALPHA) * kept, math.sqrt(0.1) * torch.eye(12)])
    outputs = torch.cat([wanted, math.sqrt(ALPHA) * kept, math.sqrt(0.1) * torch.eye(12)])
    before: Any = dict(original.denoiser.named_parameters())
    after: Any = dict(generator.denoiser.named_parameters())
    for layer in cross_attention.layers_of(generator, "test"):
        for projection in ("to_k", "to_v"):
            name = f"{layer}.{projection}.weight"
            free = mask.layer(name) if mask is not None else torch.ones(after[name].shape).bool()
            for row in range(0, len(free), 3):
                slow = before[name][row].detach().double()
                told = outputs @ slow - inputs[:, ~free[row]] @ slow[~free[row]]
                solved = torch.linalg.lstsq(inputs[:, free[row]], told.unsqueeze(1)).solution
                slow[free[row]] = solved.flatten()
                torch.testing.assert_close(
                    after[name][row].detach().double(), slow, atol=1e-5, rtol=1e-4
                )


def test_the_forgotten_text_is_answered_like_the_other_and_the_kept_as_before() -> None:
    generator, original = tiny.by_text(), tiny.by_text()
    data = tiny.concept_data(generator)
    methods.unlearn(generator, data, None, tiny.spec(method="uce", mask="none", alpha=1.0))
    name = next(iter(cross_attention.layers_of(generator, "test")))
    weight = f"{name}.to_v.weight"
    new, old = (model.denoiser.get_parameter(weight) for model in (generator, original))
    with torch.no_grad():
        erased, kept = data.forget.table, data.retain.table
        towards = (erased @ new.T - data.anchors @ old.T).norm()
        assert towards < 0.5 * (erased @ old.T - data.anchors @ old.T).norm()
        assert (kept @ new.T - kept @ old.T).norm() < 0.1 * (kept @ old.T).norm()


def test_weights_outside_the_mask_keep_their_bits() -> None:
    generator = tiny.by_text()
    mask = masks.parameters_mask(
        generator.denoiser, lambda name: name.endswith("attn2.to_k.weight")
    )
    data = tiny.concept_data(generator)
    result = methods.unlearn(generator, data, mask, tiny.spec(method="uce", mask="none"))
    layers = cross_attention.layers_of(generator, "test")
    assert result.detail["projections"] == len(layers)
    assert result.detail["distance"] > 0.0


def test_nothing_moves_where_the_text_stands_in_for_itself() -> None:
    system = uce.System(torch.eye(3).double(), torch.zeros(3, 3).double())
    assert not uce.edit(system, torch.ones(2, 3), None).any()


def test_a_net_without_cross_attention_is_refused() -> None:
    generator = tiny.by_class()
    with pytest.raises(errors.InvalidDataError, match="without cross-attention"):
        methods.unlearn(
            generator, tiny.class_data(generator), None, tiny.spec(method="uce", mask="none")
        )
