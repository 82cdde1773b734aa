"""The weights that a mask leaves free, for methods that do not step through ``MaskedOptimizer``."""

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
    """

    def __init__(self, net: torch.nn.Module, mask: masks.SaliencyMask | None) -> None:
        if mask is not None:
            masks.check_fits(mask, net)
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self._frozen: dict[str, torch.Tensor] = {}  # only where a part is
        for name, parameter in net.named_parameters():
            frozen = None if mask is None else ~mask.layer(name).to(parameter.device)
            if frozen is not None and bool(frozen.all()):
                continue
            self.parameters[name] = parameter
            if frozen is not None and bool(frozen.any()):
                self._frozen[name] = frozen

    def without_frozen(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Values of the parameter's shape, or with leading axes, with 0 where it is frozen."""
        frozen = self._frozen.get(name)
        return values if frozen is None else values.masked_fill(frozen, 0.0)

    @torch.no_grad()
    def replace(self, values: Mapping[str, torch.Tensor]) -> None:
        """Give the free weights of these parameters new values; the others keep their bits."""
        for name, new in values.items():
            parameter, frozen = self.parameters[name], self._frozen.get(name)
            parameter.copy_(new if frozen is None else torch.where(frozen, parameter, new))
