"""The weights of a net that a mask leaves free, and which part of each it does not."""

from collections.abc import Mapping

import torch

from salun_core import masks


class FreeWeights:
    """The parameters of a net of which at least one value may change.

    Args:
        net: its parameters are changed in place, by :meth:`replace` alone.
        mask: which weights may change; ``None`` for all.

    Raises:
        InvalidDataError: the mask is of another net.

    Attributes:
        parameters: by name, in the net's order.
        frozen: bool, of the parameter's shape; of those alone of which a part is frozen.
    """

    def __init__(self, net: torch.nn.Module, mask: masks.SaliencyMask | None) -> None:
        if mask is not None:
            masks.check_fits(mask, net)
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self.frozen: dict[str, torch.Tensor] = {}
        for name, parameter in net.named_parameters():
            frozen = None if mask is None else ~mask.layer(name).to(parameter.device)
            if frozen is not None and bool(frozen.all()):
                continue
            self.parameters[name] = parameter
            if frozen is not None and bool(frozen.any()):
                self.frozen[name] = frozen

    def without_frozen(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Values of the parameter's shape, or with leading axes, with 0 where it is frozen."""
        frozen = self.frozen.get(name)
        return values if frozen is None else values.masked_fill(frozen, 0.0)

    @torch.no_grad()
    def replace(self, values: Mapping[str, torch.Tensor]) -> None:
        """Give the free weights of these parameters new values; the others keep their bits."""
        for name, new in values.items():
            parameter, frozen = self.parameters[name], self.frozen.get(name)
            parameter.copy_(new if frozen is None else torch.where(frozen, parameter, new))
