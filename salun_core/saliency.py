"""Weight saliency: m = 1(|∇θ ℓ_f(θo; D_f)| ≥ γ) (arXiv 2310.12508, equations 3 and 4).

Deterministic, unlike the authors' code: the net is in eval mode, images pass the test transform,
samples are read in the order of their ids, gradients are summed over the whole forget set and the
absolute value is taken once at the end. γ makes a share ``density`` of all weights salient, ranked
globally. A weight whose gradient is exactly 0 is never salient, and ties go to the weight that
comes first, so the mask never holds arbitrary picks or more weights than were asked for. Several
processes that share the work get the mask of one, bit for bit.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch.nn import functional

from salun_core import (
    errors,
    images,
    masks,
    modes,
    preprocessing,
    progress,
    selection,
    shards,
    spread,
    weights,
)


def saliency_mask(
    net: torch.nn.Module,
    forget_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    density: float,
    report: progress.Progress = progress.silent,
    *,
    batch_size: int = 256,
    members: spread.Spread | None = None,
) -> masks.SaliencyMask:
    """The mask of the weights that matter most for the forget set.

    Args:
        net: on any device; weights, buffers, gradients and mode are as before afterwards.
        forget_set: at least one sample.
        density: share of all weights to make salient, in (0, 1].
        report: called after every batch, or round of batches.
        batch_size: images a forward pass; other sizes may differ in the last bit of a gradient.
        members: processes that share the batches, on like devices with as many threads; each
            calls this with the same net (float32) and arguments and gets the whole mask.

    Raises:
        InvalidDataError: the forget set is empty, density is outside (0, 1], or the members were
            not given the same.
        NonFiniteLossError: a gradient is not finite.
    """
    if members is not None:
        return _shared_mask(net, forget_set, preprocess, density, report, batch_size, members)
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
    batches = _Batches(net, forget_set, preprocess, batch_size)
    with modes.evaluating(net), modes.own_gradients(net):
        for index in range(len(batches)):
            batches.backward(index)
            report(index + 1, len(batches))
        return {name: magnitude(name, p) for name, p in net.named_parameters()}


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
    total = sum(m.numel() for m in magnitudes.values())
    salient = selection.largest(list(magnitudes.values()), _wanted(density, total))
    bits, zeros = {}, 0
    for (name, magnitude), chosen in zip(magnitudes.items(), salient, strict=True):
        zeros += magnitude.numel() - int(torch.count_nonzero(magnitude))
        bits[name] = masks.pack(chosen)
    shapes = {name: tuple(m.shape) for name, m in magnitudes.items()}
    return masks.SaliencyMask("saliency", bits, shapes, density, zeros / total)


class _Batches:
    """The forget set in batches, in the order of the ids.

    Raises:
        InvalidDataError: it is empty.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        forget_set: images.ImageSet,
        preprocess: preprocessing.Preprocessing,
        batch_size: int,
    ) -> None:
        if not len(forget_set):
            raise errors.InvalidDataError("got an empty forget set, expected at least one sample")
        self._net, self._preprocess, self._size = net, preprocess, batch_size
        self._device = modes.device_of(net)
        self._samples = forget_set.sorted_by_id()

    def __len__(self) -> int:
        return -(-len(self._samples) // self._size)

    def backward(self, index: int) -> None:
        """Add what a batch contributes to the mean gradient to the parameters' ``grad``."""
        rows = slice(index * self._size, (index + 1) * self._size)
        inputs = self._preprocess.normalise(self._samples.images[rows].to(self._device))
        targets = self._samples.labels[rows].to(self._device)
        loss = functional.cross_entropy(self._net(inputs), targets, reduction="sum")
        (loss / len(self._samples)).backward()  # type: ignore[no-untyped-call]

    def digest(self, density: float) -> torch.Tensor:
        """What tells these batches, the net and a density from others; uint8 (32,)."""
        found = hashlib.sha256(repr((self._samples.ids, self._size, density)).encode())
        found.update(weights.bits(self._samples.images[:]).data)
        found.update(weights.bits(self._samples.labels).data)
        for name, tensor in self._net.state_dict().items():
            found.update(name.encode())
            found.update(weights.bits(tensor).data)
        return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)


def _shared_mask(
    net: torch.nn.Module,
    forget_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    density: float,
    report: progress.Progress,
    batch_size: int,
    members: spread.Spread,
) -> masks.SaliencyMask:
    batches = _Batches(net, forget_set, preprocess, batch_size)
    digests = members.gather(batches.digest(density))
    if not bool((digests == digests[0]).all()):
        raise errors.InvalidDataError("got different nets, samples or settings, expected the same")
    layout = shards.Shards(net, members)
    wanted = _wanted(density, layout.total)
    with modes.evaluating(net), modes.own_gradients(net):
        own = layout.sum_gradients(batches.backward, len(batches), report)
    layout.check_finite(own)
    own.abs_()
    (salient,) = selection.largest([own], wanted, members)
    bits = layout.gather_bits(salient)
    nonzero = int(members.add_up(torch.count_nonzero(own)))
    zero_share = (layout.total - nonzero) / layout.total
    return masks.SaliencyMask("saliency", bits, layout.shapes, density, zero_share)


def _wanted(density: float, total: int) -> int:
    if not 0.0 < density <= 1.0:
        raise errors.InvalidDataError(f"got density {density}, expected more than 0, at most 1")
    return max(1, round(density * total))


def magnitude(name: str, parameter: torch.nn.Parameter) -> torch.Tensor:
    """|gradient| of a parameter, float32; it takes the gradient's place where that is float32.

    Raises:
        NonFiniteLossError: the gradient is not finite.
    """
    if parameter.grad is None:  # a parameter that the loss does not reach
        return torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
    magnitude = parameter.grad.float().contiguous().abs_()
    if not torch.isfinite(magnitude.max()):
        raise errors.NonFiniteLossError(f"the gradient of {name} is not finite")
    return magnitude
