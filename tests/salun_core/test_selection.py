"""The fast selection against sorting everything."""

import pytest
import torch

from salun_core import errors, selection


def _draw(generator: torch.Generator, limit: int) -> int:
    return int(torch.randint(1, limit, (1,), generator=generator))


def _part(generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(_draw(generator, 200) - 1, generator=generator).abs()
    changes = (
        values,
        (values * 3).floor(),  # many ties, zeros among them
        torch.where(torch.rand(values.shape, generator=generator) < 0.8, 0.0, values),
        torch.full_like(values, 0.5),
        values * 1e-42,  # subnormal
    )
    return changes[_draw(generator, 6) - 1]


@pytest.mark.parametrize("seed", range(60))
def test_any_mix_of_ties_and_zeros(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small limit sends every pass through chunks."""
    generator = torch.Generator().manual_seed(seed)
    monkeypatch.setattr(selection, "_CHUNK", _draw(generator, 50))
    parts = [_part(generator) for _ in range(_draw(generator, 5))]
    ordered = torch.cat(parts).sort(descending=True).values
    positive = int((ordered > 0.0).sum())
    for k in {1, 2, len(ordered) // 2 + 1, positive + 1, max(1, positive), len(ordered) + 3}:
        threshold, larger = selection.kth_largest(parts, k)
        if k > positive:
            assert (threshold, larger) == (0.0, positive)
        else:
            assert threshold == ordered[k - 1].item()
            assert larger == int((ordered > threshold).sum())


def test_nothing_at_all() -> None:
    assert selection.kth_largest([], 1) == (0.0, 0)
    assert selection.kth_largest([torch.zeros(3), torch.zeros(0)], 2) == (0.0, 0)


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(errors.InvalidDataError, match="expected k >= 1 and float32"):
        selection.kth_largest([torch.ones(2)], 0)
    with pytest.raises(errors.InvalidDataError, match="float32"):
        selection.kth_largest([torch.ones(2, dtype=torch.float64)], 1)
