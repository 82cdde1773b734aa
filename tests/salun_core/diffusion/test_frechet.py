"""The distance against its closed form."""

import pytest
import torch

from salun_core import errors
from salun_core.diffusion import frechet


def test_equal_sets_have_no_distance() -> None:
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert frechet.distance(rows, rows) == pytest.approx(0.0, abs=1e-6)


def test_a_shift_counts_with_its_square() -> None:
    """Equal covariances cancel: ‖μ₁ − μ₂‖² = 8 · 0.5² = 2."""
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert frechet.distance(rows, rows + 0.5) == pytest.approx(2.0, abs=1e-6)


def test_a_scale_counts_as_for_gaussians() -> None:
    """Σ₂ = 9 Σ₁, Σ₁ = I: tr(Σ₁ + 9 Σ₁ − 2 · 3 Σ₁) = 4 · 3 = 12 in three dimensions."""
    rows = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    assert frechet.distance(rows, 3.0 * rows) == pytest.approx(12.0, rel=0.03)


def test_features_without_spread_are_taken() -> None:
    """A net that always draws the same picture: only the means differ, 2 · 1² = 2."""
    assert frechet.distance(torch.zeros(5, 2), torch.ones(5, 2)) == pytest.approx(2.0)


def test_one_picture_is_refused() -> None:
    with pytest.raises(errors.InvalidDataError, match="at least 2 rows"):
        frechet.distance(torch.zeros(1, 2), torch.zeros(5, 2))
