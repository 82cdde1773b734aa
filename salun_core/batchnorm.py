"""What batch normalisation may do while a net forgets.

Running statistics are buffers, not weights: no mask covers them, and forget batches would drag
them along. The policy is:

- Separate passes over forget and retain samples run with the stored statistics and
  change no buffer (:func:`stored_statistics`).
- In a joint step the retain rows alone give the statistics, for themselves and for the forget
  rows beside them, and alone move the running averages (:func:`retain_statistics`).
- The buffers that such training may change are declared (:func:`statistics_names`); every other
  buffer must stay bit-identical.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import overrides
from torch.nn import functional
from torch.nn.modules import batchnorm


@contextlib.contextmanager
def stored_statistics(net: torch.nn.Module) -> Iterator[None]:
    """Normalise by the running averages and leave them alone; other modules keep their mode."""
    layers = [m for m in net.modules() if isinstance(m, batchnorm._BatchNorm)]
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)


def retain_statistics(retain_rows: int) -> "contextlib.AbstractContextManager[Any]":
    """Within the block, the first ``retain_rows`` rows of a batch give its statistics.

    The other rows are normalised by the same mean and variance and leave no trace in the running
    averages. Their gradient flows through mean and variance too: with statistics taken as
    constants, training drifts (retain accuracy .91 instead of .97 after forgetting a class).
    """
    return _RetainStatistics(retain_rows)


def statistics_names(net: torch.nn.Module) -> tuple[str, ...]:
    """The state names of all running averages and batch counters, in the net's order."""
    return tuple(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in net.named_modules()
        if isinstance(module, batchnorm._BatchNorm)
        for name, _ in module.named_buffers(recurse=False)
    )


class _RetainStatistics(overrides.TorchFunctionMode):
    """Catches the function, not the module class: libraries bring batch norm layers of theirs."""

    def __init__(self, retain_rows: int) -> None:
        super().__init__()
        self._rows = retain_rows

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: torch.Tensor,  # noqa: A002
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        if not training or len(input) <= self._rows:
            return functional.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        retain, forget = input[: self._rows], input[self._rows :]
        kept = functional.batch_norm(
            retain, running_mean, running_var, weight, bias, True, momentum, eps
        )
        axes = [0, *range(2, input.ndim)]
        variance, mean = torch.var_mean(retain, dim=axes, correction=0, keepdim=True)
        scale = torch.rsqrt(variance + eps)  # (1, C, 1, 1)
        if weight is not None:
            scale = scale * weight.reshape(scale.shape)
        other = (forget - mean) * scale
        if bias is not None:
            other = other + bias.reshape(scale.shape)
        return torch.cat([kept, other])
