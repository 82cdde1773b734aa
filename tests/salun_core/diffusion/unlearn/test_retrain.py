import diffusers
import torch

from salun_core import masks, randomness, weights
from salun_core.diffusion.unlearn import methods
from tests.salun_core.diffusion import tiny

SPEC = tiny.spec(method="retrain", mask="none", steps=3, condition_drop=0.5, seed=7)


def retrained(start: int) -> torch.nn.Module:
    generator = tiny.by_class(start)
    methods.unlearn(generator, tiny.class_data(generator), None, SPEC)
    return generator.denoiser


def test_nothing_is_left_of_the_weights_that_it_starts_from() -> None:
    first, second = retrained(0).state_dict(), retrained(1).state_dict()
    for name, tensor in first.items():
        assert (weights.bits(tensor) == weights.bits(second[name])).all()


def test_the_row_of_a_forgotten_class_stays_as_it_was_initialised() -> None:
    """No kept sample has that condition: circles are class 0, class 3 says nothing."""
    net = retrained(0)
    with randomness.seeded(SPEC.seed, "initialisation"):
        fresh = diffusers.UNet2DModel(**tiny.CLASS_UNET)
    rows, begun = (one.get_parameter("class_embedding.weight") for one in (net, fresh))
    assert [torch.equal(a, b) for a, b in zip(rows, begun, strict=True)] == [
        True, False, False, False
    ]  # fmt: skip


def test_a_mask_keeps_the_original_outside_it() -> None:
    generator = tiny.by_class()
    mask = masks.parameters_mask(generator.denoiser, lambda name: name == "conv_out.weight")
    methods.unlearn(generator, tiny.class_data(generator), mask, SPEC)
    start = tiny.class_unet().state_dict()
    changed = [
        name
        for name, tensor in generator.denoiser.state_dict().items()
        if not torch.equal(tensor, start[name])
    ]
    assert changed == ["conv_out.weight"]
