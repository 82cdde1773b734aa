"""The exact k-th largest magnitude among many tensors, in little time and memory.

A sorted sample brackets the answer, counting passes check the bracket, and only the candidates
inside it are sorted. All comparisons are made on the bit patterns of non-negative float32 values,
which order as the values do, so the answer is exact and the same on every device.
"""

import dataclasses
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
        ``(threshold, larger)``; ``larger`` counts elements above the threshold. Where fewer than k
        are positive, the threshold is 0.0, so that all positive ones are above it.

    Raises:
        InvalidDataError: a tensor is not float32 or k is below 1.
    """
    if k < 1 or any(m.dtype != torch.float32 for m in magnitudes):
        raise errors.InvalidDataError(f"got k = {k}, expected k >= 1 and float32 magnitudes")
    patterns = [m.detach().reshape(-1).view(torch.int32) for m in magnitudes if m.numel()]
    positive = _count_at_least(patterns, 1)
    if k > positive:
        return 0.0, positive
    pattern, larger = _search(patterns, k, _bracket(patterns, k, positive))
    return _value(pattern), larger


@dataclasses.dataclass(frozen=True)
class _Bracket:
    """Patterns low to high, how many elements are among them, and how many above."""

    low: int
    high: int
    inside: int
    above: int


def _chunks(patterns: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    for pattern in patterns:
        yield from torch.split(pattern, _CHUNK)


def _count_at_least(patterns: Sequence[torch.Tensor], pattern: int) -> int:
    return sum(int(torch.count_nonzero(chunk >= pattern)) for chunk in _chunks(patterns))


def _value(pattern: int) -> float:
    return torch.tensor([pattern], dtype=torch.int32).view(torch.float32).item()


def _bracket(patterns: Sequence[torch.Tensor], rank: int, positive: int) -> _Bracket:
    """A bracket that holds the answer: narrow where the sample was right, else all there is."""
    total = sum(p.numel() for p in patterns)
    stride = max(1, total // _SAMPLE)
    sample = torch.cat([p[::stride].cpu() for p in patterns]).sort().values
    # The sampled rank is off by a few standard deviations at most; counting finds out.
    middle = len(sample) - round(rank * len(sample) / total)
    margin = 4 * round(len(sample) ** 0.5) + len(patterns)
    low = max(1, int(sample[min(len(sample) - 1, max(0, middle - margin))]))
    high = max(low, int(sample[min(len(sample) - 1, max(0, middle + margin))]))
    above = _count_at_least(patterns, high + 1)
    reached = _count_at_least(patterns, low)
    if above < rank <= reached:
        return _Bracket(low, high, reached - above, above)
    return _Bracket(1, _LARGEST, positive, 0)


def _search(patterns: Sequence[torch.Tensor], rank: int, bracket: _Bracket) -> tuple[int, int]:
    """The largest pattern with at least ``rank`` elements at or above it, and how many above."""
    low, high, inside, above = bracket.low, bracket.high, bracket.inside, bracket.above
    while low < high and inside > _SORTED_AT_ONCE:
        middle = low + (high - low + 1) // 2
        count = _count_at_least(patterns, middle)
        if count >= rank:
            low, inside = middle, count - above
        else:
            high, inside, above = middle - 1, inside - (count - above), count
    if low == high:
        return low, above
    candidates = torch.cat([c[(c >= low) & (c <= high)] for c in _chunks(patterns)])
    ordered = candidates.sort(descending=True).values
    found = ordered[rank - above - 1]
    return int(found), above + int(torch.count_nonzero(ordered > found))
