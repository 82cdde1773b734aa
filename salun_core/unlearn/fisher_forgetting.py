"""Fisher forgetting (arXiv 1911.04933): noise where the retained data does not mind.

θ ~ N(θo, α·min(1/F, b)), F the diagonal of the empirical Fisher information over the retain set,
F_j = 1/n Σ_i (∂ℓ_i/∂θ_j)², in eval mode. Where the retain loss hardly depends on a weight, 1/F has
no limit, so it gets one. The outputs of a class that is forgotten as a whole start afresh.
"""

import torch

from salun_core import errors, free_weights, heads, images, masks, progress, randomness, specs
from salun_core.unlearn import contract, sample_gradients

# b: the authors' bound for all but the head. In a net that fits its data, most weights are at it.
MAX_INVERSE = 1e3


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,  # noqa: ARG001
) -> contract.UnlearnResult:
    """Draw new weights around the old ones; in place, weights outside the mask untouched.

    No buffer changes, there are no epochs and nothing is saved on the way.

    Raises:
        InvalidDataError: a whole class is forgotten and the net does not end in a linear layer.
        NonFiniteLossError: a gradient is not finite.
    """
    alpha = contract.given(spec.alpha, "alpha")
    refused = contract.refused_labels(data)
    free = free_weights.FreeWeights(net, mask)
    afresh = _fresh_head(heads.find(net, config), free, spec.seed) if refused else {}
    gradients = sample_gradients.SampleGradients(net, config, free)
    information = fisher_diagonal(gradients, data.retain_set, report)
    for name, diagonal in information.items():
        new = free.parameters[name].detach() + _noise(diagonal, alpha, spec.seed, name)
        if name in afresh:
            new[list(refused)] = afresh[name][list(refused)]
        free.replace({name: new})
    net.eval()
    detail = {"reset_classes": list(refused)}
    return contract.UnlearnResult(steps=1, losses=(), changed_buffers=(), detail=detail)


def fisher_diagonal(
    gradients: sample_gradients.SampleGradients,
    image_set: images.ImageSet,
    report: progress.Progress = progress.silent,
) -> dict[str, torch.Tensor]:
    """1/n Σ_i (∂ℓ_i/∂θ_j)² over the n samples, by parameter name; 0 where weights are frozen.

    Raises:
        NonFiniteLossError: a gradient is not finite.
    """
    total: dict[str, torch.Tensor] = {}
    chunks = gradients.chunks(len(image_set))
    for step, rows in enumerate(chunks, 1):
        for name, each in gradients.each(image_set, rows).items():
            squares = each.square().sum(dim=0)
            total[name] = total[name] + squares if name in total else squares
        report(step, len(chunks))
    for name, squares in total.items():
        if not bool(torch.isfinite(squares).all()):
            raise errors.NonFiniteLossError(f"the gradient of {name} is not finite")
    return {name: squares / len(image_set) for name, squares in total.items()}


def _noise(diagonal: torch.Tensor, alpha: float, seed: int, name: str) -> torch.Tensor:
    """Normal, of variance α·min(1/F, b)."""
    variance = alpha * diagonal.reciprocal().clamp_(max=MAX_INVERSE)  # 1/0 is inf, so bounded
    drawn = torch.randn(diagonal.shape, generator=randomness.generator(seed, "fisher", name))
    return drawn.to(diagonal) * variance.sqrt()


def _fresh_head(
    head: torch.nn.Linear, free: free_weights.FreeWeights, seed: int
) -> dict[str, torch.Tensor]:
    """The free parameters of the head as a new layer would have them, by name."""
    with randomness.seeded(seed, "fresh_head"):
        fresh = torch.nn.Linear(head.in_features, head.out_features, head.bias is not None)
    pairs = ((head.weight, fresh.weight), (head.bias, fresh.bias))
    return {
        name: new.detach().to(old)
        for old, new in pairs
        for name, parameter in free.parameters.items()
        if parameter is old
    }
