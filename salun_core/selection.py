"""The exact k-th largest magnitude among many tensors, in little time and memory.

A sorted sample brackets the answer, counting passes check the bracket, and only the candidates
inside it are sorted. All comparisons are made on the bit patterns of non-negative float32 values,
which order as the values do, so the answer is exact and the same on every device.
"""

from collections.abc import Iterator, Sequence

import torch

from salun_core import errors

_CHUNK = 1 << 22  # elements looked at together: bounds the temporary memory
_SAMPLE = 1 << 18  # elements that are sampled for the bracket
_SORTED_AT_ONCE = 1 << 22  # candidates that may be sorted
_LARGEST = 0x7F800000  # bit pattern of +inf


def kth_largest(magnitudes: Sequence[torch.Tensor], k: int) -> tuple[float, int]:
    """The k-th largest positive magnitude and how many elements are larger.

    Args:
        magnitudes: float32 tensors of any shapes with values >= 0, ranked together.
        k: rank, from 1.

    Returns:
        ``(threshold, larger)``: ``threshold`` is the smallest positive magnitude when fewer than
        k are positive (0.0 when none is); ``larger`` counts elements above it.

    Raises:
        InvalidDataError: a tensor is not float32 or k is below 1.
    """
    if k < 1 or any(m.dtype != torch.float32 for m in magnitudes):
        raise errors.InvalidDataError(f"got k = {k}, expected k >= 1 and float32 magnitudes")
    patterns = [m.detach().reshape(-1).view(torch.int32) for m in magnitudes if m.numel()]
    rank = min(k, _count_at_least(patterns, 1))
    if rank == 0:
        return 0.0, 0
    low, high = _bracket(patterns, rank)
    pattern = _search(patterns, rank, low, high)
    threshold = torch.tensor([pattern], dtype=torch.int32).view(torch.float32).item()
    return threshold, _count_at_least(patterns, pattern + 1)


def _chunks(patterns: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    for pattern in patterns:
        yield from torch.split(pattern, _CHUNK)


def _count_at_least(patterns: Sequence[torch.Tensor], pattern: int) -> int:
    return sum(int(torch.count_nonzero(chunk >= pattern)) for chunk in _chunks(patterns))


def _bracket(patterns: Sequence[torch.Tensor], rank: int) -> tuple[int, int]:
    """Bit patterns ``low <= answer <= high``, checked by counting."""
    total = sum(p.numel() for p in patterns)
    stride = max(1, total // _SAMPLE)
    sample = torch.cat([p[::stride].cpu() for p in patterns]).sort().values
    # The sampled rank is off by a few standard deviations at most; counting finds out.
    middle = len(sample) - round(rank * len(sample) / total)
    margin = 4 * round(len(sample) ** 0.5) + len(patterns)
    low = int(sample[max(0, middle - margin)])
    high = int(sample[min(len(sample) - 1, middle + margin)])
    if low < 1 or _count_at_least(patterns, low) < rank:
        low = 1
    if _count_at_least(patterns, high + 1) >= rank:
        high = _LARGEST
    return low, high


def _search(patterns: Sequence[torch.Tensor], rank: int, low: int, high: int) -> int:
    """The largest pattern with at least ``rank`` elements at or above it."""
    above = _count_at_least(patterns, high + 1)
    inside = _count_at_least(patterns, low) - above
    while low < high and inside > _SORTED_AT_ONCE:
        middle = low + (high - low + 1) // 2
        count = _count_at_least(patterns, middle)
        if count >= rank:
            low, inside = middle, count - above
        else:
            high, above, inside = middle - 1, count, inside - (count - above)
    if low == high:
        return low
    candidates = torch.cat([c[(c >= low) & (c <= high)] for c in _chunks(patterns)])
    return int(candidates.sort(descending=True).values[rank - above - 1])
