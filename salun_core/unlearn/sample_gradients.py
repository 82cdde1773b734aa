"""The loss gradient of every single sample, for methods that need more than the mean.

In eval mode, so that no sample depends on those beside it. A chunk of samples is differentiated at
once (``torch.func.vmap``); its size bounds the memory, whatever the net.
"""

from collections.abc import Callable, Mapping

import torch
from torch.nn import attention, functional

from salun_core import free_weights, images, modes, preprocessing, specs

CHUNK_BYTES = 2**29
_MAX_CHUNK = 64  # samples; larger ones need more memory for activations and are no faster
_BATCH_SIZE = 256


class SampleGradients:
    """Gradients of the cross-entropy at the weights that the net holds when asked.

    Args:
        net: weights, buffers, gradients and mode are as before after every call.
        config: of the net.
        free: the weights that are variables; gradients of the others are 0 or left out.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        config: specs.ClassifierConfig,
        free: free_weights.FreeWeights,
    ) -> None:
        self._net = net
        self._free = free
        self._preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
        self._device = modes.device_of(net)
        size = sum(p.numel() * p.element_size() for p in free.parameters.values())
        self._chunk_size = max(1, min(_MAX_CHUNK, CHUNK_BYTES // max(1, size)))

    def chunks(self, count: int) -> tuple[torch.Tensor, ...]:
        """Positions 0..count-1 in parts whose gradients take at most ``CHUNK_BYTES``."""
        return tuple(torch.split(torch.arange(count), self._chunk_size))

    def each(self, image_set: images.ImageSet, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """∇θ CE of each of these samples: parameter name to (len(rows), *shape)."""
        weights = {name: p.detach() for name, p in self._free.parameters.items()}
        gradients = torch.func.vmap(torch.func.grad(self._loss), in_dims=(None, 0, 0))
        # The fused kernels of attention cannot be mapped over samples.
        plain = attention.sdpa_kernel(attention.SDPBackend.MATH)
        with modes.evaluating(self._net), torch.no_grad(), plain:
            found = gradients(weights, *self._batch(image_set, rows))
        # One after another: the memory of two chunks is never held.
        return {name: self._free.without_frozen(name, found.pop(name)) for name in list(found)}

    def weighted_sum(
        self,
        image_set: images.ImageSet,
        weights: torch.Tensor,
        after_batch: Callable[[], None],
    ) -> dict[str, torch.Tensor]:
        """Σ w_i ∇θ CE_i over the set: parameter name to its shape.

        Args:
            image_set: N samples.
            weights: float (N,).
            after_batch: called :func:`count_batches` times.
        """
        parameters = list(self._free.parameters.values())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        with modes.evaluating(self._net), modes.own_gradients(self._net):
            for rows in torch.split(torch.arange(len(image_set)), _BATCH_SIZE):
                inputs, labels = self._batch(image_set, rows)
                losses = functional.cross_entropy(self._net(inputs), labels, reduction="none")
                loss = torch.dot(losses, weights[rows].to(losses))
                torch._foreach_add_(
                    total, list(torch.autograd.grad(loss, parameters, materialize_grads=True))
                )
                after_batch()
        sums = zip(self._free.parameters, total, strict=True)
        return {name: self._free.without_frozen(name, gradient) for name, gradient in sums}

    def _loss(
        self, weights: Mapping[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        logits = torch.func.functional_call(self._net, dict(weights), (image.unsqueeze(0),))
        return functional.cross_entropy(logits, label.unsqueeze(0))

    def _batch(
        self, image_set: images.ImageSet, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self._preprocess.normalise(image_set.images[rows].to(self._device))
        return inputs, image_set.labels[rows].to(self._device)


def count_batches(count: int) -> int:
    """Batches that :meth:`SampleGradients.weighted_sum` takes over so many samples."""
    return -(-count // _BATCH_SIZE)
