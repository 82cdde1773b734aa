import torch

from salun_core.diffusion import denoising
from salun_core.diffusion.unlearn import methods
from tests.salun_core.diffusion import tiny, two_weights


def test_the_loss_on_what_is_forgotten_climbs_and_that_on_what_is_kept_is_held() -> None:
    """Without a retain term w₂ grows, and with it both; a heavy one holds "one"'s loss down."""
    forget, retain = losses_after(retain_weight=0.0, steps=0)
    climbed, lost = losses_after(retain_weight=0.0)
    assert climbed > forget + 1.0
    assert lost > retain + 0.1
    _, held = losses_after(retain_weight=100.0)
    assert held <= retain


def losses_after(retain_weight: float, steps: int = 40) -> tuple[float, float]:
    """Denoising losses on the forget and the retain set, of 4,096 draws each."""
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    if steps:
        spec = tiny.spec(
            method="gradient_ascent", mask="none", steps=steps, learning_rate=0.02,
            retain_weight=retain_weight, weight_average=0.0,
        )  # fmt: skip
        methods.unlearn(generator, data, None, spec)
    schedule, random = denoising.Schedule(generator), torch.Generator().manual_seed(0)
    found = []
    for samples in (data.forget, data.retain):
        rows = torch.arange(4096) % len(samples)
        noised = schedule.noise(samples.latents[rows], random)
        with torch.no_grad():
            losses = denoising.sample_losses(generator, noised, samples.conditions(rows))
        found.append(losses.mean().item())
    return found[0], found[1]
