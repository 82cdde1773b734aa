"""How long work reports back, and how it is resumed."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

# (step, total_steps), called at every step with step counted from 1; cheap. It may raise
# CancelledError, which stops the work at once.
Progress = Callable[[int, int], None]


class Checkpoints(Protocol):
    """Where the state of a run is kept between epochs."""

    def load(self) -> Mapping[str, torch.Tensor] | None:
        """The newest state that was saved whole, or ``None``."""

    def save(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Keep the state after ``step`` steps. Tensors are the run's own: copy, do not keep."""


def silent(step: int, total_steps: int) -> None:
    """A progress function that does nothing."""
