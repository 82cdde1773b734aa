"""The layer whose outputs are the logits, and what goes into it."""

import contextlib
from collections.abc import Iterator

import torch

from salun_core import errors, modes, specs


def find(net: torch.nn.Module, config: specs.ClassifierConfig) -> torch.nn.Linear:
    """The last linear layer with one output per class whose outputs are the net's own.

    Verified by a forward pass: a layer of that shape may also be an auxiliary head.

    Raises:
        InvalidDataError: the net has none, for example one that ends in a convolution or averages
            two heads.
    """
    ran: list[tuple[torch.nn.Linear, torch.Tensor]] = []

    def keep(layer: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if isinstance(layer, torch.nn.Linear):
            ran.append((layer, output))

    handles = [
        module.register_forward_hook(keep)
        for module in net.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == config.num_classes
    ]
    try:
        with modes.evaluating(net), torch.inference_mode():
            logits = net(torch.zeros(1, *config.input_size, device=modes.device_of(net)))
    finally:
        for handle in handles:
            handle.remove()
    for layer, output in reversed(ran):
        if torch.equal(output, logits):
            return layer
    raise errors.InvalidDataError(
        f"got {config.architecture}, which does not end in a linear layer of "
        f"{config.num_classes} outputs, expected a net that does"
    )


class Tap:
    """Keeps the head's inputs for the wanted rows of a set, batch after batch.

    Args:
        wanted: bool (N,), in the order in which the set is read.
    """

    def __init__(self, wanted: torch.Tensor) -> None:
        self._wanted = wanted
        self._read = 0
        self._parts: list[torch.Tensor] = []

    @contextlib.contextmanager
    def on(self, head: torch.nn.Linear) -> Iterator[None]:
        """Listen to the layer within the block."""
        hook = head.register_forward_pre_hook(self._keep)
        try:
            yield
        finally:
            hook.remove()

    def features(self) -> torch.Tensor:
        """Float32 (wanted rows, D), on the CPU; (0, 0) if there were none."""
        # A plain tensor: those of inference mode cannot be used in later autograd.
        return torch.cat(self._parts).clone() if self._parts else torch.empty(0, 0)

    def _keep(self, _layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        rows = inputs[0]  # (B, D)
        wanted = self._wanted[self._read : self._read + len(rows)]
        self._read += len(rows)
        if bool(wanted.any()):
            self._parts.append(rows[wanted.to(rows.device)].float().cpu())
