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


def each(after_step: Callable[[], None]) -> Progress:
    """A progress function for a part of which only the steps are counted."""

    def report(_step: int, _total_steps: int) -> None:
        after_step()

    return report


class Ticker:
    """Counts the steps of parts that do not know of each other.

    Args:
        report: told of every step.
        total: steps of all parts.
    """

    def __init__(self, report: Progress, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def __call__(self) -> None:
        """One step more.

        Raises:
            CancelledError: from ``report``.
        """
        self._done += 1
        self._report(self._done, self._total)
