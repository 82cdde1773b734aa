"""The exact largest magnitudes among many tensors, on one process or over several.

Radix selection: float32 values >= 0 order as their bit patterns do. Every pass counts the patterns
by some of their bits, from the highest on, and goes on with the bin that holds the rank, so the
answer is exact and the same on every device. Between processes only counts travel, 16 KiB a pass,
however many magnitudes each holds.
"""

from collections.abc import Iterator, Sequence

import torch

from salun_core import errors, spread

_CHUNK = 1 << 20  # elements looked at together: bounds the temporary memory
_WIDTHS = (11, 10, 10)  # bits a pass looks at; all but the sign, which is 0


def largest(
    magnitudes: Sequence[torch.Tensor], k: int, members: spread.Spread | None = None
) -> Iterator[torch.Tensor]:
    """Which elements are the ``k`` largest; those that are 0 never are, and ties go to the first.

    Args:
        magnitudes: float32 tensors of any shapes with values >= 0 and no -0.0, ranked together;
            with ``members`` this process's shard, which comes after those of the ranks before it.
        k: how many, from 1; over all processes.
        members: the processes that hold the other shards; each calls this and takes every item.

    Yields:
        For every tensor a bool one of its shape and device.

    Raises:
        InvalidDataError: a tensor is not float32 or k is below 1.
    """
    threshold, larger = kth_largest(magnitudes, k, members)
    ties_left = k - larger if threshold > 0.0 else 0
    if members is not None:
        ties = sum(int(torch.count_nonzero(m == threshold)) for m in magnitudes)
        ties_left -= int(members.gather(torch.tensor(ties))[: members.rank].sum())
    for magnitude in magnitudes:
        chosen = magnitude > threshold
        if ties_left > 0:
            ties_left -= _add_ties(chosen, magnitude == threshold, ties_left)
        yield chosen


def kth_largest(
    magnitudes: Sequence[torch.Tensor], k: int, members: spread.Spread | None = None
) -> tuple[float, int]:
    """The k-th largest positive magnitude and how many elements are larger.

    Args:
        magnitudes: as for :func:`largest`.
        k: rank, from 1.
        members: as for :func:`largest`; all get the same answer.

    Returns:
        ``(threshold, larger)``; ``larger`` counts elements above the threshold. Where fewer than k
        are positive, the threshold is 0.0, so that all positive ones are above it.

    Raises:
        InvalidDataError: a tensor is not float32 or k is below 1.
    """
    if k < 1 or any(m.dtype != torch.float32 for m in magnitudes):
        raise errors.InvalidDataError(f"got k = {k}, expected k >= 1 and float32 magnitudes")
    patterns = [m.detach().reshape(-1).view(torch.int32) for m in magnitudes]
    positive = torch.tensor(sum(int(torch.count_nonzero(p)) for p in patterns))
    positive = _over_all(positive, members)
    if k > int(positive):
        return 0.0, int(positive)
    pattern, larger, bits_left = 0, 0, sum(_WIDTHS)
    for width in _WIDTHS:
        bits_left -= width
        counts = _over_all(_histogram(patterns, pattern, bits_left, width), members)
        reached = counts.flip(0).cumsum(0)  # elements in a bin or above it, the highest first
        place = int(torch.searchsorted(reached, k - larger))
        larger += int(reached[place - 1]) if place else 0
        pattern = (pattern << width) | ((1 << width) - 1 - place)
    return torch.tensor([pattern], dtype=torch.int32).view(torch.float32).item(), larger


def _over_all(counts: torch.Tensor, members: spread.Spread | None) -> torch.Tensor:
    return counts if members is None else members.add_up(counts)


def _histogram(
    patterns: Sequence[torch.Tensor], prefix: int, bits_left: int, width: int
) -> torch.Tensor:
    """How many patterns that begin with the prefix go on with each value; int64 (2**width,)."""
    counts = torch.zeros(1 << width, dtype=torch.int64)
    for pattern in patterns:
        for chunk in torch.split(pattern, _CHUNK):
            high = chunk >> bits_left
            if prefix or bits_left + width < sum(_WIDTHS):
                high = high[high >> width == prefix] & ((1 << width) - 1)
            counts += torch.bincount(high, minlength=1 << width).cpu()
    return counts


def _add_ties(chosen: torch.Tensor, ties: torch.Tensor, limit: int) -> int:
    """Choose the first ``limit`` ties too, in place; how many were chosen."""
    count = int(torch.count_nonzero(ties))
    if count > limit:
        first = ties.reshape(-1).nonzero().flatten()[:limit]
        chosen.reshape(-1)[first] = True
        return limit
    chosen.logical_or_(ties)
    return count
