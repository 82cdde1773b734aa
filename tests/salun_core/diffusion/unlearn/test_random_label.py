from typing import Any

import torch

from salun_core import generation_specs, weights
from salun_core.diffusion.unlearn import methods
from tests.salun_core.diffusion import tiny


def test_it_is_salun_with_anchors_and_without_a_mask() -> None:
    """Whatever targets a recipe names, and to the last bit."""
    own = unlearned(method="random_label", targets="spread")
    anchored = unlearned(method="salun", targets="anchor")
    start = tiny.by_class().denoiser.state_dict()
    for name, tensor in own.items():
        assert (weights.bits(tensor) == weights.bits(anchored[name])).all()
    assert any(not torch.equal(tensor, start[name]) for name, tensor in own.items())
    assert generation_specs.default_spec("class", method="random_label").mask == "none"


def unlearned(**fields: Any) -> dict[str, torch.Tensor]:
    generator = tiny.by_class()
    spec = tiny.spec(mask="none", **fields)
    mask = methods.mask_for(generator, tiny.class_data(generator), spec)
    methods.unlearn(generator, tiny.class_data(generator), mask, spec)
    return generator.denoiser.state_dict()
