"""Steps that move salient weights only: θu = m ⊙ θ + (1 − m) ⊙ θo, held bit for bit.

Weight decay and momentum would move frozen weights if they were left to a stock optimizer, so
decay is added to the gradient before it is masked, and momentum starts at +0.0 and stays +0.0
wherever the mask is 0. A frozen weight w then becomes ``w + (-lr * 0.0)`` = ``w + -0.0``, which is
w itself in IEEE 754, -0.0 included.
"""

from collections.abc import Mapping

import numpy as np
import torch

from salun_core import errors, free_weights, masks, weights

_SHOWN = 5


class MaskedOptimizer:
    """Stochastic gradient descent with momentum on the salient weights of a net.

    Without a mask it takes the steps of ``torch.optim.SGD`` (momentum without dampening).

    Args:
        net: its parameters are stepped, in place.
        mask: which weights may change; ``None`` for all.
        momentum: in [0, 1).
        weight_decay: L2 coefficient, applied to salient weights only.

    Raises:
        InvalidDataError: the mask is of another net.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        mask: masks.SaliencyMask | None,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        free = free_weights.FreeWeights(net, mask)  # a wholly frozen parameter is never touched
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._names = list(free.parameters)
        self._parameters = list(free.parameters.values())
        self._frozen = [free.frozen.get(name) for name in self._names]
        self._velocity = [torch.zeros_like(p) for p in self._parameters]
        self._all_parameters = list(net.parameters())

    def zero_grad(self) -> None:
        """Forget the gradients of every parameter of the net."""
        for parameter in self._all_parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One step along the masked gradients, which are changed in place."""
        chosen = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        parameters: list[torch.Tensor] = [self._parameters[i] for i in chosen]
        velocity = [self._velocity[i] for i in chosen]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not parameters:
            return
        if self._weight_decay:
            torch._foreach_add_(gradients, parameters, alpha=self._weight_decay)
        for gradient, i in zip(gradients, chosen, strict=True):
            frozen = self._frozen[i]
            if frozen is not None:
                gradient.masked_fill_(frozen, 0.0)  # unlike a product, it also stops inf and NaN
        torch._foreach_mul_(velocity, self._momentum)
        torch._foreach_add_(velocity, gradients)
        torch._foreach_add_(parameters, velocity, alpha=-learning_rate)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The momentum of every parameter that may change; zero wherever the mask is."""
        return dict(zip(self._names, self._velocity, strict=True))

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up the momentum of :meth:`state_tensors`.

        Raises:
            InvalidDataError: the names are not those of this optimizer.
        """
        if set(tensors) != set(self._names):
            raise errors.InvalidDataError("got the momentum of another net or mask")
        for name, velocity in zip(self._names, self._velocity, strict=True):
            velocity.copy_(tensors[name])


def copy_state(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every weight and buffer, on the CPU."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in net.state_dict(keep_vars=True).items()
    }


def changed_frozen_weights(
    original: Mapping[str, torch.Tensor],
    net: torch.nn.Module,
    mask: masks.SaliencyMask | None,
    changed_buffers: tuple[str, ...],
) -> dict[str, int]:
    """How many values that had to stay are not bit-identical, by tensor name; empty is good.

    Args:
        original: the state before, by name.
        net: the net after.
        mask: weights that may change; ``None`` for all.
        changed_buffers: names of buffers that may change.

    Raises:
        InvalidDataError: the net has other tensors than the original.
    """
    state = net.state_dict(keep_vars=True)
    if state.keys() != original.keys():
        raise errors.InvalidDataError("got a net with other tensors than the original")
    parameters = {name for name, _ in net.named_parameters()}
    found = {}
    for name, after in state.items():
        if name in changed_buffers or (name in parameters and mask is None):
            continue
        differs = differing(original[name], after)
        if mask is not None and name in mask.shapes:
            differs &= ~mask.layer(name).reshape(-1).numpy()
        if count := int(differs.sum()):
            found[name] = count
    return found


def assert_frozen_unchanged(
    original: Mapping[str, torch.Tensor],
    net: torch.nn.Module,
    mask: masks.SaliencyMask | None,
    changed_buffers: tuple[str, ...] = (),
) -> None:
    """Everything outside the mask and the declared buffers is bit-identical.

    Raises:
        FrozenWeightChangedError: naming the first few tensors and how many values differ.
    """
    found = changed_frozen_weights(original, net, mask, changed_buffers)
    if found:
        named = ", ".join(f"{name} ({count})" for name, count in list(found.items())[:_SHOWN])
        raise errors.FrozenWeightChangedError(
            f"got {sum(found.values())} changed values outside the mask, expected none: {named}"
        )


def differing(before: torch.Tensor, after: torch.Tensor) -> np.ndarray:
    """Flat bool (numel,): true where the bytes of an element differ; all, where the format does."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return np.ones(after.numel(), dtype=np.bool_)
    size = before.element_size()
    pairs = (weights.bits(before), weights.bits(after))
    first, second = (raw.reshape(-1, size) for raw in pairs)  # (numel, bytes of one element)
    return np.asarray((first != second).any(axis=1))
