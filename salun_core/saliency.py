"""Weight saliency: m = 1(|∇θ ℓ_f(θo; D_f)| ≥ γ) (arXiv 2310.12508, equations 3 and 4).

Deterministic, unlike the authors' code: the net is in eval mode, images pass the test transform,
samples are read in the order of their ids, gradients are summed over the whole forget set and the
absolute value is taken once at the end. γ makes a share ``density`` of all weights salient, ranked
globally. A weight whose gradient is exactly 0 is never salient, and ties go to the weight that
comes first, so the mask never holds arbitrary picks or more weights than were asked for.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

from salun_core import errors, images, masks, modes, preprocessing, progress, selection


def saliency_mask(
    net: torch.nn.Module,
    forget_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    density: float,
    report: progress.Progress = progress.silent,
    *,
    batch_size: int = 256,
) -> masks.SaliencyMask:
    """The mask of the weights that matter most for the forget set.

    Args:
        net: on any device; weights, buffers, gradients and mode are as before afterwards.
        forget_set: at least one sample.
        density: share of all weights to make salient, in (0, 1].
        report: called after every batch.
        batch_size: images a forward pass; other sizes may differ in the last bit of a gradient.

    Raises:
        InvalidDataError: the forget set is empty.
        NonFiniteLossError: a gradient is not finite.
    """
    magnitudes = gradient_magnitudes(net, forget_set, preprocess, report, batch_size=batch_size)
    return mask_from_magnitudes(magnitudes, density)


def gradient_magnitudes(
    net: torch.nn.Module,
    forget_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    report: progress.Progress = progress.silent,
    *,
    batch_size: int = 256,
) -> dict[str, torch.Tensor]:
    """|mean over the forget set of ∇θ cross-entropy| for every parameter, float32, on its device.

    Raises:
        InvalidDataError: the forget set is empty.
        NonFiniteLossError: a gradient is not finite.
    """
    if not len(forget_set):
        raise errors.InvalidDataError("got an empty forget set, expected at least one sample")
    parameters = dict(net.named_parameters())
    device = next(iter(parameters.values())).device
    ordered = forget_set.sorted_by_id()
    starts = range(0, len(ordered), batch_size)
    with modes.evaluating(net), modes.own_gradients(net):
        for step, start in enumerate(starts, 1):
            rows = slice(start, start + batch_size)
            inputs = preprocess.normalise(ordered.images[rows].to(device))
            targets = ordered.labels[rows].to(device)
            loss = functional.cross_entropy(net(inputs), targets, reduction="sum")
            (loss / len(ordered)).backward()  # type: ignore[no-untyped-call]
            report(step, len(starts))
        return {name: _magnitude(name, p) for name, p in parameters.items()}


def mask_from_magnitudes(
    magnitudes: Mapping[str, torch.Tensor], density: float
) -> masks.SaliencyMask:
    """The global mask: the ``round(density * total)`` largest magnitudes that are not 0.

    Args:
        magnitudes: parameter name to float32 magnitudes >= 0; order breaks ties.
        density: share of all weights, in (0, 1].

    Raises:
        InvalidDataError: density is outside (0, 1].
    """
    if not 0.0 < density <= 1.0:
        raise errors.InvalidDataError(f"got density {density}, expected more than 0, at most 1")
    total = sum(m.numel() for m in magnitudes.values())
    wanted = max(1, round(density * total))
    layers = list(magnitudes.values())
    threshold, larger = selection.kth_largest(layers, wanted)
    ties_left = wanted - larger
    bits, zeros = {}, 0
    for name, magnitude in magnitudes.items():
        zeros += magnitude.numel() - int(torch.count_nonzero(magnitude))
        salient = magnitude > threshold
        if threshold > 0.0 and ties_left > 0:
            ties_left -= _add_ties(salient, magnitude == threshold, ties_left)
        bits[name] = masks.pack(salient)
    shapes = {name: tuple(m.shape) for name, m in magnitudes.items()}
    return masks.SaliencyMask("saliency", bits, shapes, density, zeros / total)


def _magnitude(name: str, parameter: torch.nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:  # a parameter that the loss does not reach
        return torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
    magnitude = parameter.grad.float().contiguous().abs_()
    if not torch.isfinite(magnitude.max()):
        raise errors.NonFiniteLossError(f"the gradient of {name} is not finite")
    return magnitude


def _add_ties(salient: torch.Tensor, ties: torch.Tensor, limit: int) -> int:
    """Make the first ``limit`` ties salient, in place; how many were made so."""
    count = int(torch.count_nonzero(ties))
    if count > limit:
        first = ties.reshape(-1).nonzero().flatten()[:limit]
        salient.reshape(-1)[first] = True
        return limit
    salient.logical_or_(ties)
    return count
