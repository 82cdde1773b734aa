"""Gradients of a net over several processes, each of which keeps the sum of one shard.

The sum is that of one process bit for bit, whatever the number of processes, because it is the same
sum: one process adds the float32 gradient of batch after batch, and so does the owner of every
shard. Batches go round: while process r computes batch r, r + size, …, each owner is sent its part
of all of them and adds these in the order of the batches. An all-reduce would add in another order
for every number of processes; the price is that gradients travel after every batch, 4 bytes a
weight, as they do in data-parallel training.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from salun_core import errors, progress, spread


class Shards:
    """The parameters of a net, one after another, cut into contiguous shards, one a process.

    Args:
        net: the same on every process.
        members: the processes.

    Raises:
        InvalidDataError: a parameter is not float32.

    Attributes:
        shapes: parameter name to shape, in the net's order.
        total: weights of the net.
    """

    def __init__(self, net: torch.nn.Module, members: spread.Spread) -> None:
        for name, parameter in net.named_parameters():
            if parameter.dtype != torch.float32:
                raise errors.InvalidDataError(f"got {name} in {parameter.dtype}, expected float32")
        self.shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
        self.total = sum(math.prod(shape) for shape in self.shapes.values())
        self._parameters = list(net.parameters())
        self._members = members
        self._length = 8 * -(-self.total // (8 * members.size))  # whole bytes when packed
        starts = (min(rank * self._length, self.total) for rank in range(members.size + 1))
        self._starts = tuple(starts)

    def sum_gradients(
        self, backward: Callable[[int], None], batches: int, report: progress.Progress
    ) -> torch.Tensor:
        """This process's shard of the sum of all batches' gradients, float32.

        Args:
            backward: adds the gradient of the batch of that number to the parameters' ``grad``.
            batches: how many there are, over all processes; there may be fewer than processes.
            report: called after every round of batches.
        """
        members, sizes = self._members, self._sizes()
        own = torch.zeros(sizes[members.rank], dtype=torch.float32, device=members.device)
        for first in range(0, batches, members.size):
            busy = min(members.size, batches - first)  # the last round may not be for all
            outgoing = torch.empty(0)
            if members.rank < busy:
                backward(first + members.rank)
                outgoing = self._take_gradients()
            parts = members.exchange(
                outgoing,
                sizes if members.rank < busy else [0] * members.size,
                [len(own) if rank < busy else 0 for rank in range(members.size)],
            )
            for part in parts[:busy]:
                own += part
            report(first + busy, batches)
        return own

    def check_finite(self, own: torch.Tensor) -> None:
        """No process's shard holds NaN or infinity; all processes learn it.

        Raises:
            NonFiniteLossError: naming the first parameter that has such a gradient.
        """
        wrong = (~torch.isfinite(own)).nonzero().flatten()
        start = self._starts[self._members.rank]
        first = start + int(wrong[0]) if len(wrong) else self.total
        first = int(self._members.gather(torch.tensor(first)).min())
        for name, shape in self.shapes.items():
            first -= math.prod(shape)
            if first < 0:
                raise errors.NonFiniteLossError(f"the gradient of {name} is not finite")

    def gather_bits(self, own: torch.Tensor) -> dict[str, np.ndarray]:
        """The shards' bools (len(shard),), packed, by parameter; the same on every process.

        This gathers 1 bit a weight; nothing else of the shards leaves its owner.
        """
        packed = np.zeros(self._length // 8, dtype=np.uint8)
        filled = np.packbits(own.cpu().numpy())
        packed[: len(filled)] = filled
        flat = self._members.gather(torch.from_numpy(packed)).numpy().reshape(-1)
        bits, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            layer = np.unpackbits(flat[start // 8 : -(-end // 8)])[start % 8 :]
            bits[name] = np.packbits(layer[: end - start])
            start = end
        return bits

    def _sizes(self) -> list[int]:
        return [self._starts[r + 1] - self._starts[r] for r in range(self._members.size)]

    def _take_gradients(self) -> torch.Tensor:
        """All gradients in one tensor, (total,); the parameters are left without."""
        flat = torch.cat([_flat_gradient(p).to(self._members.device) for p in self._parameters])
        for parameter in self._parameters:
            parameter.grad = None
        return flat


def _flat_gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:  # a parameter that the loss does not reach
        return torch.zeros(parameter.numel(), device=parameter.device)
    return parameter.grad.reshape(-1)
