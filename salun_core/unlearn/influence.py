"""Influence unlearning: one Newton step to where training without the forget set would end.

Taking n_f of N = n_f + n_r samples out of the mean training loss changes its gradient at θo by
−k, k = g_f − g_r (arXiv 2304.04934; the idea: arXiv 1703.04730 and 2002.10077), where

    g_f = Σ_{D_f} ∇ℓ / N,    g_r = Σ_{D_r} ∇ℓ · n_f / (N · n_r),

so θ ← θo + α·F⁻¹k with the Fisher information F in place of the Hessian. WoodFisher (arXiv
2004.14340) takes up one sample after another, F_0 = λI and F_i = F_{i−1} + ∇ℓ_i ∇ℓ_iᵀ / n, and
inverts each by the Woodbury identity. Here the identity is applied once to all of them:

    F⁻¹k = (k − Gᵀ (nλI + G Gᵀ)⁻¹ G k) / λ,    G the (n, weights) matrix of gradients,

which is where the recursion ends, and never needs G as a whole: G Gᵀ is made chunk by chunk. (The
authors' code carries a single vector through the recursion, which is not the inverse.)
"""

from collections.abc import Callable, Mapping

import torch

from salun_core import errors, free_weights, images, masks, progress, randomness, specs
from salun_core.unlearn import contract, sample_gradients

SAMPLES = 1000
# λ: the authors of arXiv 2304.04934 start from the identity too; α of 1 to 20 is meant for that.
DAMPING = 1.0


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,  # noqa: ARG001
) -> contract.UnlearnResult:
    """Take one step of length ``spec.alpha`` along F⁻¹k; in place.

    Weights outside the mask are no variables: k and F are without them. F is made of up to 1,000
    retain samples. Earlier erasures are not in the loss that the net minimises, so there is
    nothing to take out. No buffer changes, there are no epochs and nothing is saved on the way.

    For n samples it takes n²/2c single gradients, where c of them fit into 512 MiB.

    Raises:
        NonFiniteLossError: a gradient is not finite.
    """
    alpha = contract.given(spec.alpha, "alpha")
    free = free_weights.FreeWeights(net, mask)
    gradients = sample_gradients.SampleGradients(net, config, free)
    generator = randomness.generator(spec.seed, "influence")
    order = torch.randperm(len(data.retain_set), generator=generator)
    sample = data.retain_set.subset(order[:SAMPLES].tolist())
    tick = progress.Ticker(report, _count_steps(gradients, data, len(sample)))
    wanted = _gradient_change(gradients, data, tick)
    direction = inverse_product(gradients, sample, wanted, DAMPING, tick)
    step = {name: alpha * values for name, values in direction.items()}
    free.replace({name: free.parameters[name] + values for name, values in step.items()})
    length = sum(float(values.double().square().sum()) for values in step.values()) ** 0.5
    net.eval()
    detail = {"fisher_samples": len(sample), "damping": DAMPING, "step_norm": length}
    return contract.UnlearnResult(steps=1, losses=(), changed_buffers=(), detail=detail)


def inverse_product(
    gradients: sample_gradients.SampleGradients,
    sample: images.ImageSet,
    vector: Mapping[str, torch.Tensor],
    damping: float,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, torch.Tensor]:
    """(λI + 1/n Σ ∇ℓ_i ∇ℓ_iᵀ)⁻¹ · vector over the n samples.

    Args:
        gradients: of the net whose Fisher information is meant.
        sample: what it is estimated from.
        vector: parameter name to its shape; 0 where weights are frozen.
        damping: λ > 0.
        tick: called after every pair of chunks, then after every batch.

    Raises:
        NonFiniteLossError: a gradient is not finite.
    """
    count = len(sample)
    gram = torch.zeros(count, count, dtype=torch.float64)
    along = torch.zeros(count, dtype=torch.float64)
    chunks = gradients.chunks(count)
    for place, first in enumerate(chunks):
        left = gradients.each(sample, first)
        along[first] = sum(
            (each.flatten(1) @ vector[name].flatten()).double().cpu() for name, each in left.items()
        )
        for second in chunks[place:]:
            right = left if second is first else gradients.each(sample, second)
            block = _products(left, right)  # (len(first), len(second))
            gram[first[:, None], second] = block
            gram[second[:, None], first] = block.T
            tick()
    if not bool(torch.isfinite(gram).all()):
        raise errors.NonFiniteLossError("got a gradient that is not finite, expected finite ones")
    factor = torch.linalg.cholesky(gram + count * damping * torch.eye(count, dtype=gram.dtype))
    shares = torch.cholesky_solve(along.unsqueeze(1), factor).squeeze(1)  # (n,)
    explained = gradients.weighted_sum(sample, shares, tick)
    return {name: (vector[name] - explained[name]) / damping for name in explained}


def _products(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> torch.Tensor:
    parts = [(left[name].flatten(1) @ right[name].flatten(1).T).double().cpu() for name in left]
    return torch.stack(parts).sum(dim=0)


def _gradient_change(
    gradients: sample_gradients.SampleGradients,
    data: contract.UnlearningData,
    tick: Callable[[], None],
) -> dict[str, torch.Tensor]:
    """k = g_f − g_r."""
    forget, retain = len(data.forget_set), len(data.retain_set)
    total = forget + retain
    gone = gradients.weighted_sum(data.forget_set, torch.full((forget,), 1.0 / total), tick)
    kept_weights = torch.full((retain,), -forget / (total * retain))
    kept = gradients.weighted_sum(data.retain_set, kept_weights, tick)
    return {name: gone[name] + kept[name] for name in gone}


def _count_steps(
    gradients: sample_gradients.SampleGradients, data: contract.UnlearningData, sample: int
) -> int:
    chunks = len(gradients.chunks(sample))
    batches = sum(
        sample_gradients.count_batches(count)
        for count in (len(data.forget_set), len(data.retain_set), sample)
    )
    return batches + chunks * (chunks + 1) // 2
