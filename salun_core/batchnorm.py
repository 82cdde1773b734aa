"""What batch normalisation may do while a net forgets.

Running statistics are buffers, not weights: no mask covers them, and forget batches would drag
them along. The policy is:

- Methods that see the forget set alone run with the stored statistics and change no buffer
  (:func:`stored_statistics`).
- Where a step has retain and forget rows, the retain rows alone give the statistics, for
  themselves and for the forget rows beside them, and alone move the running averages
  (:func:`retain_statistics`).
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

from salun_core import errors


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


def retain_statistics(
    retain_rows: int, batch_size: int
) -> "contextlib.AbstractContextManager[Any]":
    """Within the block, the first ``retain_rows`` samples of a batch give its statistics.

    Some nets fold tokens into the first axis before they normalise; a layer's rows are counted
    as so many of each sample.

    The other rows are normalised by the same mean and variance and leave no trace in the running
    averages. Their gradient flows through mean and variance too: with statistics taken as
    constants, training drifts (retain accuracy .91 instead of .97 after forgetting a class).
    """
    return _RetainStatistics(retain_rows, batch_size)


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

    def __init__(self, retain_rows: int, batch_size: int) -> None:
        super().__init__()
        self._retained, self._batch_size = retain_rows, batch_size

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
        if not training or self._retained == self._batch_size:
            return functional.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        # PyTorch's own kernel for the statistics: it updates the running averages as well, and is
        # many times faster than the mean and variance of a tensor over all axes but one.
        rows = self._count_rows(input)
        mean, variance = torch.batch_norm_update_stats(
            input[:rows].detach(), running_mean, running_var, momentum
        )
        ones = torch.ones_like(mean)
        scale = ones if weight is None else weight
        shift = torch.zeros_like(mean) if bias is None else bias
        output: torch.Tensor = _Normalised.apply(input, scale, shift, mean, variance, rows, eps)
        return output

    def _count_rows(self, input: torch.Tensor) -> int:  # noqa: A002
        """Of the layer's input, those that belong to retained samples."""
        each, rest = divmod(len(input), self._batch_size)
        rows = self._retained * each
        if rest or rows * input[0, 0].numel() < 2:
            raise errors.InvalidDataError(
                f"got {len(input)} rows to normalise for {self._batch_size} samples of which "
                f"{self._retained} are retained, expected as many of each sample, and two retained "
                "values a channel at least"
            )
        return rows


class _Normalised(torch.autograd.Function):
    """y = (x − μ)·w/√(σ² + ε) + b for all rows, μ and σ² those of the first ``rows``.

    With r = 1/√(σ² + ε), x̂ = (x − μ)·r and M values of a channel in the first rows, the gradient g
    of the loss with respect to y gives ∂b = Σg, ∂w = Σg·x̂ (over all rows) and

        ∂x = g·w·r − [row among the first] · (w·r/M)·(∂b + x̂·∂w):

    the usual backward pass of batch norm, the sums going over more rows than the statistics.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        input: torch.Tensor,  # noqa: A002
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        rows: int,
        eps: float,
    ) -> torch.Tensor:
        """Every (B, C, …); ``mean`` and biased ``variance`` (C,)."""
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.rows, ctx.eps = rows, eps
        return functional.batch_norm(input, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """See the class."""
        (gradient,) = gradients
        input, weight, mean, variance = ctx.saved_tensors  # noqa: A001
        inverse = torch.rsqrt(variance + ctx.eps)
        inputs, weights, biases = torch.ops.aten.native_batch_norm_backward(
            gradient, input, weight, mean, variance, mean, inverse, False, ctx.eps, [True] * 3
        )
        first = input[: ctx.rows]
        share = weight * inverse * (first.shape[1] / first.numel())  # w·r/M
        slope = -share * inverse * weights
        shape = (1, -1, *(1,) * (input.ndim - 2))
        own = inputs[: ctx.rows]
        own.addcmul_(first, slope.view(shape))
        own.sub_((share * biases + slope * mean).view(shape))
        return inputs, weights, biases, None, None, None, None
