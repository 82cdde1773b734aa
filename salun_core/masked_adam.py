"""Adam steps on salient weights only, and a moving average of them.

Gradients are masked before the stock optimizer sees them, so both moments stay 0 wherever the mask
is 0 and a frozen weight w becomes ``w + (-rate · 0 / eps)`` = w; weight decay is not offered, since
it would move frozen weights. Parameters that are frozen as a whole have no state at all.
"""

from collections.abc import Mapping

import torch

from salun_core import errors, free_weights, masks

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP, _AVERAGE = "step", "average"


class MaskedAdam:
    """``torch.optim.Adam`` (arXiv 1412.6980) on the weights that a mask leaves free.

    Args:
        net: its parameters are stepped, in place.
        mask: which weights may change; ``None`` for all.
        weight_average: decay of the moving average of the free weights; 0 for none. It starts at
            the weights as they are and counts the first steps less, as is usual for averages.

    Raises:
        InvalidDataError: the mask is of another net.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        mask: masks.SaliencyMask | None,
        *,
        weight_average: float = 0.0,
    ) -> None:
        self._free = free_weights.FreeWeights(net, mask)
        self._all_parameters = list(net.parameters())
        # One parameter after the other: all at once takes room for another copy of the net.
        self._optimizer = torch.optim.Adam(self._free.parameters.values(), lr=0.0, foreach=False)
        self._decay = weight_average
        self._average = (
            {name: p.detach().clone() for name, p in self._free.parameters.items()}
            if weight_average
            else {}
        )
        wanted = {id(parameter) for parameter in self._free.parameters.values()}
        for parameter in self._all_parameters:  # no gradients are computed for what is frozen
            parameter.requires_grad_(id(parameter) in wanted)

    def zero_grad(self) -> None:
        """Forget the gradients of every parameter of the net."""
        for parameter in self._all_parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One step along the masked gradients, which are changed in place."""
        for name, parameter in self._free.parameters.items():
            frozen = self._free.frozen.get(name)
            if frozen is not None and parameter.grad is not None:
                parameter.grad.masked_fill_(frozen, 0.0)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        if self._average:
            torch._foreach_lerp_(
                list(self._average.values()),
                list(self._free.parameters.values()),
                1.0 - self._decay,
            )

    def settle(self) -> None:
        """Put the moving average, if there is one, in the place of the last weights."""
        if self._average:
            self._free.replace(self._average)
        for parameter in self._all_parameters:
            parameter.requires_grad_(True)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Weights that may change, moments, step counts and averages, by name."""
        found = {}
        for name, parameter in self._free.parameters.items():
            found[f"weight.{name}"] = parameter.detach()
            for key, tensor in self._optimizer.state.get(parameter, {}).items():
                found[f"{key}.{name}"] = tensor
        return found | {f"{_AVERAGE}.{name}": value for name, value in self._average.items()}

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up the state of :meth:`state_tensors`.

        Raises:
            InvalidDataError: it is that of another net or mask.
        """
        names = set(self._free.parameters)
        if {k.removeprefix("weight.") for k in tensors if k.startswith("weight.")} != names:
            raise errors.InvalidDataError("got the state of another net or mask")
        for name, parameter in self._free.parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
            if f"{_STEP}.{name}" in tensors:
                self._optimizer.state[parameter] = {
                    _STEP: tensors[f"{_STEP}.{name}"].clone(),
                    **{
                        key: tensors[f"{key}.{name}"].to(parameter.device, copy=True)
                        for key in _MOMENTS
                    },
                }
        for name, average in self._average.items():
            average.copy_(tensors[f"{_AVERAGE}.{name}"])
