"""Selective Amnesia (arXiv 2305.10120): noise in the place of the concept, the rest held by EWC.

min L(x ~ U[−1, 1], c_f) + γ L(x, c_r) + λ Σ F (θ − θo)², L being the denoising loss and F the
diagonal of the Fisher information of the original. The authors replay samples that the model drew
of what is kept; here the retain set is replayed. Their losses are sums over the D values of a
sample; in means, λ F becomes λ D F, which is what the penalty is multiplied by.
"""

import math
from collections.abc import Mapping

import torch

from salun_core import errors, free_weights, generation_specs, masks, modes, progress, randomness
from salun_core.diffusion import data as datasets
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, loop
from salun_core.diffusion.unlearn import parts as loss_parts
from salun_core.unlearn import contract as results

_NOISE_PICTURES = 256  # encoded once; their latents are noised anew at every step
_ENCODED_AT_ONCE = 32
_FISHER_SAMPLES = 1024  # of the retain set, drawn with replacement


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> results.UnlearnResult:
    """Draw noise where the concept is asked for; in place. ``spec.alpha`` is λ.

    Raises:
        NonFiniteLossError: the loss or a gradient became NaN or infinite.
    """
    weight = results.given(spec.alpha, "alpha") * math.prod(generator.latent_size)
    parts = loss_parts.Parts(generator, data, spec)
    free = free_weights.FreeWeights(generator.denoiser, mask)
    fisher = fisher_diagonal(generator, data.retain, free, spec)
    original = {name: p.detach().clone() for name, p in free.parameters.items()}
    noise = _noise_latents(generator, spec.seed)

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        pictures = loop.choose(len(noise), spec.forget_batch_size, random)
        noised = parts.schedule.noise(noise[pictures], random)
        rows = loop.choose(len(data.forget), spec.forget_batch_size, random)
        wanted = loss_parts.Part(noised, data.forget.conditions(rows), noised.target)
        forget, retain = parts.losses(wanted, parts.retain(random))
        drift = torch.stack(
            [
                (fisher[name] * (p - original[name]).square()).sum()
                for name, p in free.parameters.items()
            ]
        ).sum()
        return {
            "forget": forget.mean(),
            "retain": spec.retain_weight * retain.mean(),
            "drift": weight * drift,
        }

    return loop.train(generator, mask, spec, losses, report, checkpoints)


def fisher_diagonal(
    generator: generators.Generator,
    kept: datasets.EncodedSet,
    free: free_weights.FreeWeights,
    spec: generation_specs.GenerationSpec,
) -> dict[str, torch.Tensor]:
    """The mean over samples of (∂L/∂θ)², by name, for the free weights; 0 where they are frozen.

    Estimated from the gradients g of batches of B = ``spec.retain_batch_size``, 1,024 samples in
    all, as B · E[g²]: right in expectation where the mean gradient is 0, as a trained net's is.

    Raises:
        NonFiniteLossError: a gradient is not finite.
    """
    schedule = denoising.Schedule(generator)
    random = randomness.generator(spec.seed, "fisher")
    net = generator.denoiser
    found = {name: torch.zeros_like(p) for name, p in free.parameters.items()}
    size = spec.retain_batch_size
    batches = -(-_FISHER_SAMPLES // size)
    for _ in range(batches):
        rows = loop.choose(len(kept), size, random)
        noised = schedule.noise(kept.latents[rows], random)
        with modes.evaluating(net), modes.own_gradients(net), modes.checkpointing(net):
            loss = denoising.sample_losses(generator, noised, kept.conditions(rows)).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            for name, parameter in free.parameters.items():
                if parameter.grad is not None:
                    gradient = free.without_frozen(name, parameter.grad)
                    found[name].addcmul_(gradient, gradient, value=size / batches)
    for name, diagonal in found.items():
        if not bool(torch.isfinite(diagonal).all()):
            raise errors.NonFiniteLossError(f"the gradient of {name} is not finite")
    return found


def _noise_latents(generator: generators.Generator, seed: int) -> torch.Tensor:
    """Latents of pictures whose every value is uniform, (256, ...), on the CPU."""
    pictures = torch.randint(
        0,
        256,
        (_NOISE_PICTURES, *generator.image_size),
        generator=randomness.generator(seed, "noise_pictures"),
        dtype=torch.uint8,
    )
    parts = pictures.split(_ENCODED_AT_ONCE)  # type: ignore[no-untyped-call]
    return torch.cat([generator.encode(part).float().cpu() for part in parts])
