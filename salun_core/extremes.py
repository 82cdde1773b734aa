"""Which of several like figures counts. Pure."""

from collections.abc import Callable, Sequence

from salun_core import specs


def worst(
    every: Sequence[specs.Measurement],
    miss: Callable[[specs.Measurement], float] = lambda one: specs.miss(
        one.value - (one.target or 0.0), one.side
    ),
) -> specs.Measurement:
    """Of like measurements the one that misses most beyond its sampling error.

    Args:
        every: one or more.
        miss: how far a measurement is off, in the direction that counts.
    """
    z = specs.widened(specs.Z, len(every))
    found = max(every, key=lambda one: miss(one) - z * (one.standard_error or 0.0))
    return found.model_copy(update={"comparisons": len(every)})
