"""A computation spread over the processes of a torch.distributed group."""

from collections.abc import Sequence

import torch
from torch import distributed


class Spread:
    """The processes that compute one result together, and what they tell each other.

    Every process makes the same calls in the same order. One that raises or dies leaves the others
    waiting until the group's timeout.

    Args:
        group: an initialised group; ``None`` for the default one. With NCCL the process's current
            CUDA device is used, otherwise everything travels through CPU memory.

    Attributes:
        rank: this process, from 0.
        size: how many there are.
        device: where tensors must lie to travel without a copy.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank = distributed.get_rank(group)
        self.size = distributed.get_world_size(group)
        on_gpu = distributed.get_backend(group) == distributed.Backend.NCCL
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else "cpu"

    def add_up(self, counts: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of integers of one shape; on the CPU."""
        total = counts.to(self.device, copy=True)
        distributed.all_reduce(total, group=self._group)
        return total.cpu()

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        """Everybody's tensor of one shape and type, by rank: (size, *shape), on the CPU."""
        found = torch.empty(self.size * own.numel(), dtype=own.dtype, device=self.device)
        sent = own.reshape(-1).to(self.device)
        distributed.all_gather_single(found, sent, group=self._group)
        return found.reshape(self.size, *own.shape).cpu()

    def exchange(
        self, outgoing: torch.Tensor, sent: Sequence[int], received: Sequence[int]
    ) -> tuple[torch.Tensor, ...]:
        """Send every process its part, get one from each.

        Args:
            outgoing: (sum(sent),), the parts one after another.
            sent: elements for every rank.
            received: elements from every rank.

        Returns:
            The parts that came, by rank, on ``device``.
        """
        incoming = outgoing.new_empty(sum(received), device=self.device)
        distributed.all_to_all_single(
            incoming, outgoing.to(self.device), list(received), list(sent), group=self._group
        )
        return torch.split(incoming, list(received))
