"""Accuracy, overall and per class, and the sampling error of differences."""

import math

import torch

from salun_core import errors, grouping


def correct(predicted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether the class that a net gives is the true one; bool (N,).

    Args:
        predicted: int64 (N,).
        labels: int64 (N,).

    Raises:
        InvalidDataError: the shapes do not fit or N is 0.
    """
    if predicted.ndim != 1 or labels.shape != predicted.shape or not len(labels):
        raise errors.InvalidDataError(
            f"got classes {tuple(predicted.shape)} and labels {tuple(labels.shape)}, "
            "expected (N,) of both with N >= 1"
        )
    return predicted == labels


def accuracy(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of samples classified as their label, in [0, 1].

    Example:
        >>> accuracy(torch.tensor([0, 0]), torch.tensor([0, 1]))
        0.5
    """
    return correct(predicted, labels).double().mean().item()


def per_class_accuracy(predicted: torch.Tensor, labels: torch.Tensor) -> dict[int, float]:
    """Accuracy of every class that has a sample, by class number."""
    hits = correct(predicted, labels).double()
    return {
        label: hits[rows].mean().item() for label, rows in grouping.rows_by_label(labels).items()
    }


def weighted_accuracy(
    predicted: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> float:
    """Σ w_i · correct_i for weights (N,) that sum to 1."""
    return float((correct(predicted, labels).double() * weights).sum())


def paired_drop(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
    """By how much accuracy fell on the same samples, and the standard error of that.

    Args:
        before: bool (N,), correct at the original net.
        after: bool (N,), correct at the other net.

    Returns:
        ``(drop, standard_error)`` of :func:`mean_drop`.
    """
    return mean_drop(before.double() - after.double())


def mean_drop(differences: torch.Tensor) -> tuple[float, float]:
    """The mean of paired differences, float64 (N,), and its standard error.

    One difference of each sign is added, so that it is never 0 for want of observed flips.
    """
    count = len(differences)
    squares = (differences**2).sum().item() + 2.0
    variance = squares / (count + 2) - (differences.sum().item() / (count + 2)) ** 2
    return differences.mean().item(), math.sqrt(variance / (count + 2))


def share_standard_error(share: float, count: float) -> float:
    """Standard error of a share of ``count`` samples: sqrt(p (1 − p)/n).

    Half a success and half a failure are added so that it is not 0 at 0 or 1.
    """
    smoothed = (share * count + 0.5) / (count + 1.0)
    return math.sqrt(smoothed * (1.0 - smoothed) / count)


def proportion_standard_error(
    first: float, n_first: float, second: float, n_second: float
) -> float:
    """Standard error of the difference of two independent shares if they were truly equal.

    The pooled two-sample form sqrt(p (1 − p) (1/n₁ + 1/n₂)), with half a success and half a
    failure added so that it is not 0 at p = 0 or 1. Sample sizes may be effective ones.
    """
    total = n_first + n_second
    pooled = (first * n_first + second * n_second + 0.5) / (total + 1.0)
    return math.sqrt(pooled * (1.0 - pooled) * (1.0 / n_first + 1.0 / n_second))


def effective_size(weights: torch.Tensor) -> float:
    """Kish's effective sample size (Σw)² / Σw² of non-negative weights."""
    return float(weights.sum() ** 2 / (weights**2).sum())
