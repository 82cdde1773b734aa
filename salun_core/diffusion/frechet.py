"""The Fréchet distance of two sets of features.

It is FID (arXiv 1706.08500) only with the features of Inception-v3 and ten thousand pictures; with
a judge's own features it orders nets of one model, and is not to be compared with other papers'.
"""

import numpy as np
import torch
from scipy import linalg
from sklearn import covariance

from salun_core import errors

_FEWEST = 2


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), never negative; 0 for equal sets.

    Covariances are shrunk (Ledoit and Wolf, 2004), since there are fewer pictures than an
    estimate of them needs: values fall with the number of pictures.

    Args:
        first: float (N, D).
        second: float (M, D).

    Raises:
        InvalidDataError: a set has fewer than two rows, or the widths differ.

    Example:
        >>> few = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.2]])
        >>> round(distance(few, few + 1.0), 6)
        2.0
    """
    if min(len(first), len(second)) < _FEWEST or first.shape[1:] != second.shape[1:]:
        raise errors.InvalidDataError(
            f"got features {tuple(first.shape)} and {tuple(second.shape)}, expected (N, D) and "
            f"(M, D) with at least {_FEWEST} rows"
        )
    mean_1, covariance_1 = _moments(first)
    mean_2, covariance_2 = _moments(second)
    root = _root(covariance_1)
    cross = np.sqrt(np.clip(linalg.eigvalsh(root @ covariance_2 @ root), 0.0, None)).sum()
    spread = np.trace(covariance_1) + np.trace(covariance_2) - 2.0 * cross
    return max(0.0, float(np.square(mean_1 - mean_2).sum() + spread))


def _moments(features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = features.double().numpy()
    shrunk, _ = covariance.ledoit_wolf(rows)
    return rows.mean(axis=0), np.asarray(shrunk)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root: tr (Σ₁ Σ₂)^½ = tr (Σ₁^½ Σ₂ Σ₁^½)^½, whose root is real."""
    values, vectors = linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T)
